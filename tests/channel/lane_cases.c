// SPDX-License-Identifier: Apache-2.0
// lane_cases.c - binderd_lane.h, used as it should be; C as well as C++.
//
//	lane_cases DEVICE serve       becomes context manager, says "up", sends back what it gets
//	lane_cases DEVICE CASE        says what has come of a case, see below

#define BINDERD_LANE_IOCTL counted_ioctl

static int counted_ioctl(int fd, unsigned long request, const void *argument);

#include "binderd_lane.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>

typedef struct binder_transaction_data transaction;

static struct binderd_thread_lane lane;
static int fd;
static volatile int handled, plain_calls, enters, leaves;
static volatile int signal_while_looking; // sent when the thread begins to look

static int counted_ioctl(int file, unsigned long request, const void *argument)
{
	plain_calls += request == BINDER_WRITE_READ;
	enters += request == BINDERD_ENTER;
	leaves += request == BINDERD_LEAVE;
	return ioctl(file, request, argument);
}

// Instead of the C library's: who looks wants to know for how long.
int clock_gettime(clockid_t clock, struct timespec *now)
{
	int number = signal_while_looking;

	signal_while_looking = 0;
	if (number)
		kill(getpid(), number);
	return (int)syscall(SYS_clock_gettime, clock, now);
}

static void fail(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

static struct binder_write_read request(const void *commands, size_t size, void *in, size_t room)
{
	struct binder_write_read bwr;

	memset(&bwr, 0, sizeof bwr);
	bwr.write_size = size;
	bwr.write_buffer = (uintptr_t)commands;
	bwr.read_size = room;
	bwr.read_buffer = (uintptr_t)in;
	return bwr;
}

// Sends one command, if there is a word, and reads until a transaction or a reply has come.
static int exchange(uint32_t word, const void *payload, transaction *found)
{
	unsigned char out[128], in[256];
	size_t size = word ? sizeof word + _IOC_SIZE(word) : 0;

	memcpy(out, &word, sizeof word);
	memcpy(out + sizeof word, payload, _IOC_SIZE(word));
	for (;;) {
		struct binder_write_read bwr = request(out, size, in, found ? sizeof in : 0);

		while (binderd_lane_write_read(&lane, &bwr) < 0)
			if (errno != EINTR)
				fail("BINDER_WRITE_READ");
		size = 0;
		if (!found)
			return 1;
		for (size_t at = 0; at < bwr.read_consumed; at += _IOC_SIZE(word)) {
			memcpy(&word, in + at, sizeof word);
			at += sizeof word;
			if (word == BR_TRANSACTION || word == BR_REPLY)
				memcpy(found, in + at, sizeof *found);
			if (word == BR_TRANSACTION || word == BR_REPLY)
				return 1;
			if (word == BR_DEAD_REPLY || word == BR_FAILED_REPLY)
				return 0;
		}
	}
}

static transaction message(const void *data, size_t size)
{
	transaction sent;

	memset(&sent, 0, sizeof sent);
	sent.data_size = size;
	sent.data.ptr.buffer = (uintptr_t)data;
	return sent;
}

static void serve(void)
{
	struct flat_binder_object none;
	uint32_t enter = BC_ENTER_LOOPER;
	transaction found;

	memset(&none, 0, sizeof none);
	if (ioctl(fd, BINDER_SET_CONTEXT_MGR, &none) < 0)
		fail("BINDER_SET_CONTEXT_MGR");
	puts("up");
	fflush(stdout);
	exchange(enter, "", NULL);
	exchange(0, "", &found);
	for (;;) {
		char *copy = (char *)malloc(found.data_size + 1);
		binder_uintptr_t received = found.data.ptr.buffer;
		transaction reply = message(copy, found.data_size);

		memcpy(copy, (const void *)(uintptr_t)received, found.data_size);
		exchange(BC_FREE_BUFFER, &received, NULL);
		exchange(BC_REPLY, &reply, &found);
		free(copy);
	}
}

// Calls with so many bytes; returns whether they have come back.
static int echoes(size_t size)
{
	unsigned char *data = (unsigned char *)malloc(size + 1);
	transaction call = message(data, size), reply;
	int is_same = 0;

	for (size_t i = 0; i < size; i++)
		data[i] = (unsigned char)(i * 7 + size);
	if (exchange(BC_TRANSACTION, &call, &reply)) {
		binder_uintptr_t received = reply.data.ptr.buffer;

		is_same = reply.data_size == size &&
			  memcmp((const void *)(uintptr_t)received, data, size) == 0;
		exchange(BC_FREE_BUFFER, &received, NULL);
	}
	free(data);
	return is_same;
}

// Sizes that go through the lane, then those that do not, with the ioctls that each took.
static void sizes(void)
{
	static const size_t all[] = { 0, 1, 16, 4096, 15000, 16384, 100000 };

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		int before = plain_calls;
		int is_same = echoes(all[i]);

		printf("%zu %s %d\n", all[i], is_same ? "same" : "differs", plain_calls - before);
	}
}

static void on_signal(int number)
{
	(void)number;
	handled++;
}

