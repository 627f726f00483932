// SPDX-License-Identifier: Apache-2.0
// porter.c - sends and receives descriptors as a program does that knows the driver and no more.
//
//   porter DEVICE serve           the context manager of the device; prints "ready"
//   porter DEVICE pool HOW        the same with eight threads; HOW "close": another one closes all
//                                 high numbers again and again, by direct system calls
//   porter DEVICE ask WHAT [FILE...]    calls it with the FILEs, opened; prints what it answers
//   porter DEVICE repeat COUNT FILE     calls it so often; prints how often it was answered right
//
// What it does with a call is its code, a letter:
//
//   r  the numbers and first bytes of the files that came, which it then closes
//   k  the same, but keeps them open
//   n  how many descriptors are open
//   c  close all but the device and the standard ones
//   o  the same, then open sockets of its own at their numbers; they get a letter to receive
//   l  let no descriptor be free
//   u  let descriptors be free again
//   f  fork: the child takes the next call, and ends
//   t  receive the letter in one of the sockets of its own

#include <dirent.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "plain.h"

enum { FILES_MAX = 600, TEXT_SIZE = 8192, HIGHEST = 1100 };

static int fd;
static int own_socket = -1;
static struct rlimit usual;

static int count_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(directory) != NULL)
		count++;
	closedir(directory);
	return count - 3; // ".", "..", and the directory's own
}

static void close_all(void)
{
	for (int i = 3; i < HIGHEST; i++)
		if (i != fd)
			close(i);
}

// Puts a socket at every number; in each waits a letter that is nobody else's business.
static void occupy_all(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0 || send(pair[1], "mine", 4, 0) < 0)
		fail("socketpair");
	own_socket = pair[0];
	while (dup(own_socket) >= 0)
		;
	for (int i = HIGHEST; i > HIGHEST - 200; i--) // but leave some numbers free
		close(i);
	for (int i = 700; i < 720; i++)
		close(i);
}

static size_t take_letter(char *text)
{
	ssize_t size = recv(own_socket, text, TEXT_SIZE, MSG_DONTWAIT);

	return size < 0 ? (size_t)sprintf(text, "gone: %s", strerror(errno)) : (size_t)size;
}

static void limit_descriptors(bool none_free)
{
	struct rlimit limit = usual;

	if (none_free) {
		int lowest = dup(0);

		close(lowest);
		limit.rlim_cur = (rlim_t)lowest;
	}
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		fail("setrlimit");
}

// Describes the descriptors of a call: each stands in an object of its own.
static size_t describe(const transaction *call, char *text, bool keep)
{
	const binder_size_t *offsets = (const void *)(uintptr_t)call->data.ptr.offsets;
	size_t size = 0;

	for (size_t i = 0; i < call->offsets_size / sizeof *offsets; i++) {
		struct binder_fd_object object;
		char start[9] = "";

		memcpy(&object, data_of(call) + offsets[i], sizeof object);
		if (pread((int)object.fd, start, sizeof start - 1, 0) < 0)
			strcpy(start, "?");
		size += (size_t)snprintf(text + size, TEXT_SIZE - size, "%s%u:%s", i ? " " : "",
					 object.fd, start);
		if (!(fcntl((int)object.fd, F_GETFD) & FD_CLOEXEC))
			fail("not close-on-exec");
		if (!keep)
			close((int)object.fd);
	}
	return size;
}

// A child has no receive area to look into: it looks for what has come to the lowest free number.
static void serve_one_in_child(void)
{
	int lowest = dup(0);
	char start[9] = "", text[32];
	transaction call;
	int size;

	close(lowest);
	if (receive(fd, &call) != BR_TRANSACTION)
		fail("no call");
	if (pread(lowest, start, sizeof start - 1, 0) < 0)
		fail("nothing has come");
	size = sprintf(text, "child %d:%s", lowest, start);
	free_buffer(fd, &call);
	reply(fd, text, (size_t)size);
	_exit(0);
}

