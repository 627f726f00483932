// SPDX-License-Identifier: Apache-2.0
// binderd.h - binderd's extension of the binder ABI; docs/EXTENSION.md tells how it is used.
//
// Made by "python -m binderwire.cheader". Linux's own driver answers these ioctls with EINVAL.

#ifndef BINDERD_H
#define BINDERD_H

#include <errno.h>
#include <stdint.h>
#include <sys/ioctl.h>

struct binderd_info {
	uint32_t version; // BINDERD_VERSION
	uint32_t flags; // BINDERD_HAS_MMAP, BINDERD_INJECTS, BINDERD_HAS_LANES
	uint64_t area_size; // the receive area has at most that many bytes
};

struct binderd_attach {
	int32_t socket; // your descriptor of the end that the daemon takes
	uint32_t flags; // BINDERD_ATTACH_AREA, BINDERD_ATTACH_FILES
};

struct binderd_installed {
	uint64_t id; // binderd_message.value
	int32_t error; // 0, or EMFILE if they did not all come
	uint32_t count; // how many numbers; 0 with an error
	uint64_t numbers; // address of int32_t[count]
};

struct binderd_message {
	uint32_t kind; // BINDERD_AREA, BINDERD_FILES, BINDERD_CLOSE
	uint32_t count; // how many descriptors or numbers come with it
	uint64_t value; // AREA: bytes, at most; FILES: the id of the delivery
	uint32_t left; // FILES: how many descriptors are still to come
	uint8_t reserved20[4];
};

struct binderd_lane {
	int32_t memory; // your descriptor of a memfd that is sealed against shrinking
	uint32_t flags; // BINDERD_LANE_QUIET
	uint32_t size; // bytes, whole pages, at most BINDERD_LANE_SIZE_MAX
	uint8_t reserved12[4];
	uint64_t address; // where you have mapped them; they begin with a binderd_slot
};

struct binderd_slot {
	uint32_t asked; // yours: add 1 when the rest is in place
	uint32_t answered; // the daemon's: the same as asked when it has answered
	uint32_t is_watched; // the daemon's: 0, it does not look here: use BINDERD_ENTER
	int32_t result; // what the ioctl would have returned: 0 or a negative errno
	uint64_t write_size; // from here on: a struct binder_write_read
	uint64_t write_consumed;
	uint64_t write_buffer;
	uint64_t read_size;
	uint64_t read_consumed;
	uint64_t read_buffer;
};

#define BINDERD_GET_INFO _IOR('b', 0xb0, struct binderd_info)
#define BINDERD_ATTACH _IOW('b', 0xb1, struct binderd_attach)
#define BINDERD_INSTALLED _IOW('b', 0xb2, struct binderd_installed)
#define BINDERD_FLUSH _IO('b', 0xb3)
#define BINDERD_LANE _IOW('b', 0xb4, struct binderd_lane)
#define BINDERD_ENTER _IO('b', 0xb5)
#define BINDERD_LEAVE _IO('b', 0xb6)

#define BINDERD_VERSION 1

// binderd_info.flags
#define BINDERD_HAS_MMAP 1 // mmap of the device shows the receive area
#define BINDERD_INJECTS 2 // clients that do not attach get descriptors as well, by ptrace
#define BINDERD_HAS_LANES 4 // threads can have lanes

// binderd_attach.flags
#define BINDERD_ATTACH_AREA 1 // send the receive area, now
#define BINDERD_ATTACH_FILES 2 // send descriptors, from now on

// binderd_message.kind
#define BINDERD_AREA 1 // one descriptor to map
#define BINDERD_FILES 2 // count descriptors
#define BINDERD_CLOSE 3 // close these: int32_t[count] behind the message

// binderd_lane.flags
#define BINDERD_LANE_QUIET 1 // a reply that has arrived is not confirmed

#define BINDERD_LANE_SIZE_MAX 16384 // bytes

// As many descriptors as the kernel takes in one message.
#define BINDERD_FILES_MAX 253

// What BINDER_WRITE_READ fails with when there are messages to take before it is issued again.
#define BINDERD_ERRNO EREMOTEIO

// binderd_slot.result, negated: ask the same once more.
#define BINDERD_AGAIN ERESTART

#endif
