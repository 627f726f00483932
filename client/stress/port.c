// SPDX-License-Identifier: Apache-2.0
// port.c - BINDER_WRITE_READ, and a call from its command to its reply.

#define _GNU_SOURCE
#include "port.h"

#include "board.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

int device = -1;

static void fail(const char *what)
{
	int error = errno;

	if (self) // binderctl says it
		board_complain(&self->broken, "%s: %s", what, strerror(error));
	else
		fprintf(stderr, "stress worker: %s: %s\n", what, strerror(error));
	_exit(3);
}

void port_open(const char *path)
{
	device = open(path, O_RDWR | O_CLOEXEC);
	if (device < 0)
		fail(path);
	if (mmap(NULL, AREA_SIZE, PROT_READ, MAP_PRIVATE, device, 0) == MAP_FAILED)
		fail("mmap");
	uint32_t on = 1; // old drivers have no spam detection: then nobody is suspected
	ioctl(device, BINDER_ENABLE_ONEWAY_SPAM_DETECTION, &on);
}

int port_become_manager(void)
{
	int32_t none = 0; // not NULL: FUSE looks at the argument of every ioctl

	return ioctl(device, BINDER_SET_CONTEXT_MGR, &none) < 0 ? errno : 0;
}

static void talk(struct port *port, size_t read_size)
{
	struct binder_write_read bwr = {
		.write_size = port->out_size,
		.write_buffer = (binder_uintptr_t)port->out,
		.read_size = read_size,
		.read_buffer = (binder_uintptr_t)port->in,
	};

	// After a signal the same structure goes in again: it says what is done already.
	while (ioctl(device, BINDER_WRITE_READ, &bwr) < 0)
		if (errno != EINTR)
			fail("BINDER_WRITE_READ");
	port->out_size = 0;
	if (read_size) {
		port->in_size = bwr.read_consumed;
		port->in_at = 0;
	}
}

void port_queue(struct port *port, uint32_t word, const void *payload)
{
	size_t size = sizeof word + _IOC_SIZE(word);

	if (port->out_size + size > sizeof port->out)
		port_flush(port);
	memcpy(port->out + port->out_size, &word, sizeof word);
	memcpy(port->out + port->out_size + sizeof word, payload, _IOC_SIZE(word));
	port->out_size += size;
}

void port_flush(struct port *port)
{
	if (port->out_size)
		talk(port, 0);
}

void port_free(struct port *port, binder_uintptr_t buffer)
{
	port_queue(port, BC_FREE_BUFFER, &buffer);
}

uint32_t port_next(struct port *port, void *payload)
{
	uint32_t word;

	while (port->in_at + sizeof word > port->in_size)
		talk(port, sizeof port->in);
	memcpy(&word, port->in + port->in_at, sizeof word);
	port->in_at += sizeof word;
	memcpy(payload, port->in + port->in_at, _IOC_SIZE(word));
	port->in_at += _IOC_SIZE(word);
	return word;
}

static enum outcome why_refused(struct call *call, bool was_accepted)
{
	struct binder_extended_error error = { .param = 0 };

	// Without that ioctl a refusal is taken for one for lack of room.
	if (ioctl(device, BINDER_GET_EXTENDED_ERROR, &error) < 0)
		error.param = -ENOSPC;
	call->error = -error.param;
	if (call->error == ESRCH)
		return DEAD;
	if (call->error != ENOSPC && call->error != ENOMEM && call->error != EMFILE)
		return REFUSED;
	return was_accepted ? NO_ROOM_FOR_REPLY : NO_ROOM;
}

static void queue_data(struct port *port, uint32_t word, const struct call *call, uint32_t flags,
		       const binder_size_t *offset)
{
	struct binder_transaction_data data = {
		.target.handle = call->handle,
		.code = call->code,
		.flags = flags,
		.data_size = call->size,
		.offsets_size = call->objects * sizeof *offset,
		.data.ptr.buffer = (binder_uintptr_t)call->data,
		.data.ptr.offsets = (binder_uintptr_t)offset,
	};

	port_queue(port, word, &data);
}

// Sends and waits for the reply; calls that come meanwhile are handled.
enum outcome port_call(struct port *port, struct call *call)
{
	binder_size_t offset = call->objects_at;
	unsigned char payload[PAYLOAD_MAX];
	bool was_accepted = false;
	uint32_t flags = (call->one_way ? TF_ONE_WAY : 0) | TF_ACCEPT_FDS;

	queue_data(port, BC_TRANSACTION, call, flags, &offset);
	for (;;) {
		uint32_t word = port_next(port, payload);

		switch (word) {
		case BR_TRANSACTION_COMPLETE:
		case BR_ONEWAY_SPAM_SUSPECT:
		case BR_PENDING_FROZEN:
			was_accepted = true;
			call->how = word;
			if (call->one_way)
				return ACCEPTED;
			break;
		case BR_REPLY:
			memcpy(&call->reply, payload, sizeof call->reply);
			return ACCEPTED;
		case BR_DEAD_REPLY:
			return DEAD;
		case BR_FROZEN_REPLY:
			return FROZEN;
		case BR_FAILED_REPLY:
			return why_refused(call, was_accepted);
		default:
			port_handle(port, word, payload);
		}
	}
}

// Answers the call that this thread has received last, with its next read: until then the data must
// stay. Whether the answer got there, the caller knows.
void port_reply(struct port *port, const void *data, size_t size, size_t objects_at,
		size_t objects)
{
	struct call call = { .data = data, .size = size, .objects = objects };

	port->reply_offset = objects_at;
	queue_data(port, BC_REPLY, &call, 0, &port->reply_offset);
}
