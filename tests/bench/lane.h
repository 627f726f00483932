// SPDX-License-Identifier: Apache-2.0
// lane.h - BINDER_WRITE_READ through a lane; docs/EXTENSION.md tells how that works.

#pragma once

#include "bench.h"
#include "../../client/include/binderd.h"
#include <fcntl.h>
#include <linux/android/binder.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define LANE_BYTES BINDERD_LANE_SIZE_MAX
#define LANE_SPIN_US 50

// Returns the memory of the calling thread's lane, which begins with its slot.
static inline void *lane_make(int fd)
{
	int memory = memfd_create("lane", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct binderd_lane lane = {
		.memory = memory,
		.flags = BINDERD_LANE_QUIET,
		.size = LANE_BYTES,
	};
	void *slot;

	if (memory < 0 || ftruncate(memory, LANE_BYTES) < 0)
		die("memfd");
	if (fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
		die("F_SEAL_SHRINK");
	slot = mmap(NULL, LANE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (slot == MAP_FAILED || madvise(slot, LANE_BYTES, MADV_DONTFORK) < 0)
		die("mmap of a lane");
	lane.address = (uintptr_t)slot;
	if (ioctl(fd, BINDERD_LANE, &lane) < 0)
		die("BINDERD_LANE");
	close(memory);
	return slot;
}

static inline int lane_is_answered(struct binderd_slot *slot, uint32_t number)
{
	return __atomic_load_n(&slot->answered, __ATOMIC_ACQUIRE) == number;
}

// Does what is in the slot; returns 0 or a negative errno, as the ioctl would.
static inline int lane_write_read(int fd, struct binderd_slot *slot)
{
	uint32_t number = slot->asked + 1;

	__atomic_store_n(&slot->asked, number, __ATOMIC_RELEASE);
	double end = now_us() + LANE_SPIN_US;
	while (!lane_is_answered(slot, number)) {
		if (!__atomic_load_n(&slot->is_watched, __ATOMIC_RELAXED) || now_us() > end)
			break;
		sched_yield();
	}
	while (!lane_is_answered(slot, number))
		if (ioctl(fd, BINDERD_ENTER, 0) < 0 && errno != EINTR)
			return -errno;
	return slot->result;
}