static void on_signal_ask(int number)
{
	uint32_t leave = BC_EXIT_LOOPER;
	struct binder_write_read bwr = request(&leave, sizeof leave, NULL, 0);

	handled += binderd_lane_write_read(&lane, &bwr) == 0 && number && bwr.write_consumed == 4;
}

static void handle(int number, void (*handler)(int))
{
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_handler = handler;
	action.sa_flags = SA_RESTART; // makes no difference to the driver either
	sigaction(number, &action, NULL);
}

static void alarm_after_ms(int ms)
{
	struct itimerval timer;

	memset(&timer, 0, sizeof timer);
	timer.it_value.tv_usec = ms * 1000;
	setitimer(ITIMER_REAL, &timer, NULL);
}

// Reads where nothing comes; says how that ended.
static void read_in_vain(void)
{
	unsigned char in[64];
	struct binder_write_read bwr = request(NULL, 0, in, sizeof in);
	int result = binderd_lane_write_read(&lane, &bwr);

	printf("%d %s, handled %d, left %s\n", result, result < 0 ? strerror(errno) : "",
	       (int)handled, leaves ? "yes" : "no");
}

static void signals(void)
{
	uint32_t enter = BC_ENTER_LOOPER;

	handle(SIGALRM, on_signal);
	handle(SIGUSR1, on_signal);
	exchange(enter, "", NULL);
	echoes(1); // what it brings back has no use for a looper: the next read waits
	alarm_after_ms(300);
	read_in_vain();
	signal_while_looking = SIGUSR1;
	read_in_vain();
	leaves = 0;
	signal_while_looking = SIGCHLD; // ignored: the alarm has to come
	alarm_after_ms(300);
	read_in_vain();
	handle(SIGALRM, on_signal_ask);
	alarm_after_ms(300);
	read_in_vain();
	printf("%d\n", echoes(16));
}

static void say_how(int is_same)
{
	printf("%s by %s\n", is_same ? "same" : "differs", plain_calls ? "ioctls" : "a lane");
}

static void child(void)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		uint32_t leave = BC_EXIT_LOOPER;

		plain_calls = 0;
		exchange(leave, "", NULL);
		binderd_lane_close(&lane);
		_exit(plain_calls);
	}
	waitpid(pid, &status, 0);
	printf("%d\n", WEXITSTATUS(status));
	plain_calls = 0;
	say_how(echoes(16));
}

// After BINDER_THREAD_EXIT there is no lane; a new one can be made.
static void again(void)
{
	int32_t none = 0;

	ioctl(fd, BINDER_THREAD_EXIT, &none);
	plain_calls = 0;
	say_how(echoes(16));
	printf("%d\n", binderd_lane_open(&lane, fd, 0));
	plain_calls = 0;
	say_how(echoes(16));
}

// What is wrong or unusual is as wrong as it is without a lane.
static void unusual(void)
{
	struct {
		uint32_t leave, sg;
		struct binder_transaction_data_sg data;
	} __attribute__((packed)) commands;
	uint32_t unknown[3] = { BC_EXIT_LOOPER, 0x12345678, BC_EXIT_LOOPER };
	struct binder_write_read bwr = request(unknown, sizeof unknown, NULL, 0);

	for (int is_lane = 1; is_lane >= 0; is_lane--) {
		bwr.write_consumed = 0;
		int result = is_lane ? binderd_lane_write_read(&lane, &bwr)
				     : ioctl(fd, BINDER_WRITE_READ, &bwr);
		printf("%d %s %d\n", result, strerror(errno), (int)bwr.write_consumed);
	}
	bwr = request(unknown, sizeof unknown, NULL, 0);
	bwr.write_consumed = 8; // goes on where it was
	int result = binderd_lane_write_read(&lane, &bwr);
	printf("%d %d\n", result, (int)bwr.write_consumed);
	memset(&commands, 0, sizeof commands);
	commands.leave = BC_EXIT_LOOPER;
	commands.sg = BC_TRANSACTION_SG;
	commands.data.transaction_data.flags = TF_ONE_WAY;
	bwr = request(&commands, sizeof commands, NULL, 0);
	result = binderd_lane_write_read(&lane, &bwr);
	printf("%d %d\n", result, bwr.write_consumed == sizeof commands);
}

int main(int argc, char **argv)
{
	const char *which = argc == 3 ? argv[2] : "";
	int is_quiet = !strcmp(which, "serve"), is_made;

	fd = argc == 3 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
	if (fd < 0 || mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		fail("the device");
	is_made = binderd_lane_open(&lane, fd, is_quiet ? BINDERD_LANE_QUIET : 0) == 0;
	if (is_quiet)
		serve();
	printf("%s\n", is_made ? "a lane" : strerror(errno));
	if (!strcmp(which, "sizes"))
		sizes();
	else if (!strcmp(which, "signals"))
		signals();
	else if (!strcmp(which, "child"))
		child();
	else if (!strcmp(which, "again"))
		again();
	else if (!strcmp(which, "unusual"))
		unusual();
	binderd_lane_close(&lane);
	return 0;
}
