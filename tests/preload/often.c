// SPDX-License-Identifier: Apache-2.0
// often.c - a client that a library may give lanes to, and that must not be able to tell.
//
//   often DEVICE CASE [ANOTHER]     calls handle 0, which has to send back what it gets
//
// Prints what has come of the case, and in the end how many lanes there are in its memory. Link it
// with -rdynamic: its clock is the library's.

#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "plain.h"

static int fd;
static volatile int handled, signal_while_looking;
static sigjmp_buf back;

// Who looks for an answer asks for the time before; signals are blocked then.
int clock_gettime(clockid_t clock, struct timespec *now)
{
	int number = clock == CLOCK_MONOTONIC ? signal_while_looking : 0;

	if (number) {
		signal_while_looking = 0;
		kill(getpid(), number);
	}
	return (int)syscall(SYS_clock_gettime, clock, now);
}

static unsigned count_lanes(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned count = 0;

	while (maps && fgets(line, sizeof line, maps))
		count += strstr(line, "memfd:lane") != NULL;
	if (maps)
		fclose(maps);
	return count;
}

static bool echoes(int file, const char *text)
{
	transaction call = { .data_size = strlen(text), .data.ptr.buffer = (uintptr_t)text };
	bool is_same;

	write_command(file, BC_TRANSACTION, &call);
	if (receive(file, &call) != BR_REPLY)
		return false;
	is_same = call.data_size == strlen(text) && !memcmp(data_of(&call), text, strlen(text));
	free_buffer(file, &call);
	return is_same;
}

static void say(int result)
{
	printf("%d %s\n", result, result < 0 ? strerror(errno) : "");
}

static void say_read(void)
{
	unsigned char in[64];
	struct binder_write_read bwr = { .read_size = sizeof in, .read_buffer = (uintptr_t)in };
	int result = ioctl(fd, BINDER_WRITE_READ, &bwr);

	printf("%d %s, read %d, handled %d\n", result, result < 0 ? strerror(errno) : "",
	       (int)bwr.read_consumed, handled);
}

static void count(int number)
{
	(void)number;
	handled++;
}

static void ask(int number)
{
	struct binder_version version = { 0 };
	uint32_t command = BC_EXIT_LOOPER;
	struct binder_write_read bwr = { .write_size = 4, .write_buffer = (uintptr_t)&command };

	handled += number == SIGALRM && ioctl(fd, BINDER_WRITE_READ, &bwr) == 0 &&
		   bwr.write_consumed == 4 && ioctl(fd, BINDER_VERSION, &version) == 0;
}

static void leave(int number)
{
	ask(number);
	if (ioctl(fd, BINDER_THREAD_EXIT, NULL) < 0)
		fail("BINDER_THREAD_EXIT");
}

static void jump(int number)
{
	siglongjmp(back, number);
}

static void handle(int number, void (*handler)(int))
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };

	sigaction(number, &action, NULL);
}

static void read_with_alarm(void (*handler)(int))
{
	struct itimerval timer = { .it_value.tv_usec = 200000 };

	handle(SIGALRM, handler);
	setitimer(ITIMER_REAL, &timer, NULL);
	say_read();
}

static void signals(void)
{
	uint32_t enter = BC_ENTER_LOOPER;

	write_command(fd, enter, "");
	handle(SIGUSR1, count);
	read_with_alarm(count);
	signal_while_looking = SIGUSR1; // where nobody looks it comes as soon as somebody calls
	say_read();
	signal_while_looking = SIGCHLD; // ignored
	read_with_alarm(count);
	read_with_alarm(ask);
	read_with_alarm(leave);
	write_command(fd, enter, "");
	if (sigsetjmp(back, 1) == 0)
		read_with_alarm(jump);
	printf("%d\n", echoes(fd, "after a jump"));
}

static void children(void)
{
	transaction call = { .flags = TF_ONE_WAY };
	uint32_t leave_now = BC_EXIT_LOOPER;
	int status;

	for (int is_raw = 0; is_raw < 2; is_raw++) {
		pid_t child = is_raw ? (pid_t)syscall(SYS_fork) : fork();

		if (child == 0) {
			write_command(fd, leave_now, "");
			write_command(fd, BC_TRANSACTION, &call);
			_exit(7);
		}
		waitpid(child, &status, 0);
		printf("%d %d\n", WEXITSTATUS(status), echoes(fd, "and we"));
	}
}

