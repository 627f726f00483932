// SPDX-License-Identifier: Apache-2.0
// workers.c - one program, the roles of "binderctl stress": see usage below.

#define _GNU_SOURCE
#include "workers.h"

#include "board.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { FIRST_WAIT_NS = 50000, LAST_WAIT_NS = 20000000, STACK_SIZE = 128 << 10 };

void (*on_return)(struct port *port, uint32_t word, const void *payload);

void port_handle(struct port *port, uint32_t word, const void *payload)
{
	on_return(port, word, payload);
}

int run_looper(struct port *port, uint32_t enter)
{
	unsigned char payload[PAYLOAD_MAX];

	port_queue(port, enter, "");
	for (;;) {
		uint32_t word = port_next(port, payload);

		on_return(port, word, payload);
	}
}

void handle_references(struct port *port, uint32_t word, const void *payload)
{
	if (word == BR_INCREFS)
		port_queue(port, BC_INCREFS_DONE, payload);
	else if (word == BR_ACQUIRE)
		port_queue(port, BC_ACQUIRE_DONE, payload);
}

void start_thread(void *(*function)(void *), void *argument)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_SIZE);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &attributes, function, argument);
	if (error) {
		fprintf(stderr, "stress worker: no thread: %s\n", strerror(error));
		_exit(3);
	}
}

void wait_for_the_end(void)
{
	char byte;

	while (read(STDIN_FILENO, &byte, 1) > 0 || errno == EINTR)
		errno = 0;
}

unsigned count_files(void)
{
	DIR *directory = opendir("/proc/self/fd");
	unsigned count = 0;

	while (directory && readdir(directory))
		count++;
	if (directory)
		closedir(directory);
	return count;
}

void *allocate(size_t size)
{
	void *memory = calloc(1, size);

	if (!memory) {
		fputs("stress worker: no memory\n", stderr);
		_exit(3);
	}
	return memory;
}

void back_off(uint64_t *wait_ns)
{
	*wait_ns = *wait_ns ? *wait_ns * 2 : FIRST_WAIT_NS;
	if (*wait_ns > LAST_WAIT_NS)
		*wait_ns = LAST_WAIT_NS;
	add(&self->backoff_ns, *wait_ns);
	pause_ns(*wait_ns);
}

// One that has the device open, and waits.
int run_idle(void)
{
	static struct port port;

	port_queue(&port, BC_ENTER_LOOPER, "");
	port_flush(&port);
	puts("ready");
	fflush(stdout);
	on_return = handle_references;
	return run_looper(&port, BC_ENTER_LOOPER);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "layout")) {
		board_print_layout();
		return 0;
	}
	if (argc != 6) {
		fputs("for binderctl stress: layout | ROLE DEVICE BOARD NUMBER LIFE\n", stderr);
		return 2;
	}
	board_open(atoi(argv[3]));
	prctl(PR_SET_PDEATHSIG, SIGKILL); // nothing outlives binderctl
	if ((uint64_t)getppid() != board->run)
		return 3;
	if (!strcmp(argv[1], "server") || !strcmp(argv[1], "client"))
		board_be((unsigned)atoi(argv[4]), strtoull(argv[5], NULL, 10));
	port_open(argv[2]);
	message_prepare(board->seed, board->payload_max);
	if (!strcmp(argv[1], "registry"))
		return run_registry();
	if (!strcmp(argv[1], "server"))
		return run_server();
	return !strcmp(argv[1], "client") ? run_client() : run_idle();
}
