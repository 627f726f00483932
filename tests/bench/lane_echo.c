// SPDX-License-Identifier: Apache-2.0
// lane_echo.c - binder_echo.c through lanes (docs/EXTENSION.md): what is small needs no system call.
//
//   lane_echo serve DEVICE                   becomes context manager, prints "ready", echoes
//   lane_echo call DEVICE SIZE SECONDS       calls handle 0, prints one line of JSON

#include "lane.h"

#include <stdbool.h>
#include <stddef.h>

#define RECEIVE_AREA_BYTES (4 << 20) // what the driver caps every mapping at

// A BC_FREE_BUFFER with the call or reply behind it: what both sides write in one go.
struct outgoing {
	uint32_t free_code;
	binder_uintptr_t free_buffer;
	uint32_t send_code;
	struct binder_transaction_data send;
} __attribute__((packed));

// A lane's memory: the slot, and what it points to.
struct lane {
	struct binderd_slot slot;
	struct outgoing out;
	unsigned char in[256] __attribute__((aligned(8)));
	unsigned char data[] __attribute__((aligned(8)));
};

struct channel {
	int fd;
	struct lane *lane;
	binder_uintptr_t held; // the receive buffer to give back with the next write, 0 for none
};

static struct channel open_channel(const char *path)
{
	struct channel channel = { .fd = open(path, O_RDWR | O_CLOEXEC) };
	if (channel.fd < 0)
		die(path);
	void *area = mmap(NULL, RECEIVE_AREA_BYTES, PROT_READ, MAP_PRIVATE, channel.fd, 0);
	if (area == MAP_FAILED)
		die("mmap");
	return channel;
}

// Writes `size` bytes of what is in the lane, then waits for something to read.
static size_t write_read(struct channel *channel, const void *out, size_t size)
{
	struct lane *lane = channel->lane;
	int result;

	lane->slot.write_size = size;
	lane->slot.write_consumed = 0;
	lane->slot.write_buffer = (uintptr_t)out;
	lane->slot.read_size = sizeof lane->in;
	lane->slot.read_consumed = 0;
	lane->slot.read_buffer = (uintptr_t)lane->in;
	while ((result = lane_write_read(channel->fd, &lane->slot)) < 0)
		if (result != -EINTR && result != -BINDERD_AGAIN) {
			errno = -result;
			die("a lane");
		}
	return lane->slot.read_consumed;
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
		if (code == BR_DEAD_REPLY || code == BR_FAILED_REPLY || code == BR_ERROR)
			die_saying("the call failed: is the server running?");
	}
	return false;
}

// Frees the held buffer and sends `data` as a `code`, both in one write, then waits for `wanted`.
// Data that is too long for the lane stays where it is: the daemon takes it from there.
static struct binder_transaction_data exchange(struct channel *channel, uint32_t code,
					       const void *data, size_t size, uint32_t wanted)
{
	struct lane *lane = channel->lane;
	struct binder_transaction_data found;
	bool fits = size <= LANE_BYTES - sizeof *lane;
	size_t skip = channel->held ? 0 : offsetof(struct outgoing, send_code);
	size_t write_size = sizeof lane->out - skip;

	if (fits)
		memcpy(lane->data, data, size);
	lane->out = (struct outgoing){
		.free_code = BC_FREE_BUFFER,
		.free_buffer = channel->held,
		.send_code = code,
		.send = { .data_size = size,
			  .data.ptr.buffer = (uintptr_t)(fits ? lane->data : data) },
	};
	while (!find(lane->in, write_read(channel, (char *)&lane->out + skip, write_size), wanted,
		     &found))
		write_size = 0; // sent already; that read brought only small news
	channel->held = found.data.ptr.buffer;
	return found;
}

static const void *call(void *peer, const void *payload, size_t size)
{
	struct binder_transaction_data reply =
		exchange(peer, BC_TRANSACTION, payload, size, BR_REPLY);
	if (reply.data_size != size)
		die_saying("the reply has another size than the request");
	return (const void *)reply.data.ptr.buffer;
}

static _Noreturn void serve(struct channel *channel)
{
	unsigned char *reply = allocate(RECEIVE_AREA_BYTES);
	struct binder_transaction_data request;
	uint32_t *enter = (uint32_t *)channel->lane->data;
	int32_t ignored = 0; // never NULL: FUSE copies the argument of this ioctl and would fault
	size_t size = sizeof *enter;

	if (ioctl(channel->fd, BINDER_SET_CONTEXT_MGR, &ignored) < 0)
		die("BINDER_SET_CONTEXT_MGR");
	announce_ready();
	*enter = BC_ENTER_LOOPER;
	while (!find(channel->lane->in, write_read(channel, enter, size), BR_TRANSACTION, &request))
		size = 0;
	channel->held = request.data.ptr.buffer;
	for (;;) {
		// Like any service it builds the reply in memory of its own.
		memcpy(reply, (const void *)request.data.ptr.buffer, request.data_size);
		request = exchange(channel, BC_REPLY, reply, request.data_size, BR_TRANSACTION);
	}
}

int main(int argc, char **argv)
{
	bool serves = argc == 3 && !strcmp(argv[1], "serve");

	if (!serves && (argc != 5 || strcmp(argv[1], "call")))
		die_saying("usage: lane_echo serve DEVICE | call DEVICE SIZE SECONDS");
	struct channel channel = open_channel(argv[2]);
	channel.lane = lane_make(channel.fd);
	if (serves)
		serve(&channel);
	bench_echo(call, &channel, parse_size(argv[3]), parse_seconds(argv[4]));
	return 0;
}
