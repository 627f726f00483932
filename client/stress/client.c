// SPDX-License-Identifier: Apache-2.0
// client.c - the role "client": threads that call at random, and one that hears of deaths.

#define _GNU_SOURCE
#include "workers.h"

#include "board.h"
#include "connections.h"
#include "fault.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NODE = 0xc000, NO_SERVER_NS = 1000000 };

struct thread {
	struct port port; // first: the one is found from the other
	uint32_t number; // among all threads of all clients
	uint64_t dice;
	struct message *message, *answer;
	int file; // what is sent as a file
};

static unsigned client; // our number among the clients

// Dice

static uint64_t roll(struct thread *thread)
{
	uint64_t value = thread->dice += 0x9e3779b97f4a7c15ull;

	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
	return value ^ (value >> 31);
}

static double chance(struct thread *thread) // from 0 to 1
{
	return (double)(roll(thread) >> 11) / 9007199254740992.0;
}

// As many between 1 and 2 KiB as between 2 and 4.
static size_t roll_size(struct thread *thread)
{
	double low = log2((double)board->payload_min + 1);
	double high = log2((double)board->payload_max + 1);
	size_t size = (size_t)exp2(low + (high - low) * chance(thread)) - 1;

	if (size < board->payload_min)
		return board->payload_min;
	return size > board->payload_max ? board->payload_max : size;
}

static enum kind roll_kind(struct thread *thread)
{
	uint64_t percent = roll(thread) % 100;

	if (percent < board->oneway)
		return ONEWAY;
	if (percent < board->oneway + board->nested)
		return NESTED;
	return percent < board->oneway + board->nested + board->files ? FILES : CALL;
}

// Messages

static void address(struct thread *thread, const struct use *use, enum code code, size_t size)
{
	struct message *m = thread->message;

	memset(m, 0, MESSAGE_SIZE);
	m->code = code;
	m->client_thread = thread->number;
	m->client = self_number;
	m->client_life = (uint32_t)self->life;
	m->server = use->server;
	m->server_life = (uint32_t)use->life;
	m->size = size;
}

static void enclose_node(struct message *m, binder_uintptr_t node)
{
	m->object = (struct flat_binder_object){ .hdr.type = BINDER_TYPE_BINDER, .binder = node };
}

static void enclose_file(struct thread *thread, uint64_t number)
{
	struct binder_fd_object object = { .hdr.type = BINDER_TYPE_FD,
					   .fd = (uint32_t)thread->file };

	if (pwrite(thread->file, &number, sizeof number, 0) != sizeof number)
		board_complain(&self->refused, "client %u: cannot write its file", client);
	memcpy(&thread->message->object, &object, sizeof object);
}

static void check_answer(struct thread *thread, const struct call *call)
{
	const struct message *sent = thread->message;
	const struct message *reply = (const void *)(uintptr_t)call->reply.data.ptr.buffer;

	if (!message_is_whole(reply, call->reply.data_size) || reply->code != CODE_REPLY)
		board_complain(&self->corrupt, "client %u: the answer to call %llu is damaged",
			       client, (unsigned long long)sent->sequence);
	else if (reply->sequence != sent->sequence || reply->size != sent->size ||
		 reply->client_thread != sent->client_thread || reply->server != sent->server)
		board_complain(&self->stray, "client %u: an answer to call %llu came for %llu",
			       client, (unsigned long long)reply->sequence,
			       (unsigned long long)sent->sequence);
	port_free(&thread->port, call->reply.data.ptr.buffer);
}

// Answers a server that calls back while we wait for it.
static void answer_back(struct thread *thread, const struct binder_transaction_data *call)
{
	const struct message *m = (const void *)(uintptr_t)call->data.ptr.buffer;

	if (!message_is_whole(m, call->data_size) || m->code != CODE_ASK ||
	    m->client_thread != thread->number || m->sequence != thread->message->sequence)
		board_complain(&self->corrupt, "client %u: a damaged call back", client);
	else
		message_answer(m, thread->answer);
	port_reply(&thread->port, thread->answer, MESSAGE_SIZE, 0, 0);
	port_free(&thread->port, call->data.ptr.buffer);
}

// Calls

