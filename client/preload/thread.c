// SPDX-License-Identifier: Apache-2.0
// thread.c - what a thread has used; says BINDER_THREAD_EXIT for it if it ends without that.
//
// A destructor of thread-specific data does it. Destructors of the program's may use binder after
// ours: then the thread is noted anew, and the C library calls us once more.

#define _GNU_SOURCE
#include <pthread.h>

#include "used.h"

enum { USED_MAX = 8 }; // files of one thread; binderd notices the end of a thread by itself, later

static __thread struct used used[USED_MAX] __attribute__((tls_model("initial-exec")));
static __thread unsigned used_count __attribute__((tls_model("initial-exec")));
static pthread_key_t key;
static bool has_key;

static bool is_entry(const struct used *entry, int fd, const struct file_id *id)
{
	return entry->fd >= 0 && same_file(&entry->id, id) && (!id->is_shared || entry->fd == fd);
}

// The entry is free from now on; but for one in whose lane is who we, a signal handler, interrupt.
static void drop(struct used *entry)
{
	lane_not_ours(entry);
	if (entry->lane.slot == NULL)
		entry->fd = -1;
}

static void thread_ends(void *ignored)
{
	(void)ignored;
	while (used_count > 0) {
		struct used *last = &used[--used_count];
		struct file_id id;
		int32_t zero = 0;

		if (identify(last->fd, &id) && same_file(&id, &last->id))
			next_ioctl(last->fd, BINDER_THREAD_EXIT, &zero);
		binderd_lane_close(&last->lane);
		numbers_change(); // or it would not be noted anew
	}
}

void thread_start(void)
{
	has_key = pthread_key_create(&key, thread_ends) == 0;
}

// Notes that this thread has used a file of binderd's; NULL if that were too many. What is returned
// is good until numbers change.
struct used *thread_used(int fd, const struct file_id *id)
{
	struct used *found = NULL;

	for (unsigned i = 0; i < used_count; i++) {
		if (is_entry(&used[i], fd, id)) {
			used[i].fd = fd;
			return &used[i];
		}
		if (used[i].fd == fd) // of a file that is closed
			drop(&used[i]);
		if (used[i].fd < 0)
			found = &used[i];
	}
	if (found == NULL) {
		if (!has_key || used_count == USED_MAX)
			return NULL;
		if (used_count == 0 && pthread_setspecific(key, used) != 0)
			return NULL;
		found = &used[used_count++];
	}
	*found = (struct used){ .fd = fd, .id = *id, .lane = { .fd = fd } };
	return found;
}

// A signal handler is about to call the driver: what it has interrupted in a lane must end first,
// which it does as if the driver had been called.
void thread_settle(void)
{
	for (unsigned i = 0; i < used_count; i++)
		if (used[i].lane.slot != NULL && used[i].lane.is_busy && *used[i].lane.is_here)
			binderd_lane_sleep(&used[i].lane, BINDERD_LEAVE);
}

// Notes that it has said BINDER_THREAD_EXIT itself.
void thread_exited(int fd)
{
	struct file_id id;

	if (used_count == 0 || !identify(fd, &id))
		return;
	numbers_change(); // or it would not be noted again
	for (unsigned i = 0; i < used_count; i++)
		if (is_entry(&used[i], fd, &id)) {
			drop(&used[i]);
			return;
		}
}

// For a child: its only thread has used nothing, and has no lanes.
void thread_forget(void)
{
	used_count = 0;
	memory_forget();
}
