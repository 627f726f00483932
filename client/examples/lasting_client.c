// SPDX-License-Identifier: Apache-2.0
// lasting_client.c - outlives its daemon, by the recipe of docs/RECOVERY.md: sends each line of its
// input to handle 0 and prints what comes back.
//   cc -O2 -Wall -o build/lasting_client client/examples/lasting_client.c

#include <errno.h>
#include <fcntl.h>
#include <linux/android/binder.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { AREA = (1 << 20) - 8192, FIRST_PAUSE = 10000, LONGEST_PAUSE = 1000000 }; // bytes, µs
enum outcome { REPLIED, NOBODY, GONE };
static int fd;
static void *area;

// Waits until there is a device: for a while the path leads to nothing, or to a dead mount.
static void open_device(const char *path)
{
	for (useconds_t pause = FIRST_PAUSE;; usleep(pause)) {
		fd = open(path, O_RDWR | O_CLOEXEC);
		area = fd < 0 ? MAP_FAILED : mmap(NULL, AREA, PROT_READ, MAP_PRIVATE, fd, 0);
		if (area != MAP_FAILED)
			return;
		close(fd); // -1, or it went at once
		pause = pause < LONGEST_PAUSE / 2 ? 2 * pause : LONGEST_PAUSE;
	}
}

// Handles, buffers and objects of the old device mean nothing to the new one: forget them all.
static void close_device(void)
{
	munmap(area, AREA);
	close(fd); // it may say ENOTCONN; the file is closed
}

static int talk(struct binder_write_read *bwr)
{
	while (ioctl(fd, BINDER_WRITE_READ, bwr) < 0)
		if (errno != EINTR)
			return -1; // ECONNABORTED: it may have been handled; ENOTCONN: it was not
	return 0;
}

static enum outcome print_reply(const struct binder_transaction_data *reply)
{
	struct {
		uint32_t word;
		binder_uintptr_t buffer;
	} __attribute__((packed)) done = { BC_FREE_BUFFER, reply->data.ptr.buffer };
	struct binder_write_read bwr = { .write_size = sizeof done, .write_buffer = (uintptr_t)&done };

	printf("%.*s", (int)reply->data_size, (const char *)done.buffer);
	talk(&bwr); // if the daemon is gone by now, the next call will tell
	return REPLIED;
}

static enum outcome call(const char *text)
{
	struct {
		uint32_t word;
		struct binder_transaction_data call;
	} __attribute__((packed)) out = { BC_TRANSACTION, { .code = 1, .data_size = strlen(text) } };
	struct binder_transaction_data reply;
	unsigned char in[256];
	struct binder_write_read bwr = { .write_size = sizeof out, .write_buffer = (uintptr_t)&out };

	out.call.data.ptr.buffer = (uintptr_t)text;
	for (;;) {
		bwr.read_size = sizeof in, bwr.read_consumed = 0, bwr.read_buffer = (uintptr_t)in;
		if (talk(&bwr) < 0)
			return GONE;
		for (uint32_t at = 0, word; at + sizeof word <= bwr.read_consumed; at += _IOC_SIZE(word)) {
			memcpy(&word, in + at, sizeof word);
			at += sizeof word;
			memcpy(&reply, in + at, word == BR_REPLY ? sizeof reply : 0);
			if (word == BR_REPLY || word == BR_DEAD_REPLY)
				return word == BR_REPLY ? print_reply(&reply) : NOBODY;
		}
	}
}

int main(int argc, char **argv)
{
	char line[256];

	setlinebuf(stdout);
	open_device(argv[argc - 1]);
	while (fgets(line, sizeof line, stdin))
		for (enum outcome outcome; (outcome = call(line)) != REPLIED; usleep(FIRST_PAUSE))
			if (outcome == GONE) { // an echo may be asked for twice; not everything may
				close_device();
				open_device(argv[argc - 1]);
			} // else the server is not back yet
	return 0;
}
