// SPDX-License-Identifier: Apache-2.0
// preload.h - what the parts of libbinderd-preload.so know of each other.
//
//   interpose.c   the functions that programs call instead of the C library's
//   closing.c     notices what programs close, and keeps our sockets
//   attachment.c  which open files are binderd's, and the socket of each
//   delivery.c    takes descriptors out of a socket
//   area.c        maps a receive area
//   thread.c      what a thread has used; reports threads that end
//   lane.c        BINDER_WRITE_READ through a lane of the thread's
//   memory.c      whether memory is there
//   status.c      tells descriptors apart
//   guard.c       one lock, for all that is rare
//
// The library lives in programs that know nothing of it. So it keeps no memory of malloc's, calls
// nothing that pthread_cancel could interrupt, takes its lock with all signals blocked, and leaves
// errno alone unless it fails. A program that uses no binder pays a comparison per ioctl and per
// close, and a statfs per mapped file.

#ifndef PRELOAD_H
#define PRELOAD_H

#include <linux/android/binder.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "binderd.h"

_Static_assert(sizeof(void *) == 8 && sizeof(off_t) == 8, "for 64-bit programs");

enum {
	FILES_MAX = 32, // open files of binderd's in one process; more get what there is without us
	NUMBERS_MAX = 4, // descriptors of one open device that are remembered
	FEW = BINDERD_FILES_MAX,
};

// What tells one open file from another. Each open of a FUSE device has an inode of its own; those
// of a character device share one, so there the descriptor's number counts as well.
struct file_id {
	uint32_t major, minor; // of the device that it is on or, if inodes are shared, that it is
	uint64_t inode;
	bool is_shared;
};

// Descriptors that came in parts.
struct delivery {
	uint64_t id;
	uint32_t count; // how many have come
	uint32_t room;
	bool is_open; // more will come
	bool has_failed;
	int32_t *numbers; // few, or memory of its own
	int32_t few[FEW];
};

enum kind {
	NOBODY, // the entry is free
	FOREIGN, // no file of binderd's
	PLAIN, // binderd's, but we do not take its descriptors: it refuses, or the program does it
	ATTACHED,
};

// May be looked at without the lock: what is read while it changes matches nothing, and the
// caller then takes the lock and looks again.
struct attachment {
	_Atomic int kind;
	_Atomic uint32_t major, minor;
	_Atomic uint64_t inode;
	_Atomic int numbers[NUMBERS_MAX]; // the file's descriptors, if inodes are shared; else -1
	_Atomic int socket; // our end, -1: none
	_Atomic uint64_t socket_inode; // the program may have closed it, and reused the number
	struct delivery *delivery; // of this entry, for good; only with the lock
};

// An open file as one thread has used it, and its lane (used.h).
struct used;

// guard.c: the lock, which also keeps signal handlers and cancellation away.
typedef struct {
	uint64_t mask;
} guard;

guard guard_enter(void);
void guard_leave(guard saved);
void close_raw(int fd);

// interpose.c: the functions behind ours.
int next_ioctl(int fd, unsigned long request, void *argument);
void *next_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);

// status.c
bool identify(int fd, struct file_id *id);
bool same_file(const struct file_id *a, const struct file_id *b);
uint64_t socket_inode(int fd);

// attachment.c
bool ask(int fd, struct binderd_info *info);
struct used *attach_if_needed(int fd);
int attach_for_area(int fd);
void attached_by_program(int fd);
bool take_messages(int fd);
void numbers_change(void);
bool is_device(int fd);
bool is_our_socket(int fd);
bool our_first_socket(unsigned first, unsigned to, unsigned *number);
void make_way(int number);
void attachments_forget(void);

// delivery.c
void take_all(struct attachment *attachment, int fd);
int take_area(int socket);
void close_delivery(struct delivery *delivery);
void forget_delivery(struct delivery *delivery);

// area.c
void *map_area(void *address, size_t size, int protection, int flags, int fd);

// thread.c
void thread_start(void);
struct used *thread_used(int fd, const struct file_id *id);
void thread_settle(void);
void thread_exited(int fd);
void thread_forget(void);

// lane.c
void lane_start(void);
int lane_write_read(struct used *used, int fd, void *argument);
void lane_not_ours(struct used *used);

// memory.c
bool memory_is_there(uint64_t address, uint64_t size, bool is_written);
void memory_forget(void);

#endif
