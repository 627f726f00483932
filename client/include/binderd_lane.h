// SPDX-License-Identifier: Apache-2.0
// binderd_lane.h - BINDER_WRITE_READ through a lane of binderd's, for C and C++.
//
//	struct binderd_thread_lane lane;
//	binderd_lane_open(&lane, fd, 0);
//	... binderd_lane_write_read(&lane, &bwr) instead of ioctl(fd, BINDER_WRITE_READ, &bwr)
//	binderd_lane_close(&lane);
//
// One thread has it, for one open file. It need not be asked whether there is a lane: without one,
// and for what is large or unusual, binderd_lane_write_read is that ioctl. With one it has the same
// result and errno, a wait ends with EINTR where the ioctl's would, and a child that goes on with
// what its parent had gets the ioctl. It copies what it sends into the lane: a bad pointer ends
// the program instead of failing with EFAULT.
//
// docs/EXTENSION.md, 6 and 7, tells what happens underneath. Needs _GNU_SOURCE.

#ifndef BINDERD_LANE_H
#define BINDERD_LANE_H

#ifndef _GNU_SOURCE
#error "binderd_lane.h needs _GNU_SOURCE, before anything is included"
#endif

#include <errno.h>
#include <fcntl.h>
#include <linux/android/binder.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "binderd.h"

// For who stands between a program and its ioctls: the ioctl behind, and whether memory is there.
#ifndef BINDERD_LANE_IOCTL
#define BINDERD_LANE_IOCTL ioctl
#endif
#ifndef BINDERD_LANE_REACHES
#define BINDERD_LANE_REACHES(address, size, writes) 1
#endif

// A flag of binderd_lane_open's, and no business of the daemon's: the thread has no use for EINTR.
// A handler that runs while it looks does not end its wait then, which saves two system calls.
#define BINDERD_LANE_UNINTERRUPTED 0x80000000u

// So often is an answer looked for without sleeping, each time half a microsecond, and for no
// longer than this: others may need the processor for the answer, and looking gives it to them.
#define BINDERD_LANE_LOOKS 100
#define BINDERD_LANE_LOOK_NS 500000
#define BINDERD_LANE_TRUST 8 // so often in vain, then not for a while
#define BINDERD_LANE_PAUSE 64 // requests

// One page more than the daemon knows of, which a child finds empty.
#define BINDERD_LANE_MAPPED (BINDERD_LANE_SIZE_MAX + 4096)

struct binderd_thread_lane {
	int fd;
	struct binderd_slot *slot; // the first bytes of its memory; NULL: there is no lane
	const volatile int *is_here; // is this the process that has made it?
	unsigned trust, pause; // in looking
	int is_uninterrupted;
	int is_busy; // a signal handler may come by
};

// Where in a lane's memory there is room.
struct binderd_lane_room {
	char *at;
	size_t left;
};

// Blocks all signals, those of the C library's own too; returns which were blocked.
static inline uint64_t binderd_lane_block(void)
{
	uint64_t all = ~(uint64_t)0, before = 0;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
	return before;
}

static inline void binderd_lane_unblock(uint64_t before)
{
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before);
}

// Whether a signal that has come would end a wait: an ignored one does not.
static inline int binderd_lane_ends_wait(int signal)
{
	struct sigaction action;

	if (sigaction(signal, NULL, &action) != 0)
		return 1; // one of the C library's own
	if (action.sa_handler == SIG_DFL)
		return signal != SIGCHLD && signal != SIGCONT && signal != SIGURG &&
		       signal != SIGWINCH;
	return action.sa_handler != SIG_IGN;
}

// Whether a handler will run when signals are what they were.
static inline int binderd_lane_is_signalled(uint64_t before)
{
	uint64_t pending = 0;

	syscall(SYS_rt_sigpending, &pending, sizeof pending);
	pending &= ~before;
	for (int signal = 1; pending != 0; signal++, pending >>= 1)
		if (pending & 1 && binderd_lane_ends_wait(signal))
			return 1;
	return 0;
}

