// SPDX-License-Identifier: Apache-2.0
// service_client.c - a service, and a client of it, for service_manager.c.
//
//   cc -O2 -Wall -o build/service_client client/examples/service_client.c
//   build/service_client /dev/binder serve NAME        answers each call with the bytes it got
//   build/service_client /dev/binder call NAME TEXT    calls it once and prints the answer
//   build/service_client /dev/binder watch NAME        waits until its process is dead

#include <fcntl.h>
#include <linux/android/binder.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { GET = 1, ECHO = 1, ADD = 3, MAP_SIZE = 128 * 1024, TEXT_MAX = 200 };

static int fd;

static void fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

static void fail_with_errno(const char *what)
{
	perror(what);
	exit(1);
}

// Writes one command and what belongs to it.
static void write_command(uint32_t word, const void *payload)
{
	unsigned char out[4 + sizeof(struct binder_transaction_data)];
	struct binder_write_read bwr = { .write_size = sizeof word + _IOC_SIZE(word),
					 .write_buffer = (binder_uintptr_t)out };

	memcpy(out, &word, sizeof word);
	memcpy(out + sizeof word, payload, _IOC_SIZE(word));
	if (ioctl(fd, BINDER_WRITE_READ, &bwr) < 0)
		fail_with_errno("BINDER_WRITE_READ");
}

static void answer(const struct binder_transaction_data *call)
{
	struct binder_transaction_data reply = { .data_size = call->data_size,
						 .data.ptr.buffer = call->data.ptr.buffer };

	write_command(BC_REPLY, &reply);
	write_command(BC_FREE_BUFFER, &call->data.ptr.buffer);
}

static void handle(uint32_t word, const unsigned char *payload)
{
	struct binder_transaction_data call;

	if (word == BR_INCREFS)
		write_command(BC_INCREFS_DONE, payload);
	else if (word == BR_ACQUIRE)
		write_command(BC_ACQUIRE_DONE, payload);
	else if (word == BR_DEAD_REPLY || word == BR_FAILED_REPLY)
		fail("nobody is there");
	else if (word == BR_TRANSACTION)
		answer(memcpy(&call, payload, sizeof call));
}

// Handles what comes until one word does, whose payload it copies.
static void wait_for(uint32_t wanted, void *payload)
{
	unsigned char in[512];
	uint32_t word;

	for (bool found = false; !found;) {
		struct binder_write_read bwr = { .read_size = sizeof in,
						 .read_buffer = (binder_uintptr_t)in };

		if (ioctl(fd, BINDER_WRITE_READ, &bwr) < 0)
			fail_with_errno("BINDER_WRITE_READ");
		for (size_t at = 0; at < bwr.read_consumed; at += _IOC_SIZE(word)) {
			memcpy(&word, in + at, sizeof word);
			at += sizeof word;
			handle(word, in + at);
			found = found || word == wanted;
			if (word == wanted)
				memcpy(payload, in + at, _IOC_SIZE(word));
		}
	}
}

static struct binder_transaction_data call(uint32_t target, uint32_t code, const void *data,
					   size_t size, size_t objects)
{
	binder_size_t offset = 0;
	struct binder_transaction_data transaction = {
		.target.handle = target,
		.code = code,
		.data_size = size,
		.data.ptr.buffer = (binder_uintptr_t)data,
		.offsets_size = objects * sizeof offset,
		.data.ptr.offsets = (binder_uintptr_t)&offset,
	};

	write_command(BC_TRANSACTION, &transaction);
	wait_for(BR_REPLY, &transaction);
	return transaction;
}

static uint32_t get(const char *name)
{
	struct binder_transaction_data reply = call(0, GET, name, strlen(name), 0);
	struct flat_binder_object object;

	if (reply.data_size < sizeof object)
		fail("no such service");
	memcpy(&object, (void *)(uintptr_t)reply.data.ptr.buffer, sizeof object);
	write_command(BC_ACQUIRE, &object.handle); // before the buffer, and its reference, goes
	write_command(BC_FREE_BUFFER, &reply.data.ptr.buffer);
	return object.handle;
}

static void add(const char *name)
{
	unsigned char data[sizeof(struct flat_binder_object) + TEXT_MAX];
	struct flat_binder_object object = { .hdr.type = BINDER_TYPE_BINDER, .binder = 1 };
	size_t size = strnlen(name, TEXT_MAX);
	struct binder_transaction_data reply;

	memcpy(data, &object, sizeof object);
	memcpy(data + sizeof object, name, size);
	reply = call(0, ADD, data, sizeof object + size, 1);
	write_command(BC_FREE_BUFFER, &reply.data.ptr.buffer);
}

int main(int argc, char **argv)
{
	struct binder_transaction_data reply;
	struct binder_handle_cookie watch = { .cookie = 1 };

	bool serves = argc == 4 && !strcmp(argv[2], "serve");
	bool calls = argc == 5 && !strcmp(argv[2], "call");
	bool watches = argc == 4 && !strcmp(argv[2], "watch");

	if (!serves && !calls && !watches)
		return fputs("usage: service_client DEVICE serve NAME | call NAME TEXT"
			     " | watch NAME\n", stderr), 2;
	fd = open(argv[1], O_RDWR);
	if (fd < 0 || mmap(NULL, MAP_SIZE, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		fail_with_errno("cannot open or map the device");
	if (serves) {
		add(argv[3]);
		puts("ready");
		fflush(stdout);
		write_command(BC_ENTER_LOOPER, "");
		wait_for(BR_FINISHED, &reply); // which never comes
	} else if (calls) {
		reply = call(get(argv[3]), ECHO, argv[4], strlen(argv[4]), 0);
		printf("%.*s\n", (int)reply.data_size,
		       (const char *)(uintptr_t)reply.data.ptr.buffer);
	} else {
		watch.handle = get(argv[3]);
		write_command(BC_REQUEST_DEATH_NOTIFICATION, &watch);
		puts("watching");
		fflush(stdout);
		wait_for(BR_DEAD_BINDER, &watch.cookie);
		puts("dead");
	}
	return ioctl(fd, BINDER_THREAD_EXIT, 0) < 0;
}
