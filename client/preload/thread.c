// SPDX-License-Identifier: Apache-2.0
// thread.c - says BINDER_THREAD_EXIT for threads that end without having said it.
//
// A destructor of thread-specific data does it. Destructors of the program's may use binder after
// ours: then the thread is noted anew, and the C library calls us once more.

#include <pthread.h>

#include "preload.h"

enum { USED_MAX = 8 }; // files of one thread; binderd notices the end of a thread by itself, later

struct used {
	int fd;
	struct file_id id;
};

static __thread struct used used[USED_MAX] __attribute__((tls_model("initial-exec")));
static __thread unsigned used_count __attribute__((tls_model("initial-exec")));
static pthread_key_t key;
static bool has_key;

static bool is_entry(const struct used *entry, int fd, const struct file_id *id)
{
	return same_file(&entry->id, id) && (!id->is_shared || entry->fd == fd);
}

static void thread_ends(void *ignored)
{
	(void)ignored;
	while (used_count > 0) {
		struct used last = used[--used_count];
		struct file_id id;
		int32_t zero = 0;

		if (identify(last.fd, &id) && same_file(&id, &last.id))
			next_ioctl(last.fd, BINDER_THREAD_EXIT, &zero);
	}
}

void thread_start(void)
{
	has_key = pthread_key_create(&key, thread_ends) == 0;
}

// Notes that this thread has used a file of binderd's.
void thread_used(int fd, const struct file_id *id)
{
	for (unsigned i = 0; i < used_count; i++)
		if (is_entry(&used[i], fd, id)) {
			used[i].fd = fd;
			return;
		}
	if (!has_key || used_count == USED_MAX)
		return;
	if (used_count == 0 && pthread_setspecific(key, used) != 0)
		return;
	used[used_count].fd = fd;
	used[used_count].id = *id;
	used_count++;
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
			used[i] = used[--used_count];
			return;
		}
}

// For a child: its only thread has used nothing.
void thread_forget(void)
{
	used_count = 0;
}
