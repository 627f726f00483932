// SPDX-License-Identifier: Apache-2.0
// delivery.c - takes descriptors out of a socket (docs/EXTENSION.md, section 4).
//
// The lock is held, so a thread that finds no message knows that its descriptors were reported.

#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

enum { ROOM_MAX = 1 << 20, NUMBERS_AT_ONCE = 256 };

struct incoming {
	struct binderd_message message;
	uint32_t count;
	bool is_complete;
	int32_t numbers[FEW];
};

// Rarely needed, and not malloc's: we may be inside it.
static void *memory_for(size_t size)
{
	return next_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void close_numbers(const int32_t *numbers, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		close_raw(numbers[i]);
}

// Receives one message with its descriptors; false if there is none.
static bool receive(int socket, struct incoming *in)
{
	union {
		char octets[CMSG_SPACE(sizeof in->numbers)];
		struct cmsghdr alignment;
	} control;
	struct iovec part = { .iov_base = &in->message, .iov_len = sizeof in->message };
	struct msghdr header = { .msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof control };
	struct cmsghdr *rights;
	long size = syscall(SYS_recvmsg, socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (size <= 0)
		return false;
	in->count = 0;
	rights = CMSG_FIRSTHDR(&header);
	if (rights != NULL && rights->cmsg_type == SCM_RIGHTS) {
		in->count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof in->numbers[0];
		memcpy(in->numbers, CMSG_DATA(rights), in->count * sizeof in->numbers[0]);
	}
	// Less came if the table of descriptors is full, or a security module forbids one.
	in->is_complete = size == sizeof in->message && !(header.msg_flags & MSG_CTRUNC) &&
			  in->count == in->message.count;
	return true;
}

void forget_delivery(struct delivery *delivery)
{
	if (delivery->is_open && delivery->room > FEW && delivery->numbers != NULL)
		munmap(delivery->numbers, delivery->room * sizeof delivery->numbers[0]);
	delivery->is_open = false;
	delivery->count = 0;
}

void close_delivery(struct delivery *delivery)
{
	if (delivery->is_open)
		close_numbers(delivery->numbers, delivery->count);
	forget_delivery(delivery);
}

static void open_delivery(struct delivery *delivery, uint64_t id, uint64_t room)
{
	*delivery = (struct delivery){ .id = id, .is_open = true, .numbers = delivery->few };
	delivery->room = FEW;
	if (room <= FEW)
		return;
	void *memory = MAP_FAILED;
	if (room <= ROOM_MAX)
		memory = memory_for(room * sizeof delivery->numbers[0]);
	if (memory == MAP_FAILED) {
		delivery->has_failed = true;
		return;
	}
	delivery->numbers = memory;
	delivery->room = (uint32_t)room;
}

static void report(int fd, struct delivery *delivery)
{
	struct binderd_installed installed = { .id = delivery->id };

	if (delivery->has_failed) {
		installed.error = EMFILE;
		close_numbers(delivery->numbers, delivery->count);
		delivery->count = 0;
	}
	installed.count = delivery->count;
	installed.numbers = (uintptr_t)delivery->numbers;
	// Nobody will ever be told of them if the daemon does not know the delivery any more.
	if (next_ioctl(fd, BINDERD_INSTALLED, &installed) < 0)
		close_numbers(delivery->numbers, delivery->count);
	forget_delivery(delivery);
}

static bool take_files(struct delivery *delivery, int socket, int fd)
{
	struct incoming in;

	if (!receive(socket, &in))
		return false;
	if (!delivery->is_open || delivery->id != in.message.value) {
		close_delivery(delivery);
		open_delivery(delivery, in.message.value, (uint64_t)in.count + in.message.left);
	}
	if (!in.is_complete || in.count > delivery->room - delivery->count)
		delivery->has_failed = true;
	if (delivery->has_failed) {
		close_numbers(in.numbers, in.count);
	} else {
		memcpy(delivery->numbers + delivery->count, in.numbers,
		       in.count * sizeof in.numbers[0]);
		delivery->count += in.count;
	}
	if (in.message.left == 0)
		report(fd, delivery);
	return true;
}

// Closes the numbers that stand behind a message of that size; as many as there is memory for.
static bool take_numbers(int socket, size_t size)
{
	struct {
		struct binderd_message message;
		int32_t numbers[NUMBERS_AT_ONCE];
	} few, *all = &few;
	long received;

	if (size > sizeof few)
		all = memory_for(size);
	if (all == MAP_FAILED) {
		all = &few;
		size = sizeof few;
	}
	received = syscall(SYS_recvfrom, socket, all, size, MSG_DONTWAIT, NULL, NULL);
	for (long at = sizeof all->message; at + (long)sizeof(int32_t) <= received;
	     at += sizeof(int32_t)) {
		int32_t number;

		memcpy(&number, (char *)all + at, sizeof number);
		if (!is_our_socket(number))
			close_raw(number);
	}
	if (all != &few)
		munmap(all, size);
	return received > 0;
}

void take_all(struct attachment *attachment, int fd)
{
	int socket = attachment->socket;
	struct binderd_message message;
	struct incoming in;
	bool is_taken = true;
	long size;

	while (is_taken) {
		message.kind = 0;
		size = syscall(SYS_recvfrom, socket, &message, sizeof message,
			       MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT, NULL, NULL);
		if (size <= 0)
			return;
		if (message.kind == BINDERD_FILES)
			is_taken = take_files(attachment->delivery, socket, fd);
		else if (message.kind == BINDERD_CLOSE)
			is_taken = take_numbers(socket, (size_t)size);
		else if ((is_taken = receive(socket, &in)))
			close_numbers(in.numbers, in.count);
	}
}

// Returns the descriptor that waits in a new socket, or -errno.
int take_area(int socket)
{
	struct incoming in;

	if (!receive(socket, &in))
		return -EPROTO;
	if (in.message.kind == BINDERD_AREA && in.is_complete && in.count == 1)
		return in.numbers[0];
	close_numbers(in.numbers, in.count);
	return in.message.count > in.count ? -EMFILE : -EPROTO;
}
