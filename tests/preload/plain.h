// SPDX-License-Identifier: Apache-2.0
// plain.h - what the test programs share: binder as the driver's header describes it, no more.

#ifndef PLAIN_H
#define PLAIN_H

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
#include <unistd.h>

enum { MAP_SIZE = 128 * 1024 };

typedef struct binder_transaction_data transaction;

static inline void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static inline int open_device(const char *path)
{
	int fd = open(path, O_RDWR);

	if (fd < 0)
		fail(path);
	if (mmap(NULL, MAP_SIZE, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		fail("mmap");
	return fd;
}

static inline void write_command(int fd, uint32_t word, const void *payload)
{
	unsigned char out[128];
	struct binder_write_read bwr = { .write_size = sizeof word + _IOC_SIZE(word),
					 .write_buffer = (binder_uintptr_t)out };

	memcpy(out, &word, sizeof word);
	memcpy(out + sizeof word, payload, _IOC_SIZE(word));
	while (ioctl(fd, BINDER_WRITE_READ, &bwr) < 0)
		if (errno != EINTR)
			fail("BINDER_WRITE_READ");
}

// Reads until a transaction, a reply or a failure is there; returns its word.
static inline uint32_t receive(int fd, transaction *found)
{
	unsigned char in[256];
	uint32_t word;

	for (;;) {
		struct binder_write_read bwr = { .read_size = sizeof in,
						 .read_buffer = (binder_uintptr_t)in };

		if (ioctl(fd, BINDER_WRITE_READ, &bwr) < 0 && errno != EINTR)
			fail("BINDER_WRITE_READ");
		for (size_t at = 0; at < bwr.read_consumed; at += _IOC_SIZE(word)) {
			memcpy(&word, in + at, sizeof word);
			at += sizeof word;
			if (word == BR_TRANSACTION || word == BR_REPLY)
				memcpy(found, in + at, sizeof *found);
			if (word == BR_TRANSACTION || word == BR_REPLY || word == BR_DEAD_REPLY ||
			    word == BR_FAILED_REPLY)
				return word;
		}
	}
}

static inline void free_buffer(int fd, const transaction *received)
{
	write_command(fd, BC_FREE_BUFFER, &received->data.ptr.buffer);
}

static inline void reply(int fd, const void *data, size_t size)
{
	transaction answer = { .data_size = size, .data.ptr.buffer = (binder_uintptr_t)data };

	write_command(fd, BC_REPLY, &answer);
}

static inline const char *data_of(const transaction *received)
{
	return (const char *)(uintptr_t)received->data.ptr.buffer;
}

#endif
