// SPDX-License-Identifier: Apache-2.0
// connections.h - the servers as one client process knows them, shared by its threads.
//
// A connection is used by any number of threads at a time. Once its server is dead, nobody begins
// to use it, and when the last user is gone and the driver has told of the death, its handle is
// released: not earlier, as the number may be another object's at once.

#pragma once

#include "port.h"

struct use {
	unsigned server;
	uint32_t handle;
	uint64_t life;
};

void connections_prepare(void);
bool connection_use(unsigned server, struct use *use);
void connection_end(struct port *port, const struct use *use, bool is_dead);
void connection_told(struct port *port, binder_uintptr_t cookie);

// Connects if need be and possible; `greet` introduces us and says whether the server is alive.
void connection_make(struct port *port, unsigned server,
		     bool (*greet)(struct port *port, const struct use *use));