static void count_refusal(enum outcome outcome)
{
	if (outcome == FROZEN)
		add(&self->frozen, 1);
	else
		add(outcome == NO_ROOM ? &self->no_room : &self->no_room_for_reply, 1);
}

static void note_how(const struct call *call)
{
	if (call->how == BR_ONEWAY_SPAM_SUSPECT)
		add(&self->spam, 1);
	if (call->how == BR_PENDING_FROZEN)
		add(&self->pending_frozen, 1);
}

// What was refused is sent again, later, until it is accepted, there is nobody to take it, or the
// run ends. A call whose reply had no room was handled, so the next attempt has a new number.
static enum outcome send(struct thread *thread, struct call *call, uint64_t *next, uint64_t *known,
			 uint64_t *start_ns)
{
	uint64_t wait_ns = 0;

	for (;;) {
		thread->message->previous = *known;
		if (call->code == CODE_FILE)
			enclose_file(thread, *next);
		message_seal(thread->message, *next);
		if (fault("corrupt-call"))
			thread->message->checksum ^= 1;
		if (!board->interval_ns)
			*start_ns = now_ns();
		enum outcome outcome = port_call(&thread->port, call);
		if (outcome == NO_ROOM_FOR_REPLY)
			++*next;
		if (outcome == ACCEPTED || outcome == DEAD || outcome == REFUSED)
			return outcome;
		count_refusal(outcome);
		if (look(&board->phase) == DRAINING)
			return outcome;
		back_off(&wait_ns);
	}
}

static void complain_of_refusal(const struct call *call)
{
	board_complain(&self->refused, "client %u: the driver refused a call (code %u): %s", client,
		       call->code, strerror(call->error));
}

// Mistakes on purpose: see fault.h.
static void play_tricks(struct thread *thread, struct call *call, uint64_t number)
{
	if (fault("crash"))
		_exit(9);
	if (fault("double")) {
		message_seal(thread->message, number);
		port_call(&thread->port, call);
	} else if (fault("reorder")) {
		message_seal(thread->message, number + 1);
		port_call(&thread->port, call);
		message_seal(thread->message, number);
	}
}

static const enum code CODES[KINDS] = { CODE_CALL, CODE_ONEWAY, CODE_NESTED, CODE_FILE };

static void count_done(enum kind kind, uint64_t size, uint64_t ns)
{
	uint64_t *counts[KINDS] = { &self->calls, &self->oneways, &self->nesteds, &self->files };

	add(counts[kind], 1);
	add(&self->bytes, kind == ONEWAY ? size : 2 * size);
	add(&board->done, 1);
	board_record(client, kind, ns);
}

static void call_server(struct thread *thread, const struct use *use, enum kind kind,
			uint64_t start_ns)
{
	struct cell *cell = board_sent(use->server, thread->number);
	uint64_t *known = kind == ONEWAY ? &cell->oneways : &cell->calls;
	size_t size = roll_size(thread);
	struct call call = { .handle = use->handle, .code = CODES[kind],
			     .data = thread->message, .size = MESSAGE_SIZE + size,
			     .objects_at = OBJECT_OFFSET,
			     .objects = kind == NESTED || kind == FILES,
			     .one_way = kind == ONEWAY };

	if (cell->server_life != use->life)
		*cell = (struct cell){ .client_life = self->life, .server_life = use->life };
	uint64_t next = *known + 1;
	address(thread, use, CODES[kind], size);
	if (kind == NESTED)
		enclose_node(thread->message, NODE + 1 + thread->number % board->threads);
	if (kind == ONEWAY)
		play_tricks(thread, &call, next);
	bool is_lost = kind == ONEWAY && (fault("lose") || always_fault("lose-all"));
	enum outcome outcome =
		is_lost ? ACCEPTED : send(thread, &call, &next, known, &start_ns);
	if (outcome == ACCEPTED) {
		count_done(kind, size, now_ns() - start_ns);
		note_how(&call);
		if (kind != ONEWAY)
			check_answer(thread, &call);
	}
	if (outcome == ACCEPTED)
		set(known, next);
	if (outcome == DEAD)
		add(&self->dead, 1);
	if (outcome == REFUSED)
		complain_of_refusal(&call);
	connection_end(&thread->port, use, outcome == DEAD);
}

