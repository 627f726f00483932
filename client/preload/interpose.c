// SPDX-License-Identifier: Apache-2.0
// interpose.c - the functions that programs call instead of the C library's.

#define _GNU_SOURCE // RTLD_NEXT, mmap64

#include <dlfcn.h>
#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "preload.h"

#define EXPORT __attribute__((visibility("default")))

typedef __typeof__(ioctl) ioctl_function;
typedef __typeof__(mmap) mmap_function;

// Unknown until our constructor has run; others' constructors may be there before it.
static _Atomic(ioctl_function *) ioctl_behind;
static _Atomic(mmap_function *) mmap_behind;

int next_ioctl(int fd, unsigned long request, void *argument)
{
	ioctl_function *function = atomic_load_explicit(&ioctl_behind, memory_order_relaxed);

	if (function != NULL)
		return function(fd, request, argument);
	return (int)syscall(SYS_ioctl, fd, request, argument);
}

void *next_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	mmap_function *function = atomic_load_explicit(&mmap_behind, memory_order_relaxed);

	if (function != NULL)
		return function(address, size, protection, flags, fd, offset);
	return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}

static bool is_on_fuse(int fd)
{
	struct statfs status;

	return fstatfs(fd, &status) == 0 && status.f_type == FUSE_SUPER_MAGIC;
}

static int write_read(int fd, void *argument)
{
	int error = errno;

	for (;;) {
		int result = lane_write_read(attach_if_needed(fd), fd, argument);

		if (result >= 0)
			errno = error;
		if (result >= 0 || errno != BINDERD_ERRNO)
			return result;
		if (!take_messages(fd)) { // for a socket that the program attached itself
			errno = BINDERD_ERRNO;
			return result;
		}
	}
}

// The driver ignores the argument of these, so NULL is usual; FUSE tries to copy it.
static int without_argument(int fd, unsigned long request, void *argument)
{
	int error = errno;
	int result = next_ioctl(fd, request, argument);
	int32_t zero = 0;

	if (result < 0 && errno == EFAULT) {
		if (is_on_fuse(fd))
			result = next_ioctl(fd, request, &zero);
		else
			errno = EFAULT;
	}
	if (result >= 0)
		errno = error;
	return result;
}

// For a bad pointer the driver has this error here, where FUSE has EFAULT for all.
static int with_argument(int fd, unsigned long request, void *argument)
{
	int result = next_ioctl(fd, request, argument);

	if (result < 0 && errno == EFAULT)
		errno = is_on_fuse(fd) ? EINVAL : EFAULT;
	return result;
}

static int thread_exit(int fd, void *argument)
{
	int result = without_argument(fd, BINDER_THREAD_EXIT, argument);
	int error = errno;

	if (result >= 0)
		thread_exited(fd);
	errno = error;
	return result;
}

// A program that takes its descriptors itself does not get them from us.
static int attach_itself(int fd, void *argument)
{
	int result = next_ioctl(fd, BINDERD_ATTACH, argument);
	const struct binderd_attach *attach = argument;
	int error = errno;

	if (result >= 0 && attach->flags & BINDERD_ATTACH_FILES)
		attached_by_program(fd);
	errno = error;
	return result;
}

// Nor does a thread that makes a lane itself get one from us; ours would take its place.
static int make_lane_itself(int fd, void *argument)
{
	struct used *used = attach_if_needed(fd);

	if (used != NULL)
		lane_not_ours(used);
	return next_ioctl(fd, BINDERD_LANE, argument);
}

// The C libraries declare it differently; only the low 32 bits of the request count.
#ifdef __GLIBC__
EXPORT int ioctl(int fd, unsigned long request, ...)
#else
EXPORT int ioctl(int fd, int request, ...)
#endif
{
	va_list list;
	void *argument;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	if (_IOC_TYPE(request) == _IOC_TYPE(BINDER_WRITE_READ))
		thread_settle();
	switch ((uint32_t)request) {
	case BINDER_WRITE_READ:
		return write_read(fd, argument);
	case BINDER_SET_CONTEXT_MGR:
		return without_argument(fd, request, argument);
	case BINDER_SET_MAX_THREADS:
	case BINDER_SET_CONTEXT_MGR_EXT:
	case BINDER_VERSION:
		return with_argument(fd, request, argument);
	case BINDER_THREAD_EXIT:
		return thread_exit(fd, argument);
	case BINDERD_ATTACH:
		return attach_itself(fd, argument);
	case BINDERD_LANE:
		return make_lane_itself(fd, argument);
	default:
		return next_ioctl(fd, request, argument);
	}
}

// An mmap of a file that is binderd's.
static void *map_binder(void *address, size_t size, int protection, int flags, int fd,
			off_t offset, const struct binderd_info *info)
{
	void *mapped;

	if (protection & PROT_WRITE) { // the driver refuses it
		errno = EPERM;
		return MAP_FAILED;
	}
	if (info->flags & BINDERD_HAS_MMAP)
		mapped = next_mmap(address, size, protection, flags, fd, offset);
	else
		mapped = map_area(address, size, protection, flags, fd);
	if (mapped != MAP_FAILED)
		madvise(mapped, size, MADV_DONTFORK); // as the driver: a child has none
	return mapped;
}

// A FUSE file can be mapped, but may show nothing, so those are asked first. A character device of
// CUSE cannot; others are none of our business.
static void *map(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	int error = errno;
	struct binderd_info info;
	void *mapped = MAP_FAILED;
	bool is_plain;

	if (fd < 0 || flags & MAP_ANONYMOUS)
		return next_mmap(address, size, protection, flags, fd, offset);
	is_plain = !is_on_fuse(fd) || !ask(fd, &info);
	if (is_plain) {
		mapped = next_mmap(address, size, protection, flags, fd, offset);
		if (mapped == MAP_FAILED && errno == ENODEV) {
			is_plain = !ask(fd, &info);
			errno = ENODEV;
		}
	}
	if (!is_plain)
		mapped = map_binder(address, size, protection, flags, fd, offset, &info);
	if (mapped != MAP_FAILED)
		errno = error;
	return mapped;
}

EXPORT void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	return map(address, size, protection, flags, fd, offset);
}

#undef mmap64
EXPORT void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	return map(address, size, protection, flags, fd, offset);
}

// A fork waits until the table is at rest; the child then starts with an empty one.
static guard while_forking;

static void before_fork(void)
{
	guard saved = guard_enter();

	while_forking = saved;
}

static void after_fork(void)
{
	guard_leave(while_forking);
}

static void after_fork_in_child(void)
{
	attachments_forget();
	thread_forget();
	guard_leave(while_forking);
}

__attribute__((constructor)) static void start(void)
{
	// ISO C knows no conversion from what dlsym returns.
	*(void **)&ioctl_behind = dlsym(RTLD_NEXT, "ioctl");
	*(void **)&mmap_behind = dlsym(RTLD_NEXT, "mmap");
	thread_start();
	lane_start();
	pthread_atfork(before_fork, after_fork, after_fork_in_child);
}
