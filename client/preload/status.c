// SPDX-License-Identifier: Apache-2.0
// status.c - what tells descriptors apart.
//
// fstat would ask the daemon about a FUSE file, which takes as long as an ioctl; statx need not.
// By a direct system call, because not every C library has it.

#define _GNU_SOURCE
#include <linux/fcntl.h>
#include <linux/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

static bool status_of(int fd, struct statx *status)
{
	int flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;

	return syscall(SYS_statx, fd, "", flags, STATX_TYPE | STATX_INO, status) == 0;
}

bool identify(int fd, struct file_id *id)
{
	struct statx status;

	if (!status_of(fd, &status))
		return false;
	id->is_shared = S_ISCHR(status.stx_mode);
	id->major = id->is_shared ? status.stx_rdev_major : status.stx_dev_major;
	id->minor = id->is_shared ? status.stx_rdev_minor : status.stx_dev_minor;
	id->inode = status.stx_ino;
	return true;
}

bool same_file(const struct file_id *a, const struct file_id *b)
{
	return a->major == b->major && a->minor == b->minor && a->inode == b->inode &&
	       a->is_shared == b->is_shared;
}

// Returns the inode of a socket, 0 if it is none.
uint64_t socket_inode(int fd)
{
	struct statx status;

	return fd >= 0 && status_of(fd, &status) && S_ISSOCK(status.stx_mode) ? status.stx_ino : 0;
}
