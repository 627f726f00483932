// SPDX-License-Identifier: Apache-2.0
// guard.c - one lock, for all that is rare.
//
// Signals are blocked while it is held: a handler may call ioctl as well, and would wait for the
// thread that it has interrupted. By a direct system call, because the C library leaves out the
// signals by which it cancels threads.

#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

enum { FREE, TAKEN, WAITED_FOR };

static _Atomic int state;

guard guard_enter(void)
{
	guard saved;
	uint64_t all = ~(uint64_t)0;
	int found = FREE;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &saved.mask, sizeof all);
	if (atomic_compare_exchange_strong(&state, &found, TAKEN))
		return saved;
	while (atomic_exchange(&state, WAITED_FOR) != FREE)
		syscall(SYS_futex, &state, FUTEX_WAIT_PRIVATE, WAITED_FOR, NULL, NULL, 0);
	return saved;
}

void guard_leave(guard saved)
{
	int error = errno;

	if (atomic_exchange(&state, FREE) == WAITED_FOR)
		syscall(SYS_futex, &state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &saved.mask, NULL, sizeof saved.mask);
	errno = error;
}

// close(2) as the C library's, but no cancellation point.
void close_raw(int fd)
{
	syscall(SYS_close, fd);
}