static void serve_one(void)
{
	char text[TEXT_SIZE] = "ok";
	size_t size = 2;
	transaction call;
	pid_t child = 0;
	bool is_fork;

	if (receive(fd, &call) != BR_TRANSACTION)
		fail("no call");
	is_fork = call.code == 'f';
	if (call.code == 'r' || call.code == 'k')
		size = describe(&call, text, call.code == 'k');
	else if (call.code == 'n')
		size = (size_t)sprintf(text, "%d", count_descriptors());
	else if (call.code == 'c' || call.code == 'o')
		close_all();
	else if (call.code == 'l' || call.code == 'u')
		limit_descriptors(call.code == 'l');
	else if (call.code == 't')
		size = take_letter(text);
	if (call.code == 'o')
		occupy_all();
	free_buffer(fd, &call);
	reply(fd, text, size);
	if (is_fork && (child = fork()) == 0)
		serve_one_in_child();
	if (child > 0 && waitpid(child, NULL, 0) != child)
		fail("waitpid");
}

static void become_manager(void)
{
	struct flat_binder_object node = { .hdr.type = BINDER_TYPE_BINDER,
					   .flags = FLAT_BINDER_FLAG_ACCEPTS_FDS };

	if (getrlimit(RLIMIT_NOFILE, &usual) < 0)
		fail("getrlimit");
	if (ioctl(fd, BINDER_SET_CONTEXT_MGR_EXT, &node) < 0)
		fail("BINDER_SET_CONTEXT_MGR_EXT");
	puts("ready");
	fflush(stdout);
}

static void *serve(void *ignored)
{
	(void)ignored;
	write_command(fd, BC_ENTER_LOOPER, "");
	for (;;)
		serve_one();
	return NULL;
}

static void serve_with_pool(bool closes)
{
	pthread_t thread;

	become_manager();
	for (int i = 0; i < 8; i++)
		if (pthread_create(&thread, NULL, serve, NULL) != 0)
			fail("pthread_create");
	for (;;) {
		usleep(2000);
		for (int i = 900; closes && i < 1024; i++)
			syscall(SYS_close, i);
	}
}

// Calls with descriptors of files; returns the word that came back.
static uint32_t send_files(int code, char **files, int count, transaction *answer)
{
	static struct binder_fd_object objects[FILES_MAX];
	static binder_size_t offsets[FILES_MAX];
	transaction call = { .code = (uint32_t)code,
			     .data_size = (size_t)count * sizeof objects[0],
			     .data.ptr.buffer = (binder_uintptr_t)objects,
			     .offsets_size = (size_t)count * sizeof offsets[0],
			     .data.ptr.offsets = (binder_uintptr_t)offsets };

	for (int i = 0; i < count; i++) {
		int file = open(files[i], O_RDONLY);

		if (file < 0)
			fail(files[i]);
		objects[i] = (struct binder_fd_object){ .hdr.type = BINDER_TYPE_FD,
							.fd = (uint32_t)file };
		offsets[i] = (binder_size_t)i * sizeof objects[0];
	}
	write_command(fd, BC_TRANSACTION, &call);
	for (int i = 0; i < count; i++)
		close((int)objects[i].fd);
	return receive(fd, answer);
}

static void ask(int code, char **files, int count)
{
	transaction answer;
	uint32_t word = send_files(code, files, count, &answer);

	if (word != BR_REPLY)
		printf("%s\n", word == BR_FAILED_REPLY ? "failed" : "dead");
	else
		printf("%.*s\n", (int)answer.data_size, data_of(&answer));
}

static void repeat(int count, char *file)
{
	const char *name = strrchr(file, '/') + 1;
	size_t size = strlen(name);
	int right = 0;

	for (int i = 0; i < count; i++) {
		transaction answer;

		if (send_files('r', &file, 1, &answer) != BR_REPLY)
			continue;
		if (answer.data_size > size &&
		    !memcmp(data_of(&answer) + answer.data_size - size, name, size))
			right++;
		free_buffer(fd, &answer);
	}
	printf("%d\n", right);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	fd = open_device(argv[1]);
	if (strcmp(argv[2], "serve") == 0) {
		become_manager();
		serve(NULL);
	} else if (strcmp(argv[2], "pool") == 0 && argc == 4) {
		serve_with_pool(strcmp(argv[3], "close") == 0);
	} else if (strcmp(argv[2], "repeat") == 0 && argc == 5) {
		repeat(atoi(argv[3]), argv[4]);
	} else if (strcmp(argv[2], "ask") == 0 && argc > 3) {
		ask(argv[3][0], argv + 4, argc - 4);
	}
	return 0;
}
