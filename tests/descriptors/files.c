// SPDX-License-Identifier: Apache-2.0
// files.c - programs that send and receive files and know only the kernel's binder ABI.
//
//   files serve DEVICE [OPTION...]       context manager; answers each call with the file it got
//   files call DEVICE COUNT FILES        so many calls with so many files each; prints the time
//   files churn COUNTERS DEVICE...       calls to all of them, until told to stop
//
// A call's data is an int64 and then FD objects, or with code 2 one array of descriptors. Every file
// holds the int64, so that both sides can tell that they have the right one.
//
// Options of serve:
//   threads     four other threads run all the while
//   signals     a timer's signal arrives every 300 us
//   seccomp     a filter would kill the program for most calls that it does not make itself
//   patient     EINTR is taken for a failure, and registers must be as the kernel leaves them

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/android/binder.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define AREA_BYTES (256 << 10)
#define FILES_MAX 300
#define CODE_OBJECTS 1
#define CODE_ARRAY 2

static bool patient;
static atomic_long signals_seen, turns;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "files[%d]: %s: %s\n", getpid(), what, strerror(errno));
	exit(1);
}

static _Noreturn void die_saying(const char *what)
{
	fprintf(stderr, "files[%d]: %s\n", getpid(), what);
	exit(1);
}

