// SPDX-License-Identifier: Apache-2.0
// server.c - the role "server": checks what comes, in which order, and answers.
//
// One node, and as many threads as the driver asks for. One-way calls of a node come one at a time,
// so their numbers must go up one by one whichever thread reads them.

#define _GNU_SOURCE
#include "workers.h"

#include "board.h"
#include "fault.h"
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { NODE = 0x5000 };

struct thread {
	struct port port; // first: the one is found from the other
	struct message *answer;
};

struct watched {
	binder_uintptr_t cookie;
	uint32_t handle;
	struct watched *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // of all that follows, and of the cells
static struct watched *watched;

// Numbers

static void check_number(const struct message *m, uint64_t *last, const char *what)
{
	unsigned long long number = m->sequence, previous = m->previous, here = *last;

	if (number == here)
		board_complain(&self->doubled, "server %u: %s %llu of client %u came twice",
			       self_number, what, number, m->client);
	else if (number < here)
		board_complain(&self->overtaken, "server %u: %s %llu of client %u came after %llu",
			       self_number, what, number, m->client, here);
	else if (previous > here)
		board_complain(&self->lost, "server %u: %s %llu of client %u is lost",
			       self_number, what, previous, m->client);
	if (number > here)
		*last = number;
}

// Enters a message into the table; the last ones of a client that was killed count for nobody.
static void enter(const struct message *m)
{
	struct cell *cell = board_received(self_number, m->client_thread);

	pthread_mutex_lock(&lock);
	if (m->client_life > cell->client_life)
		*cell = (struct cell){ .client_life = m->client_life, .server_life = self->life };
	if (m->client_life < cell->client_life)
		add(&self->stale, 1);
	else if (m->code == CODE_ONEWAY)
		check_number(m, &cell->oneways, "one-way call");
	else
		check_number(m, &cell->calls, "call");
	pthread_mutex_unlock(&lock);
}

static bool is_for_us(const struct binder_transaction_data *call, const struct message *m)
{
	const struct worker *client = board_worker(m->client);
	uint64_t threads = board->clients * board->threads;

	if (!message_is_whole(m, call->data_size)) {
		board_complain(&self->corrupt, "server %u: a call of %llu bytes is damaged",
			       self_number, (unsigned long long)call->data_size);
		return false;
	}
	if (m->code == call->code && m->server == self_number && m->server_life == self->life &&
	    m->client_thread < threads &&
	    (!call->sender_pid || m->client_life != client->life ||
	     (uint64_t)call->sender_pid == client->pid))
		return true;
	board_complain(&self->stray, "server %u: a call for server %u, or of another sender",
		       self_number, m->server);
	return false;
}

// Deaths

static void watch(struct port *port, const struct message *m)
{
	struct link *link = board_link(self_number, m->client);
	binder_uintptr_t cookie = cookie_of(m->client, m->client_life);
	struct watched *entry = NULL;

	pthread_mutex_lock(&lock);
	for (entry = watched; entry && entry->cookie != cookie; entry = entry->next)
		;
	if (!entry && m->object.hdr.type == BINDER_TYPE_HANDLE) {
		struct binder_handle_cookie request = { .handle = m->object.handle,
							.cookie = cookie };

		entry = allocate(sizeof *entry);
		*entry = (struct watched){ cookie, m->object.handle, watched };
		watched = entry;
		port_queue(port, BC_ACQUIRE, &request.handle);
		port_queue(port, BC_REQUEST_DEATH_NOTIFICATION, &request);
		link->life = m->client_life;
		add(&link->linked, 1);
		add(&self->linked, 1);
	}
	pthread_mutex_unlock(&lock);
}

static void told(struct port *port, binder_uintptr_t cookie)
{
	struct watched **place = &watched, *entry;

	port_queue(port, BC_DEAD_BINDER_DONE, &cookie);
	pthread_mutex_lock(&lock);
	while (*place && (*place)->cookie != cookie)
		place = &(*place)->next;
	entry = *place;
	if (entry) {
		*place = entry->next;
		port_queue(port, BC_RELEASE, &entry->handle);
		if (!fault("deaf")) {
			add(&board_link(self_number, (unsigned)(cookie >> 32))->told, 1);
			add(&self->told, 1);
		}
		free(entry);
	} else {
		board_complain(&self->stray, "server %u: told of a death that it did not ask for",
			       self_number);
	}
	pthread_mutex_unlock(&lock);
}

// Calls

// The file must be the one that its sender wrote the number of the call into.
static void check_file(const struct message *m)
{
	struct binder_fd_object object;
	uint64_t number = 0;

	memcpy(&object, &m->object, sizeof object);
	int fd = (int)object.fd;
	if (pread(fd, &number, sizeof number, 0) != sizeof number || number != m->sequence)
		board_complain(&self->corrupt, "server %u: file %d does not hold %llu but %llu",
			       self_number, fd, (unsigned long long)m->sequence,
			       (unsigned long long)number);
	if (!(fcntl(fd, F_GETFD) & FD_CLOEXEC))
		board_complain(&self->corrupt, "server %u: file %d is not close-on-exec",
			       self_number, fd);
	if (!fault("keep-file"))
		close(fd);
}

// Calls the caller back while it waits: as often as it takes, unless it is dead.
static void ask_back(struct thread *thread, const struct message *m)
{
	struct call call = { .handle = m->object.handle, .code = CODE_ASK, .data = thread->answer,
			     .size = MESSAGE_SIZE };
	enum outcome outcome;
	uint64_t wait_ns = 0;

	memcpy(thread->answer, m, MESSAGE_SIZE);
	memset(&thread->answer->object, 0, sizeof thread->answer->object);
	thread->answer->code = CODE_ASK;
	thread->answer->size = 0;
	message_seal(thread->answer, m->sequence);
	while ((outcome = port_call(&thread->port, &call)) != ACCEPTED && outcome != DEAD) {
		if (outcome == REFUSED) {
			board_complain(&self->refused, "server %u: a call back is refused: %s",
				       self_number, strerror(call.error));
			return;
		}
		add(&self->no_room, 1);
		back_off(&wait_ns);
	}
	if (outcome != ACCEPTED)
		return;
	const struct message *reply = (void *)(uintptr_t)call.reply.data.ptr.buffer;
	if (!message_is_whole(reply, call.reply.data_size) || reply->code != CODE_REPLY ||
	    reply->sequence != m->sequence || reply->client_thread != m->client_thread)
		board_complain(&self->corrupt, "server %u: a damaged answer of client %u",
			       self_number, m->client);
	port_free(&thread->port, call.reply.data.ptr.buffer);
}

static void answer(struct thread *thread, const struct message *m)
{
	struct message *reply = thread->answer;

	message_answer(m, reply);
	if (fault("corrupt-reply"))
		reply->payload[reply->size ? reply->size - 1 : 0] ^= 1;
	if (fault("stale-reply"))
		message_seal(reply, reply->sequence - 1);
	port_reply(&thread->port, reply, MESSAGE_SIZE + m->size, 0, 0);
}

static void serve(struct thread *thread, const struct binder_transaction_data *call)
{
	const struct message *m = (const void *)(uintptr_t)call->data.ptr.buffer;
	bool one_way = call->flags & TF_ONE_WAY;

	add(&self->received, 1);
	if (is_for_us(call, m)) {
		if (m->code == CODE_HELLO)
			watch(&thread->port, m);
		else
			enter(m);
		if (m->code == CODE_NESTED)
			ask_back(thread, m);
		if (m->code == CODE_FILE)
			check_file(m);
		if (!one_way)
			answer(thread, m);
	} else if (!one_way) {
		port_reply(&thread->port, thread->answer, 0, 0, 0);
	}
	port_free(&thread->port, call->data.ptr.buffer);
}

// Threads

static void handle_return(struct port *port, uint32_t word, const void *payload);

static void *loop(void *enter_word)
{
	struct thread *thread = allocate(sizeof *thread);

	thread->answer = allocate(MESSAGE_SIZE + board->payload_max + 1);
	add(&self->pool, 1);
	run_looper(&thread->port, (uint32_t)(uintptr_t)enter_word);
	return NULL;
}

static void handle_return(struct port *port, uint32_t word, const void *payload)
{
	struct binder_transaction_data call;
	binder_uintptr_t cookie;

	switch (word) {
	case BR_TRANSACTION:
		memcpy(&call, payload, sizeof call);
		serve((struct thread *)port, &call);
		break;
	case BR_DEAD_BINDER:
		memcpy(&cookie, payload, sizeof cookie);
		told(port, cookie);
		break;
	case BR_SPAWN_LOOPER:
		start_thread(loop, (void *)(uintptr_t)BC_REGISTER_LOOPER);
		break;
	case BR_ERROR:
		board_complain(&self->refused, "server %u: BR_ERROR", self_number);
		break;
	default:
		handle_references(port, word, payload);
	}
}

static void offer(void)
{
	static struct thread thread;
	char name[NAME_MAX_UNITS];
	enum outcome outcome;
	uint64_t wait_ns = 0;
	int status;

	name_of_server(name, self_number, self->life);
	while ((outcome = names_add(&thread.port, name, NODE, &status)) == NO_ROOM ||
	       outcome == NO_ROOM_FOR_REPLY)
		back_off(&wait_ns);
	port_flush(&thread.port);
	if (outcome == ACCEPTED && !status)
		return;
	board_complain(&self->refused, "server %u: the service manager refused it (%d, %d)",
		       self_number, outcome, status);
	_exit(4);
}

int run_server(void)
{
	uint32_t threads_max = (uint32_t)board->threads - 1;

	on_return = handle_return;
	set(&self->pool, 0);
	if (ioctl(device, BINDER_SET_MAX_THREADS, &threads_max) < 0)
		board_complain(&self->refused, "BINDER_SET_MAX_THREADS: %s", strerror(errno));
	offer();
	start_thread(loop, (void *)(uintptr_t)BC_ENTER_LOOPER);
	set(&self->files_at_start, count_files());
	set(&self->ready, self->life);
	wait_for_the_end();
	set(&self->files_at_end, count_files());
	return 0;
}
