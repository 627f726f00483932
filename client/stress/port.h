// SPDX-License-Identifier: Apache-2.0
// port.h - a binder device as one thread uses it: commands are queued, returns come one by one.
//
// Knows the driver's ABI and nothing else: no service manager, no messages.

#pragma once

#include <linux/android/binder.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { AREA_SIZE = 4 << 20 }; // the largest there is
enum { PORT_OUT = 1024, PORT_IN = 1024, PAYLOAD_MAX = 72 };

struct port {
	unsigned char out[PORT_OUT], in[PORT_IN];
	size_t out_size, in_size, in_at;
	binder_size_t reply_offset;
};

// Not in older headers.
#define BR_PENDING_FROZEN _IO('r', 20) // BR_TRANSACTION_PENDING_FROZEN

enum outcome { ACCEPTED, NO_ROOM, NO_ROOM_FOR_REPLY, FROZEN, DEAD, REFUSED };

struct call {
	uint32_t handle, code;
	const void *data;
	size_t size, objects_at, objects; // at most one object
	bool one_way;
	struct binder_transaction_data reply; // its buffer must be freed
	uint32_t how; // for a one-way call: what was read instead of BR_TRANSACTION_COMPLETE
	int32_t error; // for REFUSED: the driver's errno
};

extern int device; // the open file

void port_open(const char *path);
int port_become_manager(void);
void port_queue(struct port *port, uint32_t word, const void *payload);
void port_flush(struct port *port);
uint32_t port_next(struct port *port, void *payload);
enum outcome port_call(struct port *port, struct call *call);
void port_reply(struct port *port, const void *data, size_t size, size_t objects_at,
		size_t objects);
void port_free(struct port *port, binder_uintptr_t buffer);

// What a return means that is not the call's own; each program that uses ports defines it.
void port_handle(struct port *port, uint32_t word, const void *payload);