static inline char *binderd_lane_map(int memory)
{
	int both = PROT_READ | PROT_WRITE, fixed = MAP_SHARED | MAP_FIXED;
	void *all = mmap(NULL, BINDERD_LANE_MAPPED, both, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *slot = (char *)all;

	if (all == MAP_FAILED)
		return NULL;
	if (ftruncate(memory, BINDERD_LANE_SIZE_MAX) == 0 &&
	    fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) == 0 &&
	    mmap(all, BINDERD_LANE_SIZE_MAX, both, fixed, memory, 0) != MAP_FAILED &&
	    madvise(slot, BINDERD_LANE_SIZE_MAX, MADV_DONTFORK) == 0 &&
	    madvise(slot + BINDERD_LANE_SIZE_MAX, 4096, MADV_WIPEONFORK) == 0)
		return slot;
	munmap(all, BINDERD_LANE_MAPPED);
	return NULL;
}

static inline int binderd_lane_ask_for(int fd, int memory, char *slot, uint32_t flags)
{
	struct binderd_lane request;

	memset(&request, 0, sizeof request);
	request.memory = memory;
	request.flags = flags & ~BINDERD_LANE_UNINTERRUPTED;
	request.size = BINDERD_LANE_SIZE_MAX;
	request.address = (uintptr_t)slot;
	return BINDERD_LANE_IOCTL(fd, BINDERD_LANE, &request);
}

