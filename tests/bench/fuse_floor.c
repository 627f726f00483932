// SPDX-License-Identifier: Apache-2.0
// fuse_floor.c - the least that two FUSE ioctls can cost, with a C daemon that only answers them.
//
//   fuse_floor call DIRECTORY 0 SECONDS      mounts there, measures pairs, prints one line of JSON
//
// A binder round trip is two ioctls, one of the caller and one of the server, hence the pair. The
// mount is made in a mount namespace of our own: it goes with the last of the two processes,
// however they end.

#include "bench.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILE_NODE = FUSE_ROOT_ID + 1, MAX_WRITE_BYTES = 4096 };

struct argument {
	unsigned char bytes[48]; // as large as a struct binder_write_read
};
#define NOOP_IOCTL _IOWR('b', 1, struct argument)

static void answer(int fd, uint64_t unique, int error, const void *body, size_t size)
{
	struct fuse_out_header head = {
		.len = (uint32_t)(sizeof head + size),
		.error = -error,
		.unique = unique,
	};
	struct iovec parts[] = { { &head, sizeof head }, { (void *)body, size } };

	// ENOENT: the request was given up in the meantime, nobody waits for its answer.
	if (writev(fd, parts, 2) < 0 && errno != ENOENT)
		die("answering");
}

static struct fuse_attr attributes_of(uint64_t node)
{
	return (struct fuse_attr){
		.ino = node,
		.nlink = 1,
		.mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0600,
	};
}

static void answer_init(int fd, uint64_t unique)
{
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.max_write = MAX_WRITE_BYTES,
	};
	answer(fd, unique, 0, &out, sizeof out);
}

static void answer_ioctl(int fd, uint64_t unique, const struct fuse_ioctl_in *in)
{
	struct {
		struct fuse_ioctl_out head;
		struct argument argument;
	} out = { .head.result = 0 };

	if (in->in_size != sizeof out.argument || in->out_size != sizeof out.argument) {
		answer(fd, unique, EINVAL, NULL, 0);
		return;
	}
	memcpy(&out.argument, in + 1, sizeof out.argument);
	answer(fd, unique, 0, &out, sizeof out);
}

static void handle(int fd, const struct fuse_in_header *in)
{
	struct fuse_entry_out entry = { .nodeid = FILE_NODE, .attr = attributes_of(FILE_NODE) };
	struct fuse_attr_out attributes = { .attr = attributes_of(in->nodeid) };
	struct fuse_open_out opened = { .open_flags = FOPEN_DIRECT_IO };

	switch (in->opcode) {
	case FUSE_IOCTL:
		return answer_ioctl(fd, in->unique, (const void *)(in + 1));
	case FUSE_INIT:
		return answer_init(fd, in->unique);
	case FUSE_LOOKUP:
		return answer(fd, in->unique, 0, &entry, sizeof entry);
	case FUSE_GETATTR:
		return answer(fd, in->unique, 0, &attributes, sizeof attributes);
	case FUSE_OPEN:
		return answer(fd, in->unique, 0, &opened, sizeof opened);
	case FUSE_FLUSH:
	case FUSE_RELEASE:
		return answer(fd, in->unique, 0, NULL, 0);
	case FUSE_FORGET: // these three expect no answer
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		return;
	default:
		return answer(fd, in->unique, ENOSYS, NULL, 0);
	}
}

// Until the file system is unmounted.
static void serve(int fd)
{
	static _Alignas(8) unsigned char request[MAX_WRITE_BYTES + FUSE_MIN_READ_BUFFER];

	for (;;) {
		ssize_t got = read(fd, request, sizeof request);
		if (got > 0)
			handle(fd, (const void *)request);
		else if (errno == ENODEV)
			return;
		else if (errno != EINTR && errno != EAGAIN && errno != ENOENT)
			die("reading /dev/fuse");
	}
}

// Mounts on `directory`, for this process and its children only; returns the daemon's end.
static int mount_privately(const char *directory)
{
	char options[64];
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		die("/dev/fuse");
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		die("a mount namespace of our own");
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	if (mount("fuse_floor", directory, "fuse", MS_NOSUID | MS_NODEV, options) < 0)
		die("mount");
	return fd;
}

static const void *call_twice(void *peer, const void *payload, size_t size)
{
	static struct argument argument;

	(void)size;
	for (int i = 0; i < 2; i++)
		if (ioctl(*(int *)peer, NOOP_IOCTL, &argument) < 0)
			die("ioctl");
	return payload;
}

int main(int argc, char **argv)
{
	char path[4096];

	if (argc != 5 || strcmp(argv[1], "call") || parse_size(argv[3]) != 0)
		die_saying("usage: fuse_floor call DIRECTORY 0 SECONDS");
	double seconds = parse_seconds(argv[4]);
	int fuse = mount_privately(argv[2]);
	pid_t daemon = fork();
	if (daemon < 0)
		die("fork");
	if (daemon == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(fuse);
		return 0;
	}
	close(fuse);
	snprintf(path, sizeof path, "%s/noop", argv[2]);
	int file = open(path, O_RDWR | O_CLOEXEC);
	if (file < 0)
		die(path);
	bench_watch(daemon);
	bench_echo(call_twice, &file, 0, seconds);
	close(file);
	umount2(argv[2], MNT_DETACH);
	waitpid(daemon, NULL, 0);
	return 0;
}
