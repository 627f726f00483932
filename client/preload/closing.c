// SPDX-License-Identifier: Apache-2.0
// closing.c - notices when numbers of descriptors change their meaning, and keeps our sockets.
//
// Programs close numbers that they have never seen, to be sure. A socket that is gone would only be
// missed by a thread that comes by, and those that wait in an ioctl do not. So for the functions
// here our sockets do not exist. Only what is done through the C library is seen; attachment.c
// copes with the rest.

#define _GNU_SOURCE // RTLD_NEXT, close_range

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

#define EXPORT __attribute__((visibility("default")))

// The C library's, which may lack some; unknown until our constructor has run.
static struct {
	int (*_Atomic close)(int fd);
	int (*_Atomic dup2)(int fd, int number);
	int (*_Atomic dup3)(int fd, int number, int flags);
	int (*_Atomic close_range)(unsigned first, unsigned last, int flags);
	void (*_Atomic closefrom)(int first);
} behind;

EXPORT int close(int fd)
{
	int (*function)(int) = behind.close;
	int error = errno;
	int result;

	// With the driver, threads that wait in a read return when any descriptor of the file is
	// closed. CUSE does not tell the daemon.
	if (is_device(fd) && next_ioctl(fd, BINDERD_FLUSH, NULL) < 0)
		errno = error;
	if (is_our_socket(fd)) { // the program has no such descriptor
		errno = EBADF;
		return -1;
	}
	result = function != NULL ? function(fd) : (int)syscall(SYS_close, fd);
	numbers_change();
	return result;
}

EXPORT int dup2(int fd, int number)
{
	int (*function)(int, int) = behind.dup2;
	int result;

	make_way(number);
	if (function != NULL)
		result = function(fd, number);
	else if (fd == number) // an error for dup3
		result = fcntl(fd, F_GETFD) < 0 ? -1 : fd;
	else
		result = (int)syscall(SYS_dup3, fd, number, 0);
	numbers_change();
	return result;
}

EXPORT int dup3(int fd, int number, int flags)
{
	int (*function)(int, int, int) = behind.dup3;
	int result;

	make_way(number);
	result = function != NULL ? function(fd, number, flags)
				  : (int)syscall(SYS_dup3, fd, number, flags);
	numbers_change();
	return result;
}

static int close_part(unsigned first, unsigned last, int flags)
{
	int (*function)(unsigned, unsigned, int) = behind.close_range;

	if (function != NULL)
		return function(first, last, flags);
	return (int)syscall(SYS_close_range, first, last, flags);
}

EXPORT int close_range(unsigned first, unsigned last, int flags)
{
	int result = 0;
	unsigned socket;

	if (first > last)
		return close_part(first, last, flags);
	while (result == 0 && our_first_socket(first, last, &socket)) {
		if (socket > first)
			result = close_part(first, socket - 1, flags);
		first = socket + 1;
	}
	if (result == 0 && first <= last)
		result = close_part(first, last, flags);
	numbers_change();
	return result;
}

EXPORT void closefrom(int first)
{
	void (*function)(int) = behind.closefrom;
	unsigned from = first > 0 ? (unsigned)first : 0;
	unsigned socket;

	while (our_first_socket(from, INT_MAX, &socket)) {
		for (; from < socket; from++)
			close((int)from);
		from = socket + 1;
	}
	if (function != NULL)
		function((int)from);
	else
		close_part(from, ~0U, 0);
	numbers_change();
}

__attribute__((constructor)) static void start(void)
{
	// ISO C knows no conversion from what dlsym returns.
	*(void **)&behind.close = dlsym(RTLD_NEXT, "close");
	*(void **)&behind.dup2 = dlsym(RTLD_NEXT, "dup2");
	*(void **)&behind.dup3 = dlsym(RTLD_NEXT, "dup3");
	*(void **)&behind.close_range = dlsym(RTLD_NEXT, "close_range");
	*(void **)&behind.closefrom = dlsym(RTLD_NEXT, "closefrom");
}
