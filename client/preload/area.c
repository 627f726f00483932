// SPDX-License-Identifier: Apache-2.0
// area.c - maps a receive area where the kernel has no mmap for the device.

#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "preload.h"

// Maps the pages that the daemon hands over; fails with what the driver's mmap would fail with.
//
// Shared whatever the program asked for: the descriptor is read-only, so that mprotect(PROT_WRITE)
// then fails with EACCES, as it does with the driver, which knows no private copies.
void *map_area(void *address, size_t size, int protection, int flags, int fd)
{
	void *mapped;
	int memory = attach_for_area(fd);
	int error;

	if (memory < 0) {
		errno = -memory;
		return MAP_FAILED;
	}
	flags = (flags & ~MAP_TYPE) | MAP_SHARED;
	mapped = next_mmap(address, size, protection, flags, memory, 0);
	error = errno;
	close_raw(memory);
	errno = error;
	return mapped;
}
