// SPDX-License-Identifier: Apache-2.0
// binder_echo.c - echo server and measuring client that know only the raw binder ABI.
//
//   binder_echo serve DEVICE                 becomes context manager, prints "ready", echoes
//   binder_echo call DEVICE SIZE SECONDS     calls handle 0, prints one line of JSON

#include "bench.h"

#include <fcntl.h>
#include <linux/android/binder.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define RECEIVE_AREA_BYTES (4 << 20) // what the driver caps every mapping at

// A BC_FREE_BUFFER with the call or reply behind it: what both sides write in one go.
struct outgoing {
	uint32_t free_code;
	binder_uintptr_t free_buffer;
	uint32_t send_code;
	struct binder_transaction_data send;
} __attribute__((packed));

struct channel {
	int fd;
	binder_uintptr_t held; // the receive buffer to give back with the next write, 0 for none
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
static size_t write_read(int fd, const void *out, size_t out_size, void *in, size_t in_size)
{
	struct binder_write_read bwr = {
		.write_size = out_size,
		.write_buffer = (binder_uintptr_t)out,
		.read_size = in_size,
		.read_buffer = (binder_uintptr_t)in,
	};
	while (ioctl(fd, BINDER_WRITE_READ, &bwr) < 0)
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

// Frees the held buffer and sends `data` as a `code`, both in one write, then waits for `wanted`,
// whose data it leaves in the receive area and holds.
static struct binder_transaction_data exchange(struct channel *channel, uint32_t code,
					       const void *data, size_t size, uint32_t wanted)
{
	struct outgoing out = {
		.free_code = BC_FREE_BUFFER,
		.free_buffer = channel->held,
		.send_code = code,
		.send = { .data_size = size, .data.ptr.buffer = (binder_uintptr_t)data },
	};
	size_t skip = channel->held ? 0 : offsetof(struct outgoing, send_code);
	const char *write = (const char *)&out + skip;
	size_t write_size = sizeof out - skip;
	struct binder_transaction_data found;
	unsigned char in[256];

	while (!find(in, write_read(channel->fd, write, write_size, in, sizeof in), wanted, &found))
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

static _Noreturn void serve(int fd)
{
	struct channel channel = { .fd = fd };
	unsigned char *reply = allocate(RECEIVE_AREA_BYTES);
	struct binder_transaction_data request;
	unsigned char in[256];
	uint32_t enter = BC_ENTER_LOOPER;
	int32_t ignored = 0; // never NULL: FUSE copies the argument of this ioctl and would fault

	if (ioctl(fd, BINDER_SET_CONTEXT_MGR, &ignored) < 0)
		die("BINDER_SET_CONTEXT_MGR");
	write_read(fd, &enter, sizeof enter, NULL, 0);
	announce_ready();
	while (!find(in, write_read(fd, NULL, 0, in, sizeof in), BR_TRANSACTION, &request))
		;
	channel.held = request.data.ptr.buffer;
	for (;;) {
		// Like any service it builds the reply in memory of its own.
		memcpy(reply, (const void *)request.data.ptr.buffer, request.data_size);
		request = exchange(&channel, BC_REPLY, reply, request.data_size, BR_TRANSACTION);
	}
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(open_device(argv[2]));
	if (argc != 5 || strcmp(argv[1], "call"))
		die_saying("usage: binder_echo serve DEVICE | call DEVICE SIZE SECONDS");
	struct channel channel = { .fd = open_device(argv[2]) };
	bench_echo(call, &channel, parse_size(argv[3]), parse_seconds(argv[4]));
	return 0;
}