// Makes a lane for the calling thread. Returns 0; or -1 with errno, there is none: not even that
// keeps binderd_lane_write_read from working.
//
// flags: BINDERD_LANE_QUIET, BINDERD_LANE_UNINTERRUPTED, both or none.
static inline int binderd_lane_open(struct binderd_thread_lane *lane, int fd, uint32_t flags)
{
	int memory = (int)syscall(SYS_memfd_create, "lane", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char *slot;
	int error;

	memset(lane, 0, sizeof *lane);
	lane->fd = fd;
	if (memory < 0)
		return -1;
	slot = binderd_lane_map(memory);
	error = slot == NULL || binderd_lane_ask_for(fd, memory, slot, flags) < 0 ? errno : 0;
	syscall(SYS_close, memory); // no cancellation point
	if (error != 0) {
		if (slot != NULL)
			munmap(slot, BINDERD_LANE_MAPPED);
		errno = error;
		return -1;
	}
	slot[BINDERD_LANE_SIZE_MAX] = 1;
	lane->is_here = (const volatile int *)(slot + BINDERD_LANE_SIZE_MAX);
	lane->trust = BINDERD_LANE_TRUST;
	lane->is_uninterrupted = (flags & BINDERD_LANE_UNINTERRUPTED) != 0;
	lane->slot = (struct binderd_slot *)slot;
	return 0;
}

// Gives the memory back: before the thread ends, by the thread. The daemon's end of it goes with
// the thread, or with BINDER_THREAD_EXIT. From here on all goes through the ioctl.
static inline void binderd_lane_close(struct binderd_thread_lane *lane)
{
	if (lane->slot != NULL && *lane->is_here) // in a child, something else may be there
		munmap(lane->slot, BINDERD_LANE_MAPPED);
	lane->slot = NULL;
}

static inline int binderd_lane_is_open(const struct binderd_thread_lane *lane)
{
	return __atomic_load_n(&lane->slot->answered, __ATOMIC_ACQUIRE) != lane->slot->asked;
}

// Sleeps until there is an answer. Returns 0, or the errno with which the lane has ended.
static inline int binderd_lane_sleep(struct binderd_thread_lane *lane, unsigned long how)
{
	while (binderd_lane_is_open(lane)) {
		if (BINDERD_LANE_IOCTL(lane->fd, how, NULL) == 0)
			return binderd_lane_is_open(lane) ? EINVAL : 0;
		if (errno != EINTR)
			return errno;
	}
	return 0;
}

static inline uint64_t binderd_lane_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

// Looks for an answer for a moment, and lets others run; returns whether it is there.
static inline int binderd_lane_look(struct binderd_thread_lane *lane)
{
	int looks = 0;
	uint64_t end;

	if (lane->pause > 0) {
		lane->pause--;
		return !binderd_lane_is_open(lane);
	}
	end = binderd_lane_now_ns() + BINDERD_LANE_LOOK_NS;
	while (binderd_lane_is_open(lane)) {
		if (!__atomic_load_n(&lane->slot->is_watched, __ATOMIC_RELAXED))
			return !binderd_lane_is_open(lane);
		if (++looks > BINDERD_LANE_LOOKS || binderd_lane_now_ns() > end) {
			if (--lane->trust == 0) {
				lane->trust = 1;
				lane->pause = BINDERD_LANE_PAUSE;
			}
			return 0;
		}
		sched_yield();
	}
	lane->trust = BINDERD_LANE_TRUST;
	return 1;
}

// Does what is in the slot once. Returns 0, or the errno with which the lane has ended.
//
// While the thread looks signals are blocked: a handler that runs just before it sleeps would not
// wake it, nor one that runs when what it has waited for was taken back.
static inline int binderd_lane_ask(struct binderd_thread_lane *lane)
{
	uint64_t before = lane->is_uninterrupted ? 0 : binderd_lane_block();
	int error = 0, is_done;

	__atomic_store_n(&lane->slot->asked, lane->slot->asked + 1, __ATOMIC_RELEASE);
	is_done = binderd_lane_look(lane) && lane->slot->result != -BINDERD_AGAIN;
	if (!is_done && !lane->is_uninterrupted && binderd_lane_is_signalled(before)) {
		error = binderd_lane_sleep(lane, BINDERD_LEAVE);
		if (error == 0 && lane->slot->result == -BINDERD_AGAIN)
			lane->slot->result = -EINTR;
	}
	if (!lane->is_uninterrupted)
		binderd_lane_unblock(before);
	return error != 0 ? error : binderd_lane_sleep(lane, BINDERD_ENTER);
}

// Returns room for so many bytes, or NULL.
static inline void *binderd_lane_take(struct binderd_lane_room *room, uint64_t size)
{
	size_t whole = (size_t)(size + 7) & ~(size_t)7;
	char *taken = room->at;

	if (size > room->left || whole > room->left)
		return NULL;
	room->at += whole;
	room->left -= whole;
	return taken;
}

// Copies what a pointer of the program's points to, and has it point there.
static inline int binderd_lane_move(struct binderd_lane_room *room, uint64_t *pointer,
				    uint64_t size)
{
	void *place = binderd_lane_take(room, size);

	if (place == NULL)
		return 0;
	if (size > 0) {
		if (!BINDERD_LANE_REACHES(*pointer, size, 0))
			return 0;
		memcpy(place, (const void *)(uintptr_t)*pointer, size);
	}
	*pointer = (uintptr_t)place;
	return 1;
}

static inline int binderd_lane_move_data(struct binderd_lane_room *room, char *payload)
{
	struct binder_transaction_data data;
	uint64_t buffer, offsets;

	memcpy(&data, payload, sizeof data);
	buffer = data.data.ptr.buffer;
	offsets = data.data.ptr.offsets;
	if (!binderd_lane_move(room, &buffer, data.data_size) ||
	    !binderd_lane_move(room, &offsets, data.offsets_size))
		return 0;
	data.data.ptr.buffer = buffer;
	data.data.ptr.offsets = offsets;
	memcpy(payload, &data, sizeof data);
	return 1;
}

// Whether a command is one that points to nothing.
static inline int binderd_lane_is_plain(uint32_t word)
{
	switch (word) {
	case BC_FREE_BUFFER:
	case BC_INCREFS:
	case BC_ACQUIRE:
	case BC_RELEASE:
	case BC_DECREFS:
	case BC_INCREFS_DONE:
	case BC_ACQUIRE_DONE:
	case BC_REGISTER_LOOPER:
	case BC_ENTER_LOOPER:
	case BC_EXIT_LOOPER:
	case BC_REQUEST_DEATH_NOTIFICATION:
	case BC_CLEAR_DEATH_NOTIFICATION:
	case BC_DEAD_BINDER_DONE:
		return 1;
	default:
		return 0;
	}
}

// Moves what these commands, which are in the lane, point to; returns 0 if one is not for lanes.
static inline int binderd_lane_move_all(struct binderd_lane_room *room, char *commands,
					size_t size)
{
	uint32_t word;

	for (size_t at = 0; at < size; at += _IOC_SIZE(word)) {
		if (size - at < sizeof word)
			return 0;
		memcpy(&word, commands + at, sizeof word);
		at += sizeof word;
		if (size - at < _IOC_SIZE(word))
			return 0;
		if (word == BC_TRANSACTION || word == BC_REPLY) {
			if (!binderd_lane_move_data(room, commands + at))
				return 0;
		} else if (!binderd_lane_is_plain(word)) {
			return 0;
		}
	}
	return 1;
}

// Puts a request into the slot, and beside it what it points to; returns 0 if it is not for lanes.
static inline int binderd_lane_put(struct binderd_thread_lane *lane,
				   const struct binder_write_read *bwr)
{
	struct binderd_slot *slot = lane->slot;
	struct binderd_lane_room room;
	uint64_t commands = bwr->write_buffer + bwr->write_consumed;
	void *in;

	room.at = (char *)(slot + 1);
	room.left = BINDERD_LANE_SIZE_MAX - sizeof *slot;
	if (bwr->read_consumed != 0 || bwr->write_consumed > bwr->write_size)
		return 0;
	in = binderd_lane_take(&room, bwr->read_size);
	if (in == NULL || (bwr->read_size > 0 &&
			   !BINDERD_LANE_REACHES(bwr->read_buffer, bwr->read_size, 1)))
		return 0;
	slot->write_size = bwr->write_size - bwr->write_consumed;
	if (!binderd_lane_move(&room, &commands, slot->write_size) ||
	    !binderd_lane_move_all(&room, (char *)(uintptr_t)commands, slot->write_size))
		return 0;
	slot->write_consumed = 0;
	slot->write_buffer = commands;
	slot->read_size = bwr->read_size;
	slot->read_consumed = 0;
	slot->read_buffer = (uintptr_t)in;
	return 1;
}

// Hands the program what has become of its request.
static inline int binderd_lane_get(const struct binderd_thread_lane *lane,
				   struct binder_write_read *bwr)
{
	const struct binderd_slot *slot = lane->slot;
	uint64_t size = slot->read_consumed;
	int result = slot->result;

	// It may have gone while the thread was waiting.
	if (!BINDERD_LANE_REACHES((uintptr_t)bwr, sizeof *bwr, 1) || size > bwr->read_size ||
	    (size > 0 && !BINDERD_LANE_REACHES(bwr->read_buffer, size, 1))) {
		errno = EFAULT;
		return -1;
	}
	if (size > 0)
		memcpy((void *)(uintptr_t)bwr->read_buffer, slot + 1, size);
	bwr->write_consumed += slot->write_consumed;
	bwr->read_consumed = size;
	if (result == 0)
		return 0;
	errno = -result;
	return -1;
}

// ioctl(fd, BINDER_WRITE_READ, bwr); call it from the thread that has the lane.
static inline int binderd_lane_write_read(struct binderd_thread_lane *lane,
					  struct binder_write_read *bwr)
{
	int error = errno, over = 0, result;

	if (lane->slot == NULL || !*lane->is_here)
		return BINDERD_LANE_IOCTL(lane->fd, BINDER_WRITE_READ, bwr);
	if (lane->is_busy) { // a signal handler
		binderd_lane_sleep(lane, BINDERD_LEAVE);
		return BINDERD_LANE_IOCTL(lane->fd, BINDER_WRITE_READ, bwr);
	}
	lane->is_busy = 1;
	if (!binderd_lane_put(lane, bwr)) {
		lane->is_busy = 0;
		return BINDERD_LANE_IOCTL(lane->fd, BINDER_WRITE_READ, bwr);
	}
	do {
		over = binderd_lane_ask(lane);
	} while (over == 0 && lane->slot->result == -BINDERD_AGAIN);
	if (over == 0) {
		errno = error;
		result = binderd_lane_get(lane, bwr);
		lane->is_busy = 0;
		return result;
	}
	bwr->write_consumed += lane->slot->write_consumed; // before it was taken back
	binderd_lane_close(lane);
	lane->is_busy = 0;
	if (over == EINVAL) // what was asked last has not begun
		return BINDERD_LANE_IOCTL(lane->fd, BINDER_WRITE_READ, bwr);
	errno = over;
	return -1;
}

#endif
