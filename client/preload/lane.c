// SPDX-License-Identifier: Apache-2.0
// lane.c - BINDER_WRITE_READ through a lane of the thread's (docs/EXTENSION.md, sections 6 to 8).
//
// A thread that has called often gets a lane, and what is small goes through it from then on. It
// must not be able to tell. So whatever is not certain is an ioctl as ever: memory that may not be
// there, which is for the driver to refuse; a signal handler within a request; a child.

#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "used.h"

// BINDERCLIENT_LANES in the environment: the request of a thread from which on it has a lane, 0:
// none. A lane costs as much as some twenty requests save.
static unsigned lanes_from = 20;

enum { NEVER = ~0U };

static int filtered_at_first; // by seccomp, as PR_GET_SECCOMP has it

void lane_start(void)
{
	const char *said = getenv("BINDERCLIENT_LANES");
	char *end;
	unsigned long number;

	filtered_at_first = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
	if (said == NULL || *said == '\0')
		return;
	number = strtoul(said, &end, 10);
	if (*end == '\0')
		lanes_from = number < NEVER ? (unsigned)number : 0;
}

// The thread has no lane of ours for this file from now on. Where a signal handler says so, that is
// found out by who is in it.
void lane_not_ours(struct used *used)
{
	if (!used->lane.is_busy)
		binderd_lane_close(&used->lane);
	used->requests = NEVER;
}

// Whether a lane could be the end of the program: by SIGXFSZ, where no file may be as large, or by
// a filter of its own for system calls. One that it was started with, a container's, only refuses.
static bool is_dangerous(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur < BINDERD_LANE_SIZE_MAX ||
	       prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != filtered_at_first;
}

// Whether the daemon has lanes for a file, and nobody else has its inode, by which we know it.
// Where the kernel maps none of the daemon's pages several files may have one: a bind mount's.
static bool is_offered(int fd)
{
	const uint32_t wanted = BINDERD_HAS_LANES | BINDERD_HAS_MMAP;
	struct binderd_info info;

	return ask(fd, &info) && (info.flags & wanted) == wanted;
}

static void make(struct used *used, int fd)
{
	int error = errno;

	used->requests = NEVER;
	if (is_offered(fd) && !is_dangerous())
		binderd_lane_open(&used->lane, fd, 0);
	errno = error;
}

// A BINDER_WRITE_READ. used: what the thread has of the file, NULL: nothing.
int lane_write_read(struct used *used, int fd, void *argument)
{
	if (used != NULL && used->requests != NEVER && lanes_from != 0 &&
	    ++used->requests >= lanes_from)
		make(used, fd);
	if (used == NULL || used->lane.slot == NULL)
		return next_ioctl(fd, BINDER_WRITE_READ, argument);
	if (!memory_is_there((uintptr_t)argument, sizeof(struct binder_write_read), true))
		return next_ioctl(fd, BINDER_WRITE_READ, argument);
	used->lane.fd = fd;
	return binderd_lane_write_read(&used->lane, argument);
}
