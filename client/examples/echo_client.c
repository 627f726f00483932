// SPDX-License-Identifier: Apache-2.0
// echo_client.c - a binder client that needs nothing but open, ioctl and mmap.
//
//   cc -O2 -Wall -o build/echo_client client/examples/echo_client.c
//   build/echo_client /dev/binderfs/hwbinder hello
//
// Calls handle 0 and prints the bytes that come back.

#include <errno.h>
#include <fcntl.h>
#include <linux/android/binder.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { AREA = (1 << 20) - 8192 }; // what can be received at a time

static void die(const char *what)
{
	if (errno)
		perror(what);
	else
		fprintf(stderr, "%s\n", what);
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
	errno = 0;
	return bwr.read_consumed;
}

// Looks through what was read; returns whether the reply was there.
static bool find_reply(const unsigned char *in, size_t size, struct binder_transaction_data *reply)
{
	uint32_t word;

	for (size_t at = 0; at + sizeof word <= size; at += _IOC_SIZE(word)) {
		memcpy(&word, in + at, sizeof word);
		at += sizeof word;
		if (word == BR_DEAD_REPLY)
			die("nobody is there");
		if (word == BR_FAILED_REPLY)
			die("the driver refused it");
		if (word == BR_REPLY) {
			memcpy(reply, in + at, sizeof *reply);
			return true;
		}
	}
	return false; // BR_NOOP, BR_TRANSACTION_COMPLETE: the reply is still to come
}

int main(int argc, char **argv)
{
	struct binder_transaction_data reply;
	unsigned char in[256]; // 80 bytes are the least that brings a reply

	if (argc != 3 || argv[1][0] == '-')
		return fputs("usage: echo_client DEVICE TEXT\n", stderr), 2;
	int fd = open(argv[1], O_RDWR | O_CLOEXEC);

	if (fd < 0)
		die(argv[1]);
	if (mmap(NULL, AREA, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		die("mmap (is it a binder device?)");
	struct {
		uint32_t word;
		struct binder_transaction_data call;
	} __attribute__((packed)) out = {
		.word = BC_TRANSACTION,
		.call = { .target.handle = 0,
			  .code = 1,
			  .data_size = strlen(argv[2]),
			  .data.ptr.buffer = (binder_uintptr_t)argv[2] },
	};
	size_t size = talk(fd, &out, sizeof out, in, sizeof in);
	while (!find_reply(in, size, &reply))
		size = talk(fd, NULL, 0, in, sizeof in);
	printf("%.*s\n", (int)reply.data_size, (const char *)reply.data.ptr.buffer);
	return 0; // the buffer goes back with the file
}
