// SPDX-License-Identifier: Apache-2.0
// spy.c - preloaded behind the library: writes a line for each ioctl that goes to the kernel.
//
// To the file $SPY_FILE: thread id, descriptor, request, result, errno.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static void note(const char *target, const char *line, int size)
{
	int file = open(target, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);

	if (file < 0 || write(file, line, (size_t)size) < 0 || close(file) < 0)
		abort();
}

int ioctl(int fd, unsigned long request, ...)
{
	static int (*behind)(int, unsigned long, ...);
	const char *target = getenv("SPY_FILE");
	char line[100];
	va_list list;
	void *argument;
	int result, error;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	if (behind == NULL)
		*(void **)&behind = dlsym(RTLD_NEXT, "ioctl");
	result = behind(fd, request, argument);
	error = errno;
	if (target != NULL)
		note(target, line,
		     snprintf(line, sizeof line, "%ld %d %#lx %d %d\n", syscall(SYS_gettid), fd,
			      request & 0xffffffff, result, result < 0 ? error : 0));
	errno = error;
	return result;
}
