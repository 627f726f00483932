// SPDX-License-Identifier: Apache-2.0
// busy.c - a client with many threads that treats its descriptors as programs do.
//
//   busy DEVICE THREADS CALLS     calls handle 0, which has to send back what it gets
//
// It calls through a duplicate after closing the first descriptor. Of the threads, those with odd
// numbers say BINDER_THREAD_EXIT with NULL, the others just end. Then a child goes on with the
// file. Prints the thread ids of the ones and the others, and "done".

#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "plain.h"

enum { THREADS_MAX = 64 };

static int fd;
static int calls;
static pid_t tids[THREADS_MAX];

static void call_once(int number, int round)
{
	char text[64];
	int size = snprintf(text, sizeof text, "thread %d, call %d", number, round);
	transaction call = { .code = 1,
			     .data_size = (size_t)size,
			     .data.ptr.buffer = (binder_uintptr_t)text };

	write_command(fd, BC_TRANSACTION, &call);
	if (receive(fd, &call) != BR_REPLY)
		fail("no reply");
	if (call.data_size != (size_t)size || memcmp(data_of(&call), text, (size_t)size) != 0)
		fail("another's reply");
	free_buffer(fd, &call);
}

static void *work(void *argument)
{
	int number = (int)(intptr_t)argument;

	tids[number] = (pid_t)syscall(SYS_gettid);
	for (int round = 0; round < calls; round++)
		call_once(number, round);
	if (number % 2 && ioctl(fd, BINDER_THREAD_EXIT, NULL) < 0)
		fail("BINDER_THREAD_EXIT");
	return NULL;
}

// A child has no receive area, but may ask, and send where no reply comes back.
static void go_on_in_child(void)
{
	transaction call = { .code = 1, .flags = TF_ONE_WAY };
	struct binder_version version = { 0 };
	int status;
	pid_t child = fork();

	if (child < 0)
		fail("fork");
	if (child == 0) {
		if (ioctl(fd, BINDER_VERSION, &version) < 0 || version.protocol_version != 8)
			fail("BINDER_VERSION in the child");
		write_command(fd, BC_TRANSACTION, &call);
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || status != 0)
		fail("the child failed");
}

int main(int argc, char **argv)
{
	int first = argc == 4 ? open_device(argv[1]) : -1;
	int count = argc == 4 ? atoi(argv[2]) : 0;
	pthread_t threads[THREADS_MAX];

	calls = argc == 4 ? atoi(argv[3]) : 0;
	fd = dup(first);
	if (fd < 0 || close(first) < 0 || count < 1 || count > THREADS_MAX)
		fail("usage: busy DEVICE THREADS CALLS");
	for (intptr_t i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, work, (void *)i) != 0)
			fail("pthread_create");
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	call_once(count, 0);
	go_on_in_child();
	call_once(count, 1);
	for (int i = 0; i < count; i++)
		printf("%s %d\n", i % 2 ? "said" : "ended", (int)tids[i]);
	puts("done");
	return 0;
}
