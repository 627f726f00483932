// SPDX-License-Identifier: Apache-2.0
// victims.c - two programs that call each other all the time, and note how long each call takes.
//
//   victims serve DEVICE                   becomes context manager, says "ready", answers
//   victims call DEVICE TIMES US plain     calls every US microseconds
//   victims call DEVICE TIMES US files     the same, and each call brings a file
//
// TIMES is a file that is long enough. Whoever maps it sees every call, also the one under way, and
// how many there are so far.

#define _GNU_SOURCE
#include "board.h"
#include "port.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <signal.h>
#include <unistd.h>

enum { AT_COUNT = 4096, FAILED = 2, DONE = 1 };

struct record {
	uint64_t begin_ns, end_ns, status; // end and status are 0 while the call is under way
};

static _Noreturn void give_up(const char *what)
{
	perror(what);
	exit(1);
}

void port_handle(struct port *port, uint32_t word, const void *payload)
{
	(void)port, (void)word, (void)payload; // references are nobody's business here
}

static void answer(struct port *port, const struct binder_transaction_data *call)
{
	const struct binder_fd_object *file = (const void *)(uintptr_t)call->data.ptr.buffer;

	if (call->offsets_size)
		close((int)file->fd);
	port_free(port, call->data.ptr.buffer);
	port_reply(port, NULL, 0, 0, 0);
}

static void serve(void)
{
	struct flat_binder_object node = { .flags = FLAT_BINDER_FLAG_ACCEPTS_FDS };
	unsigned char payload[PAYLOAD_MAX];
	struct binder_transaction_data call;
	struct port port = { .out_size = 0 };

	if (ioctl(device, BINDER_SET_CONTEXT_MGR_EXT, &node) < 0)
		give_up("BINDER_SET_CONTEXT_MGR_EXT");
	uint32_t enter = BC_ENTER_LOOPER;
	memcpy(port.out, &enter, sizeof enter);
	port.out_size = sizeof enter;
	puts("ready");
	fflush(stdout);
	for (;;)
		if (port_next(&port, payload) == BR_TRANSACTION) {
			memcpy(&call, payload, sizeof call);
			answer(&port, &call);
		}
}

static struct record *map_times(const char *path, uint64_t **count, uint64_t *most)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat stat;

	if (fd < 0 || fstat(fd, &stat) < 0)
		give_up(path);
	char *start = mmap(NULL, (size_t)stat.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (start == MAP_FAILED)
		give_up(path);
	*count = (uint64_t *)start;
	*most = ((uint64_t)stat.st_size - AT_COUNT) / sizeof(struct record);
	return (struct record *)(start + AT_COUNT);
}

// A call that is due while the one before is still under way is left out: whoever reads the times
// counts it, as it would have had to wait as well.
static void call_every(uint64_t interval_ns, struct record *records, uint64_t *count, uint64_t most,
		       struct call *call)
{
	struct port port = { .out_size = 0 };
	uint64_t begin_ns = now_ns();

	for (uint64_t i = 0; i < most; i++) {
		uint64_t now = now_ns();
		if (now < begin_ns + interval_ns)
			pause_ns(begin_ns + interval_ns - now);
		begin_ns = now_ns();
		records[i].begin_ns = begin_ns;
		__atomic_store_n(count, i + 1, __ATOMIC_RELEASE);
		enum outcome outcome = port_call(&port, call);
		records[i].status = outcome == ACCEPTED ? DONE : FAILED;
		__atomic_store_n(&records[i].end_ns, now_ns(), __ATOMIC_RELEASE);
		if (outcome == ACCEPTED)
			port_free(&port, call->reply.data.ptr.buffer);
	}
}

int main(int argc, char **argv)
{
	bool is_caller = argc == 6 && !strcmp(argv[1], "call");

	if (!is_caller && !(argc == 3 && !strcmp(argv[1], "serve"))) {
		fputs("usage: victims serve DEVICE | call DEVICE TIMES US plain|files\n", stderr);
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	port_open(argv[2]);
	if (!is_caller)
		serve();
	uint64_t *count, most;
	struct record *records = map_times(argv[3], &count, &most);
	struct binder_fd_object file = { .hdr.type = BINDER_TYPE_FD,
					 .fd = (uint32_t)open("/dev/null", O_RDONLY) };
	struct call call = { .data = &file, .size = sizeof file,
			     .objects = !strcmp(argv[5], "files") };
	call_every(strtoull(argv[4], NULL, 10) * 1000, records, count, most, &call);
	return 0;
}
