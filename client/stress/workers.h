// SPDX-License-Identifier: Apache-2.0
// workers.h - what the roles have in common.

#pragma once

#include "message.h"
#include "port.h"

int run_registry(void);
int run_server(void);
int run_client(void);
int run_idle(void);

// What the role does with returns that are no part of a call.
extern void (*on_return)(struct port *port, uint32_t word, const void *payload);

int run_looper(struct port *port, uint32_t enter);
void handle_references(struct port *port, uint32_t word, const void *payload);
void start_thread(void *(*function)(void *), void *argument);
void wait_for_the_end(void); // of standard input
unsigned count_files(void);
void *allocate(size_t size);

// A death cookie says which worker is watched: the number of the worker, and which of its lives.
static inline binder_uintptr_t cookie_of(unsigned worker, uint64_t life)
{
	return (binder_uintptr_t)worker << 32 | (uint32_t)life;
}

// Waits before something is tried again, longer each time; adds it up.
void back_off(uint64_t *wait_ns);
