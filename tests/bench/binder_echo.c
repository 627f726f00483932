// SPDX-License-Identifier: Apache-2.0
// binder_echo.c - echo server and measuring client that know only the raw binder ABI.
//
//   binder_echo serve DEVICE                 becomes context manager, prints "ready", echoes
//   binder_echo join DEVICE                  the second server: the manager gives its handle out
//   binder_echo call DEVICE SIZE SECONDS     calls the manager, prints one line of JSON
//   binder_echo second DEVICE SIZE SECONDS   calls the second server
//   binder_echo idle DEVICE COUNT            as many processes that opened and mapped, and do nothing
//
// "binder_echo lane ..." does the same through a lane (docs/EXTENSION.md).

#include "bench.h"

#include "../../client/include/binderd_lane.h"
#include <stdbool.h>
#include <stddef.h>

#define RECEIVE_AREA_BYTES (4 << 20) // what the driver caps every mapping at

// What a call is about; all but the first are for the manager alone.
enum { ECHO, JOIN, FIND };

// A BC_FREE_BUFFER with the call or reply behind it: what both sides write in one go.
struct outgoing {
	uint32_t free_code;
	binder_uintptr_t free_buffer;
	uint32_t send_code;
	struct binder_transaction_data send;
} __attribute__((packed));

struct channel {
	struct binderd_thread_lane lane; // or none: then it is ioctls
	uint32_t target;       // the handle to call
	binder_uintptr_t held; // the receive buffer to give back with the next write, 0 for none
};

// Bytes to send, and in them at most one object, which comes first.
struct letter {
	const void *data;
	size_t size;
	bool has_object;
};

