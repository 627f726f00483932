// SPDX-License-Identifier: Apache-2.0
// socket_echo.c - ping-pong of two processes over a Unix stream socket pair: nobody in between.
//
//   socket_echo call SIZE SECONDS            forks the other side, prints one line of JSON

#include "bench.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct caller {
	int fd;
	unsigned char *reply;
};

// False when the other side has closed.
static bool read_all(int fd, unsigned char *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t got = read(fd, data + done, size - done);
		if (got == 0 || (got < 0 && errno == ECONNRESET))
			return false;
		if (got < 0)
			die("read");
		done += (size_t)got;
	}
	return true;
}

static void write_all(int fd, const unsigned char *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t put = write(fd, data + done, size - done);
		if (put < 0)
			die("write");
		done += (size_t)put;
	}
}

static const void *call(void *peer, const void *payload, size_t size)
{
	struct caller *caller = peer;

	write_all(caller->fd, payload, size);
	if (!read_all(caller->fd, caller->reply, size))
		die_saying("the echoing side is gone");
	return caller->reply;
}

int main(int argc, char **argv)
{
	int pair[2];

	if (argc != 4 || strcmp(argv[1], "call"))
		die_saying("usage: socket_echo call SIZE SECONDS");
	size_t size = parse_size(argv[2]);
	unsigned char *buffer = allocate(size + 1);
	if (size == 0)
		die_saying("a stream cannot carry an empty message");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		die("socketpair");
	pid_t child = fork();
	if (child < 0)
		die("fork");
	close(pair[child != 0]);
	if (child == 0) {
		while (read_all(pair[1], buffer, size))
			write_all(pair[1], buffer, size);
		return 0;
	}
	struct caller caller = { .fd = pair[0], .reply = buffer };
	bench_watch(child);
	bench_echo(call, &caller, size, parse_seconds(argv[3]));
	close(pair[0]);
	waitpid(child, NULL, 0);
	free(buffer);
	return 0;
}