struct waiting {
	struct binder_write_read bwr;
	pthread_t thread;
	unsigned char in[64];
};

// Takes away what a thread waits with, and wakes it.
static void *take_away(void *memory)
{
	pthread_t thread = ((struct waiting *)memory)->thread;

	usleep(100000);
	munmap(memory, 4096);
	pthread_kill(thread, SIGUSR1);
	return NULL;
}

static void wait_without_memory(void)
{
	struct waiting *waiting = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t enter = BC_ENTER_LOOPER;
	pthread_t thread;

	handle(SIGUSR1, count);
	write_command(fd, enter, "");
	waiting->thread = pthread_self();
	waiting->bwr.read_size = sizeof waiting->in;
	waiting->bwr.read_buffer = (uintptr_t)waiting->in;
	pthread_create(&thread, NULL, take_away, waiting);
	say(ioctl(fd, BINDER_WRITE_READ, &waiting->bwr));
	pthread_join(thread, NULL);
}

// Memory that was there, and is not there any more when the clock has ticked.
static void memory(void)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	transaction call = { .data_size = 8, .data.ptr.buffer = (uintptr_t)page };
	struct binder_write_read bwr = { .read_size = 64, .read_buffer = (uintptr_t)page };

	for (int i = 0; i < 3; i++) {
		write_command(fd, BC_TRANSACTION, &call);
		if (receive(fd, &call) != BR_REPLY)
			fail("no reply");
		free_buffer(fd, &call);
		call = (transaction){ .data_size = 8, .data.ptr.buffer = (uintptr_t)page };
	}
	mprotect(page, 4096, PROT_READ);
	usleep(20000);
	say(ioctl(fd, BINDER_WRITE_READ, &bwr));
	say(ioctl(fd, BINDER_WRITE_READ, page));
	munmap(page, 4096);
	usleep(20000);
	write_command(fd, BC_TRANSACTION, &call);
	printf("%d\n", receive(fd, &call) == BR_FAILED_REPLY);
	say(ioctl(fd, BINDER_WRITE_READ, page));
	say(ioctl(fd, BINDER_WRITE_READ, NULL));
	wait_without_memory();
	printf("%d\n", echoes(fd, "still"));
}

static void *call_some(void *unused)
{
	for (int i = 0; i < 10; i++)
		if (!echoes(fd, "from a thread"))
			fail("no echo");
	return unused;
}

static void threads(void)
{
	for (int i = 0; i < 50; i++) {
		pthread_t thread;

		pthread_create(&thread, NULL, call_some, NULL);
		pthread_join(thread, NULL);
	}
}

// Two files in turn, and each under a new number now and then.
static void files(const char *path)
{
	int other = open_device(path), good = 0;

	for (int i = 0; i < 30; i++) {
		good += echoes(fd, "one") + echoes(other, "another");
		if (i % 10 == 9) {
			int copy = dup(other);

			close(other);
			other = copy;
		}
	}
	for (int i = 0; i < 20; i++) { // more than a thread is remembered for
		close(other);
		other = open_device(path);
		good += echoes(other, "once more");
	}
	close(other);
	printf("%d\n", good);
}

// No file of ours may grow; a larger one would be a signal.
static void limits(void)
{
	struct rlimit small = { 1000, 1000 };

	setrlimit(RLIMIT_FSIZE, &small);
	printf("%d\n", echoes(fd, "no file"));
}

// A filter that ends who makes a memfd.
static void filter(void)
{
	struct sock_filter rules[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof rules / sizeof rules[0], rules };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		fail("a filter");
	printf("%d\n", echoes(fd, "filtered"));
}

int main(int argc, char **argv)
{
	const char *which = argc > 2 ? argv[2] : "";

	fd = open_device(argv[1]);
	if (!strcmp(which, "signals"))
		signals();
	else if (!strcmp(which, "children"))
		children();
	else if (!strcmp(which, "memory"))
		memory();
	else if (!strcmp(which, "threads"))
		threads();
	else if (!strcmp(which, "files") && argc == 4)
		files(argv[3]);
	else if (!strcmp(which, "limits"))
		limits();
	else if (!strcmp(which, "filter"))
		filter();
	printf("lanes %u\n", count_lanes());
	return 0;
}
