// SPDX-License-Identifier: Apache-2.0
// fake.c - preloaded behind the library: a daemon within the process, that does what it is told.
//
// Its only device is /dev/null. It does what the protocol of docs/EXTENSION.md allows, also what
// the real daemon does rarely or never; delivery_cases.py is the program that it lives in.

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/android/binder.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "binderd.h"

enum { NUMBERS_MAX = 4096 };

// For the test.
int fake_attached; // how often
int fake_refuse; // errno for BINDERD_ATTACH
int fake_unknown; // errno for BINDERD_INSTALLED
int fake_flushed; // how often BINDERD_FLUSH was said
_Atomic int fake_busy; // how many of the next BINDER_WRITE_READ fail with EREMOTEIO
_Atomic int fake_calls; // how many BINDER_WRITE_READ there were
struct binderd_installed fake_installed;
int32_t fake_numbers[NUMBERS_MAX];
int fake_reports;

static int end = -1;

// Sends a message with copies of a descriptor; or with numbers behind it, if there are some.
int fake_send(struct binderd_message message, int fd, int copies, const int32_t *numbers)
{
	union {
		char octets[CMSG_SPACE(BINDERD_FILES_MAX * sizeof(int))];
		struct cmsghdr alignment;
	} control = { 0 };
	struct iovec parts[2] = { { &message, sizeof message },
				  { (void *)(uintptr_t)numbers,
				    numbers ? message.count * sizeof *numbers : 0 } };
	struct msghdr header = { .msg_iov = parts, .msg_iovlen = 2 };

	if (copies > 0) {
		struct cmsghdr *rights = &control.alignment;

		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE((size_t)copies * sizeof(int));
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN((size_t)copies * sizeof(int));
		for (int i = 0; i < copies; i++)
			memcpy(CMSG_DATA(rights) + (size_t)i * sizeof fd, &fd, sizeof fd);
	}
	return (int)sendmsg(end, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void fake_hang_up(void)
{
	close(end);
	end = -1;
}

static int fails(int error)
{
	errno = error;
	return error ? -1 : 0;
}

static int attach(const struct binderd_attach *attach)
{
	if (fake_refuse)
		return fails(fake_refuse);
	if (end >= 0)
		close(end);
	end = fcntl(attach->socket, F_DUPFD_CLOEXEC, 500);
	fake_attached++;
	return end < 0 ? -1 : 0;
}

static int report(const struct binderd_installed *installed)
{
	fake_reports++;
	fake_installed = *installed;
	if (installed->count <= NUMBERS_MAX)
		memcpy(fake_numbers, (const void *)(uintptr_t)installed->numbers,
		       installed->count * sizeof fake_numbers[0]);
	return fails(fake_unknown);
}

int ioctl(int fd, unsigned long request, ...)
{
	static int (*behind)(int, unsigned long, ...);
	va_list list;
	void *argument;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	switch ((uint32_t)request) {
	case BINDERD_GET_INFO:
		*(struct binderd_info *)argument = (struct binderd_info){ .version = 1 };
		return 0;
	case BINDERD_ATTACH:
		return attach(argument);
	case BINDERD_INSTALLED:
		return report(argument);
	case BINDERD_FLUSH:
		fake_flushed++;
		return 0;
	case BINDER_WRITE_READ:
		fake_calls++;
		return fails(atomic_fetch_sub(&fake_busy, 1) > 0 ? BINDERD_ERRNO : 0);
	default:
		if (behind == NULL)
			*(void **)&behind = dlsym(RTLD_NEXT, "ioctl");
		return behind(fd, request, argument);
	}
}