// Introduces this process to a server, which will ask to be told of our death.
static bool greet(struct port *port, const struct use *use)
{
	struct thread *thread = (struct thread *)port;
	struct call call = { .handle = use->handle, .code = CODE_HELLO, .data = thread->message,
			     .size = MESSAGE_SIZE, .objects_at = OBJECT_OFFSET, .objects = 1 };
	uint64_t next = 0, known = 0, start_ns;

	address(thread, use, CODE_HELLO, 0);
	enclose_node(thread->message, NODE);
	enum outcome outcome = send(thread, &call, &next, &known, &start_ns);
	if (outcome == ACCEPTED)
		check_answer(thread, &call);
	if (outcome == REFUSED)
		complain_of_refusal(&call);
	return outcome == ACCEPTED;
}

// Threads

static void handle_return(struct port *port, uint32_t word, const void *payload)
{
	struct binder_transaction_data call;
	binder_uintptr_t cookie;

	if (word == BR_TRANSACTION) {
		memcpy(&call, payload, sizeof call);
		answer_back((struct thread *)port, &call);
	} else if (word == BR_DEAD_BINDER) {
		memcpy(&cookie, payload, sizeof cookie);
		connection_told(port, cookie);
	} else if (word == BR_ERROR) {
		board_complain(&self->refused, "client %u: BR_ERROR", client);
	} else {
		handle_references(port, word, payload);
	}
}

static bool is_over(void)
{
	return look(&board->phase) == DRAINING ||
	       (board->limit && look(&board->done) >= board->limit);
}

// Waits until the next call is due; returns when that was, which is where its time begins.
static uint64_t wait_until_due(uint64_t *due_ns)
{
	uint64_t now = now_ns();

	if (!board->interval_ns)
		return now;
	*due_ns += board->interval_ns;
	while (now < *due_ns && look(&board->phase) != DRAINING) {
		pause_ns(*due_ns - now < 50000000 ? *due_ns - now : 50000000);
		now = now_ns();
	}
	return *due_ns;
}

// Any server that is connected, from a random one on; that one is connected if it is not.
static bool pick_server(struct thread *thread, struct use *use)
{
	unsigned servers = (unsigned)board->servers, first = (unsigned)(roll(thread) % servers);

	connection_make(&thread->port, first, greet);
	for (unsigned i = 0; i < servers; i++)
		if (connection_use((first + i) % servers, use))
			return true;
	return false;
}

static void step(struct thread *thread, uint64_t *due_ns)
{
	struct use use;

	if (!pick_server(thread, &use)) {
		port_flush(&thread->port);
		pause_ns(NO_SERVER_NS);
		return;
	}
	enum kind kind = roll_kind(thread);
	uint64_t start_ns = wait_until_due(due_ns);
	call_server(thread, &use, kind, start_ns);
}

static struct thread *make_thread(unsigned number)
{
	struct thread *thread = allocate(sizeof *thread);
	size_t size = MESSAGE_SIZE + board->payload_max + 1;

	thread->number = client * (uint32_t)board->threads + number;
	thread->dice = board->seed * 1000003 + thread->number * 7919ull + self->life * 104729;
	roll(thread);
	thread->message = allocate(size);
	thread->answer = allocate(size);
	thread->file = memfd_create("stress", MFD_CLOEXEC);
	return thread;
}

static void *call_on(void *number)
{
	struct thread *thread = make_thread((unsigned)(uintptr_t)number);
	uint64_t due_ns;

	while (look(&board->phase) == STARTING)
		pause_ns(1000000);
	due_ns = now_ns() + roll(thread) % (board->interval_ns + 1);
	while (!is_over())
		step(thread, &due_ns);
	port_flush(&thread->port);
	add(&self->idle, 1);
	return NULL;
}

static void *hear(void *nothing)
{
	struct thread *thread = make_thread(0);

	(void)nothing;
	run_looper(&thread->port, BC_ENTER_LOOPER);
	return NULL;
}

int run_client(void)
{
	client = self_number - (unsigned)board->servers;
	on_return = handle_return;
	connections_prepare();
	start_thread(hear, NULL);
	for (uintptr_t i = 0; i < board->threads; i++)
		start_thread(call_on, (void *)i);
	set(&self->ready, self->life);
	wait_for_the_end();
	return 0;
}
