// SPDX-License-Identifier: Apache-2.0
// memory.c - whether memory is there, that is, whether the driver could read or write it.
//
// The kernel is asked, which takes half a microsecond; what it has said of a few ranges is
// remembered until the next tick of its clock, as is what attachment.c knows. A program whose
// memory goes meanwhile, and that hands it over all the same, ends with SIGSEGV, not with EFAULT.

#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "preload.h"

enum { PAGE = 4096, KNOWN_MAX = 8 }; // lanes are for x86-64
enum { POPULATE_READ = 22, POPULATE_WRITE = 23 }; // of madvise; not every C library has them

struct range {
	uint64_t first, end; // addresses, end is behind it
	bool is_writable;
};

static __thread struct range known[KNOWN_MAX] __attribute__((tls_model("initial-exec")));
static __thread struct timespec known_at __attribute__((tls_model("initial-exec")));
static __thread unsigned updates __attribute__((tls_model("initial-exec")));

static bool is_known(const struct range *range)
{
	for (unsigned i = 0; i < KNOWN_MAX; i++)
		if (known[i].first <= range->first && range->end <= known[i].end &&
		    (known[i].is_writable || !range->is_writable))
			return true;
	return false;
}

// A signal handler may do the same meanwhile; then nothing counts.
static void remember(const struct range *range)
{
	unsigned before = ++updates;

	atomic_signal_fence(memory_order_seq_cst);
	known[before % KNOWN_MAX] = *range;
	atomic_signal_fence(memory_order_seq_cst);
	if (updates != before)
		memset(known, 0, sizeof known);
}

// For a child, which does not have all of its parent's memory.
void memory_forget(void)
{
	memset(known, 0, sizeof known);
}

static void forget_at_tick(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_nsec == known_at.tv_nsec && now.tv_sec == known_at.tv_sec)
		return;
	memory_forget();
	known_at = now;
}

// Whether a range can be read, or written. Has the kernel do what an access would: nothing else
// about the memory changes.
bool memory_is_there(uint64_t address, uint64_t size, bool is_written)
{
	struct range range = { address & ~(uint64_t)(PAGE - 1), 0, is_written };
	int error = errno;
	bool is_there;

	if (size == 0 || size > BINDERD_LANE_SIZE_MAX || address > ~(uint64_t)0 - 2 * PAGE - size)
		return size == 0;
	range.end = (address + size + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	forget_at_tick();
	if (is_known(&range))
		return true;
	is_there = syscall(SYS_madvise, range.first, range.end - range.first,
			   is_written ? POPULATE_WRITE : POPULATE_READ) == 0;
	errno = error;
	if (is_there)
		remember(&range);
	return is_there;
}