static int open_device(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die(path);
	if (mmap(NULL, RECEIVE_AREA_BYTES, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		die("mmap");
	return fd;
}

// Writes, then blocks for something to read. A signal cuts the ioctl short with the counters
// updated: the same structure goes in again and nothing is sent twice.
static size_t write_read(struct channel *channel, const void *out, size_t out_size, void *in,
			 size_t in_size)
{
	struct binder_write_read bwr = {
		.write_size = out_size,
		.write_buffer = (binder_uintptr_t)out,
		.read_size = in_size,
		.read_buffer = (binder_uintptr_t)in,
	};
	while (binderd_lane_write_read(&channel->lane, &bwr) < 0)
		if (errno != EINTR)
			die("BINDER_WRITE_READ");
	return bwr.read_consumed;
}

// Copies the first `wanted` record of the stream to `found`; gives up on any report of a failure.
static bool find(const unsigned char *stream, size_t size, uint32_t wanted,
		 struct binder_transaction_data *found)
{
	uint32_t code;

	for (size_t at = 0; at + sizeof code <= size; at += _IOC_SIZE(code)) {
		memcpy(&code, stream + at, sizeof code);
		at += sizeof code;
		if (code == wanted && at + sizeof *found <= size) {
			memcpy(found, stream + at, sizeof *found);
			return true;
		}
		if (code == BR_DEAD_REPLY)
			die_saying("BR_DEAD_REPLY: is the server running?");
		if (code == BR_FAILED_REPLY)
			die_saying("BR_FAILED_REPLY");
		if (code == BR_ERROR)
			die_saying("BR_ERROR");
	}
	return false;
}

// Frees the held buffer and sends a letter as a `code`, both in one write, then waits for `wanted`,
// whose data it leaves in the receive area and holds.
static struct binder_transaction_data exchange(struct channel *channel, uint32_t code,
					       uint32_t about, const struct letter *letter,
					       uint32_t wanted)
{
	static const binder_size_t first = 0;
	struct outgoing out = {
		.free_code = BC_FREE_BUFFER,
		.free_buffer = channel->held,
		.send_code = code,
		.send = {
			.target.handle = channel->target,
			.code = about,
			.data_size = letter->size,
			.offsets_size = letter->has_object ? sizeof first : 0,
			.data.ptr = {
				.buffer = (binder_uintptr_t)letter->data,
				.offsets = (binder_uintptr_t)&first,
			},
		},
	};
	size_t skip = channel->held ? 0 : offsetof(struct outgoing, send_code);
	const char *write = (const char *)&out + skip;
	size_t write_size = sizeof out - skip;
	struct binder_transaction_data found;
	unsigned char in[256];

	while (!find(in, write_read(channel, write, write_size, in, sizeof in), wanted, &found))
		write_size = 0; // sent already; that read brought only small news
	channel->held = found.data.ptr.buffer;
	return found;
}

static const void *call(void *peer, const void *payload, size_t size)
{
	struct letter letter = { .data = payload, .size = size };
	struct binder_transaction_data reply =
		exchange(peer, BC_TRANSACTION, ECHO, &letter, BR_REPLY);
	if (reply.data_size != size)
		die_saying("the reply has another size than the request");
	return (const void *)reply.data.ptr.buffer;
}

// Keeps what a handle names until we end. It came in the held buffer, which goes with the next write.
static void keep(struct channel *channel, uint32_t handle)
{
	struct {
		uint32_t code, handle;
	} acquire = { BC_ACQUIRE, handle };

	write_read(channel, &acquire, sizeof acquire, NULL, 0);
}

// The manager's answer to what is not for echoing.
static void answer_manager(struct channel *channel, const struct binder_transaction_data *request,
			   struct flat_binder_object *second, struct letter *reply)
{
	*reply = (struct letter){ 0 };
	if (request->code == JOIN && request->data_size >= sizeof *second) {
		memcpy(second, (const void *)request->data.ptr.buffer, sizeof *second);
		keep(channel, second->handle);
	} else if (request->code == FIND) {
		*reply = (struct letter){ second, sizeof *second, second->handle != 0 };
	}
}

static _Noreturn void echo(struct channel *channel)
{
	unsigned char *copy = allocate(RECEIVE_AREA_BYTES);
	struct flat_binder_object second = { 0 };
	struct binder_transaction_data request;
	unsigned char in[256];
	uint32_t enter = BC_ENTER_LOOPER;

	write_read(channel, &enter, sizeof enter, NULL, 0);
	announce_ready();
	// News of who refers to us (BR_INCREFS, BR_ACQUIRE) is passed over: we live as long as they do.
	while (!find(in, write_read(channel, NULL, 0, in, sizeof in), BR_TRANSACTION, &request))
		;
	channel->held = request.data.ptr.buffer;
	for (;;) {
		struct letter reply = { .data = copy, .size = request.data_size };
		if (request.code == ECHO) // like any service it builds the reply in its own memory
			memcpy(copy, (const void *)request.data.ptr.buffer, request.data_size);
		else
			answer_manager(channel, &request, &second, &reply);
		request = exchange(channel, BC_REPLY, 0, &reply, BR_TRANSACTION);
	}
}

static _Noreturn void serve(struct channel *channel)
{
	int32_t ignored = 0; // never NULL: FUSE copies the argument of this ioctl and would fault

	if (ioctl(channel->lane.fd, BINDER_SET_CONTEXT_MGR, &ignored) < 0)
		die("BINDER_SET_CONTEXT_MGR");
	echo(channel);
}

static _Noreturn void join(struct channel *channel)
{
	struct flat_binder_object own = { .hdr.type = BINDER_TYPE_BINDER, .binder = 1 };
	struct letter letter = { &own, sizeof own, true };

	exchange(channel, BC_TRANSACTION, JOIN, &letter, BR_REPLY);
	echo(channel);
}

// Has the channel call the second server from now on.
static void find_second(struct channel *channel)
{
	struct letter letter = { 0 };
	struct flat_binder_object second = { 0 };
	struct binder_transaction_data reply =
		exchange(channel, BC_TRANSACTION, FIND, &letter, BR_REPLY);

	if (reply.data_size == sizeof second)
		memcpy(&second, (const void *)reply.data.ptr.buffer, sizeof second);
	if (second.hdr.type != BINDER_TYPE_HANDLE || !second.handle)
		die_saying("there is no second server");
	keep(channel, second.handle);
	channel->target = second.handle;
}

static void open_only(const char *path)
{
	open_device(path);
}

static struct channel open_channel(const char *path, bool with_lane)
{
	struct channel channel = { .lane = { .fd = open_device(path) } };
	uint32_t flags = BINDERD_LANE_QUIET | BINDERD_LANE_UNINTERRUPTED;

	if (with_lane && binderd_lane_open(&channel.lane, channel.lane.fd, flags) < 0)
		die("a lane");
	return channel;
}

int main(int argc, char **argv)
{
	bool with_lane = argc > 1 && !strcmp(argv[1], "lane");

	argc -= with_lane;
	argv += with_lane;
	if (argc < 3)
		die_saying("usage: binder_echo [lane] serve|join DEVICE | call|second DEVICE SIZE "
			   "SECONDS | idle DEVICE COUNT");
	if (argc == 4 && !strcmp(argv[1], "idle"))
		be_a_crowd(parse_count(argv[3]), open_only, argv[2]);
	struct channel channel = open_channel(argv[2], with_lane);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(&channel);
	if (argc == 3 && !strcmp(argv[1], "join"))
		join(&channel);
	if (argc == 5 && !strcmp(argv[1], "second"))
		find_second(&channel);
	else if (argc != 5 || strcmp(argv[1], "call"))
		die_saying("without arguments it says how it is used");
	bench_echo(call, &channel, parse_size(argv[3]), parse_seconds(argv[4]));
	return 0;
}