#ifdef __x86_64__
// An ioctl that finds out whether a register or the red zone is not as it was.
static long checked_ioctl(int fd, unsigned long request, void *argument)
{
	long result;
	unsigned long changed;

	__asm__ volatile("mov $0x1111, %%rbx\n\tmov $0x2222, %%r12\n\tmov $0x3333, %%r13\n\t"
			 "mov $0x4444, %%r14\n\tmov $0x5555, %%r15\n\tmov $0x6666, %%r8\n\t"
			 "mov $0x7777, %%r9\n\tmov $0x8888, %%r10\n\t"
			 "sub $256, %%rsp\n\tmovq $0x9999, 120(%%rsp)\n\tadd $128, %%rsp\n\t"
			 "syscall\n\t"
			 "sub $128, %%rsp\n\tmov 120(%%rsp), %%rcx\n\tadd $256, %%rsp\n\t"
			 "xor $0x9999, %%rcx\n\txor $0x1111, %%rbx\n\tor %%rbx, %%rcx\n\t"
			 "xor $0x2222, %%r12\n\tor %%r12, %%rcx\n\txor $0x3333, %%r13\n\t"
			 "or %%r13, %%rcx\n\txor $0x4444, %%r14\n\tor %%r14, %%rcx\n\t"
			 "xor $0x5555, %%r15\n\tor %%r15, %%rcx\n\txor $0x6666, %%r8\n\t"
			 "or %%r8, %%rcx\n\txor $0x7777, %%r9\n\tor %%r9, %%rcx\n\t"
			 "xor $0x8888, %%r10\n\tor %%r10, %%rcx\n\t"
			 : "=a"(result), "=c"(changed), "+D"(fd), "+S"(request), "+d"(argument)
			 : "a"((long)SYS_ioctl)
			 : "rbx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
	if (changed)
		die_saying("a register has changed");
	if (result < 0 && result > -4096) {
		errno = -result;
		return -1;
	}
	return result;
}
#else
#define checked_ioctl ioctl
#endif

// Writes, then waits for something to read.
static size_t write_read(int fd, const void *out, size_t out_size, void *in, size_t in_size)
{
	struct binder_write_read bwr = {
		.write_size = out_size,
		.write_buffer = (binder_uintptr_t)out,
		.read_size = in_size,
		.read_buffer = (binder_uintptr_t)in,
	};
	while ((patient ? checked_ioctl(fd, BINDER_WRITE_READ, &bwr) :
			  ioctl(fd, BINDER_WRITE_READ, &bwr)) < 0)
		if (errno != EINTR || patient)
			die("BINDER_WRITE_READ");
	return bwr.read_consumed;
}

// Writes all of it: what follows a reply that has failed is taken only once that has been read.
static void write_all(int fd, const void *out, size_t size)
{
	struct binder_write_read bwr = { .write_size = size, .write_buffer = (binder_uintptr_t)out };
	unsigned char in[80]; // too small for more than the news of that reply

	for (;;) {
		if (ioctl(fd, BINDER_WRITE_READ, &bwr) < 0 && errno != EINTR)
			die("BINDER_WRITE_READ");
		if (bwr.write_consumed == size)
			return;
		if (write_read(fd, NULL, 0, in, sizeof in) > 8)
			die_saying("more news than expected");
	}
}

static int open_device(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die(path);
	if (mmap(NULL, AREA_BYTES, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		die("mmap");
	return fd;
}

// Looks for `wanted` in what was read. Returns 1 if it is there, -1 if a call has failed, else 0.
static int find(const unsigned char *stream, size_t size, uint32_t wanted,
		struct binder_transaction_data *found)
{
	uint32_t code;

	for (size_t at = 0; at + sizeof code <= size; at += _IOC_SIZE(code)) {
		memcpy(&code, stream + at, sizeof code);
		at += sizeof code;
		if (code == wanted) {
			memcpy(found, stream + at, sizeof *found);
			return 1;
		}
		if (code == BR_DEAD_REPLY || code == BR_FAILED_REPLY)
			return -1;
	}
	return 0;
}

struct payload {
	int64_t value;
	struct binder_fd_object files[FILES_MAX];
};

struct array_payload {
	int64_t value;
	struct binder_buffer_object piece;
	struct binder_fd_array_object array;
};

struct send {
	uint32_t free_code;
	binder_uintptr_t free_buffer;
	uint32_t code;
	struct binder_transaction_data_sg data;
} __attribute__((packed));

static binder_size_t offsets[FILES_MAX];

static void fill(struct send *send, struct payload *payload, int64_t value, const int *files,
		 int count)
{
	payload->value = value;
	for (int i = 0; i < count; i++) {
		offsets[i] = offsetof(struct payload, files[i]);
		payload->files[i] = (struct binder_fd_object){
			.hdr.type = BINDER_TYPE_FD, .fd = (uint32_t)files[i], .cookie = 7,
		};
	}
	send->data.transaction_data = (struct binder_transaction_data){
		.code = CODE_OBJECTS,
		.flags = TF_ACCEPT_FDS,
		.data_size = offsetof(struct payload, files[count]),
		.offsets_size = count * sizeof *offsets,
		.data.ptr.buffer = (binder_uintptr_t)payload,
		.data.ptr.offsets = (binder_uintptr_t)offsets,
	};
}

static size_t sendable(struct send *send, uint32_t code, uint32_t sg_code)
{
	bool sg = send->data.buffers_size != 0;
	send->free_code = BC_FREE_BUFFER;
	send->code = sg ? sg_code : code;
	return sizeof *send - (sg ? 0 : sizeof send->data.buffers_size);
}

static void check_file(int fd, int64_t value)
{
	int64_t found = 0;
	if (pread(fd, &found, sizeof found, 0) != sizeof found)
		die("reading a file that came");
	if (found != value)
		die_saying("another file came");
	if (fcntl(fd, F_GETFD) != FD_CLOEXEC)
		die_saying("a file that came is not close-on-exec");
}

// Serving

static int files_of(const struct binder_transaction_data *call, const int **numbers, int *buffer)
{
	const struct payload *payload = (const void *)call->data.ptr.buffer;
	if (call->code == CODE_ARRAY) {
		const struct array_payload *array = (const void *)payload;
		*numbers = (const int *)array->piece.buffer;
		return array->array.num_fds;
	}
	int count = call->offsets_size / sizeof(binder_size_t);
	for (int i = 0; i < count; i++)
		buffer[i] = payload->files[i].fd;
	*numbers = buffer;
	return count;
}

static _Noreturn void serve(int fd)
{
	static struct payload payload;
	struct flat_binder_object node = {
		.hdr.type = BINDER_TYPE_BINDER, .flags = FLAT_BINDER_FLAG_ACCEPTS_FDS,
	};
	struct binder_transaction_data call;
	unsigned char in[84]; // the driver needs 80
	uint32_t enter = BC_ENTER_LOOPER;
	int buffer[FILES_MAX];

	while (ioctl(fd, BINDER_SET_CONTEXT_MGR_EXT, &node) < 0) // the last one may not be gone yet
		if (errno != EBUSY && errno != EINTR)
			die("BINDER_SET_CONTEXT_MGR_EXT");
	write_read(fd, &enter, sizeof enter, NULL, 0);
	if (write(STDOUT_FILENO, "ready\n", 6) != 6)
		die("stdout");
	for (;;) {
		struct send reply = { 0 };
		const int *numbers;
		while (find(in, write_read(fd, NULL, 0, in, sizeof in), BR_TRANSACTION, &call) != 1)
			;
		int64_t value = *(const int64_t *)call.data.ptr.buffer;
		int count = files_of(&call, &numbers, buffer);
		for (int i = 0; i < count; i++)
			check_file(numbers[i], value);
		fill(&reply, &payload, value, numbers, call.flags & TF_ACCEPT_FDS && count ? 1 : 0);
		size_t size = sendable(&reply, BC_REPLY, BC_REPLY_SG);
		size_t skip = offsetof(struct send, code);
		write_read(fd, (char *)&reply + skip, size - skip, NULL, 0);
		if (call.code == CODE_OBJECTS)
			for (int i = 0; i < count; i++)
				close(numbers[i]);
		reply.free_buffer = call.data.ptr.buffer;
		write_all(fd, &reply, skip); // closes an array's
	}
}

static void *run(void *unused)
{
	volatile uint64_t mine[64];
	for (uint64_t i = 0;; i++) {
		mine[i % 64] = i;
		if (mine[i % 64] != i || getppid() < 0)
			die_saying("another thread's memory has changed");
		if (i % 1024 == 0)
			turns++;
	}
	return unused;
}

static void handle_signal(int number)
{
	(void)number;
	signals_seen++;
}

static void be_disturbed(void)
{
	struct sigaction action = { .sa_handler = handle_signal };
	struct itimerval often = { { 0, 300 }, { 0, 300 } };
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
}

static void allow_little(void)
{
	static const int allowed[] = {
		SYS_ioctl, SYS_pread64, SYS_fcntl, SYS_write, SYS_close, SYS_exit_group,
	};
	struct sock_filter filter[16];
	int size = 0, count = sizeof allowed / sizeof *allowed;

	filter[size++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						      offsetof(struct seccomp_data, nr));
	for (int i = 0; i < count; i++)
		filter[size++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i],
							      count - i, 0);
	filter[size++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	filter[size++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { .len = size, .filter = filter };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &program))
		die("seccomp");
}

// Calling

static int file_with(int64_t value)
{
	int fd = memfd_create("files", MFD_CLOEXEC);
	if (fd < 0 || write(fd, &value, sizeof value) != sizeof value)
		die("memfd");
	return fd;
}

// Returns the number of the file in the reply, -1 if there is none, -2 if there is no reply.
static int call(int fd, struct send *send, int64_t value)
{
	struct binder_transaction_data reply;
	unsigned char in[256];
	size_t skip = offsetof(struct send, code);
	size_t size = sendable(send, BC_TRANSACTION, BC_TRANSACTION_SG) - skip;
	int number = -1, found;

	while (!(found = find(in, write_read(fd, (char *)send + skip, size, in, sizeof in), BR_REPLY,
			      &reply)))
		size = 0;
	if (found < 0)
		return -2;
	const struct payload *payload = (const void *)reply.data.ptr.buffer;
	if (payload->value != value)
		die_saying("the reply is another one's");
	if (reply.offsets_size) {
		number = payload->files[0].fd;
		check_file(number, value);
	}
	send->free_buffer = reply.data.ptr.buffer;
	write_read(fd, send, skip, NULL, 0);
	return number;
}

static void measure(int fd, long count, int files)
{
	static struct payload payload;
	int numbers[FILES_MAX];
	struct timespec start, end;

	for (int i = 0; i < files; i++)
		numbers[i] = file_with(42);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (long i = 0; i < count; i++) {
		struct send send = { 0 };
		fill(&send, &payload, 42, numbers, files);
		send.data.transaction_data.flags = 0; // the reply brings none
		if (call(fd, &send, 42) == -2)
			die_saying("no reply");
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%.2f\n", ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / 1e3 /
				 count);
}

struct counters {
	_Atomic int64_t delivered; // transactions with files
	_Atomic int64_t failed;
	_Atomic int64_t wanted; // of the former
};

static void churn(struct counters *counters, int *devices, int count)
{
	static struct payload payload;
	unsigned seed = getpid();

	for (int64_t value = (int64_t)getpid() << 32; counters->delivered < counters->wanted; value++) {
		struct send send = { 0 };
		struct array_payload array;
		int fd = file_with(value), numbers[2] = { fd, fd };
		int files = 1 + rand_r(&seed) % 2;
		fill(&send, &payload, value, numbers, files);
		if (rand_r(&seed) % 4 == 0) {
			array = (struct array_payload){
				.value = value,
				.piece = { .hdr.type = BINDER_TYPE_PTR,
					   .buffer = (binder_uintptr_t)numbers,
					   .length = sizeof numbers },
				.array = { .hdr.type = BINDER_TYPE_FDA, .num_fds = files },
			};
			binder_size_t where[] = { offsetof(struct array_payload, piece),
						  offsetof(struct array_payload, array) };
			memcpy(offsets, where, sizeof where);
			send.data.buffers_size = sizeof numbers;
			send.data.transaction_data.code = CODE_ARRAY;
			send.data.transaction_data.data_size = sizeof array;
			send.data.transaction_data.data.ptr.buffer = (binder_uintptr_t)&array;
			send.data.transaction_data.offsets_size = sizeof where;
		}
		int number = call(devices[rand_r(&seed) % count], &send, value);
		if (number >= 0) {
			close(number);
			counters->delivered += 2;
		} else {
			counters->failed++;
			usleep(1000);
		}
		close(fd);
	}
}

int main(int argc, char **argv)
{
	if (argc >= 3 && !strcmp(argv[1], "serve")) {
		int fd = open_device(argv[2]);
		bool filters = false;
		for (int i = 3; i < argc; i++) {
			pthread_t thread;
			if (!strcmp(argv[i], "threads"))
				for (int n = 0; n < 4; n++)
					pthread_create(&thread, NULL, run, NULL);
			if (!strcmp(argv[i], "signals"))
				be_disturbed();
			patient |= !strcmp(argv[i], "patient");
			filters |= !strcmp(argv[i], "seccomp");
		}
		if (filters)
			allow_little();
		serve(fd);
	}
	if (argc == 5 && !strcmp(argv[1], "call")) {
		measure(open_device(argv[2]), atol(argv[3]), atoi(argv[4]));
		return 0;
	}
	if (argc >= 4 && !strcmp(argv[1], "churn")) {
		int file = open(argv[2], O_RDWR | O_CLOEXEC), devices[16], count = 0;
		struct counters *counters = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE,
						 MAP_SHARED, file, 0);
		if (file < 0 || counters == MAP_FAILED)
			die("counters");
		for (int i = 3; i < argc && count < 16; i++)
			devices[count++] = open_device(argv[i]);
		if (write(STDOUT_FILENO, "ready\n", 6) != 6)
			die("stdout");
		churn(counters, devices, count);
		if (write(STDOUT_FILENO, "done\n", 5) != 5)
			die("stdout");
		pause();
	}
	die_saying("see the head of files.c");
}
