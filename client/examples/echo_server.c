// SPDX-License-Identifier: Apache-2.0
// echo_server.c - a binder server that needs nothing but open, ioctl and mmap.
//
//   cc -O2 -Wall -o build/echo_server client/examples/echo_server.c
//   build/echo_server /dev/binderfs/hwbinder
//
// It is the context manager of its device: a caller of handle 0 gets back the bytes that it sent.

#include <errno.h>
#include <fcntl.h>
#include <linux/android/binder.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { AREA = (1 << 20) - 8192 }; // what can be received at a time

static void die(const char *what)
{
	perror(what);
	exit(1);
}

// Writes commands and, if there is room for it, waits for something to read; returns its size.
static size_t talk(int fd, const void *out, size_t out_size, void *in, size_t in_size)
{
	struct binder_write_read bwr = {
		.write_size = out_size,
		.write_buffer = (binder_uintptr_t)out,
		.read_size = in_size,
		.read_buffer = (binder_uintptr_t)in,
	};

	// After a signal the same structure goes in again: it says what is done already.
	while (ioctl(fd, BINDER_WRITE_READ, &bwr) < 0)
		if (errno != EINTR)
			die("BINDER_WRITE_READ");
	return bwr.read_consumed;
}

// Sends a call's bytes back, then gives its buffer back: both in one write.
static void reply(int fd, const struct binder_transaction_data *call)
{
	struct {
		uint32_t reply_word;
		struct binder_transaction_data reply;
		uint32_t free_word;
		binder_uintptr_t buffer;
	} __attribute__((packed)) out = {
		.reply_word = BC_REPLY,
		.reply = { .data_size = call->data_size, .data.ptr.buffer = call->data.ptr.buffer },
		.free_word = BC_FREE_BUFFER,
		.buffer = call->data.ptr.buffer,
	};

	if (call->flags & TF_ONE_WAY) // nobody waits
		talk(fd, &out.free_word, sizeof out.free_word + sizeof out.buffer, NULL, 0);
	else
		talk(fd, &out, sizeof out, NULL, 0);
}

int main(int argc, char **argv)
{
	uint32_t enter = BC_ENTER_LOOPER, word;
	int32_t none = 0; // not NULL: FUSE looks at the argument of every ioctl
	struct binder_transaction_data call;
	unsigned char in[256]; // 80 bytes are the least that brings a call

	if (argc != 2 || argv[1][0] == '-')
		return fputs("usage: echo_server DEVICE\n", stderr), 2;
	int fd = open(argv[1], O_RDWR | O_CLOEXEC);

	if (fd < 0)
		die(argv[1]);
	if (mmap(NULL, AREA, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		die("mmap (is it a binder device?)");
	if (ioctl(fd, BINDER_SET_CONTEXT_MGR, &none) < 0)
		die("BINDER_SET_CONTEXT_MGR");
	talk(fd, &enter, sizeof enter, NULL, 0);
	puts("ready");
	fflush(stdout);
	for (;;) {
		size_t size = talk(fd, NULL, 0, in, sizeof in);

		for (size_t at = 0; at + sizeof word <= size; at += _IOC_SIZE(word)) {
			memcpy(&word, in + at, sizeof word);
			at += sizeof word;
			if (word == BR_TRANSACTION) {
				memcpy(&call, in + at, sizeof call);
				reply(fd, &call);
			}
		}
	}
}
