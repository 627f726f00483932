// SPDX-License-Identifier: Apache-2.0
// registry.c - the context manager of a device that has none: servers by name, for our own workers.

#include "workers.h"

#include "board.h"
#include "names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRIES_MAX = 16384 };

struct entry {
	bool is_used;
	uint32_t handle;
	char name[NAME_MAX_UNITS];
};

static struct entry entries[ENTRIES_MAX];
static unsigned entries_used; // no entry from here on is used
static unsigned char answer[REQUEST_MAX];

static struct entry *find(const char *name)
{
	for (unsigned i = 0; i < entries_used; i++)
		if (entries[i].is_used && !strcmp(entries[i].name, name))
			return &entries[i];
	return NULL;
}

static struct entry *free_entry(void)
{
	for (unsigned i = 0; i < entries_used; i++)
		if (!entries[i].is_used)
			return &entries[i];
	return entries_used < ENTRIES_MAX ? &entries[entries_used++] : NULL;
}

// Its number in the table is the cookie of its death.
static void add_entry(struct port *port, const char *name, uint32_t handle)
{
	struct entry *entry = free_entry();

	if (!entry)
		return;
	struct binder_handle_cookie watch = { .handle = handle,
					      .cookie = (binder_uintptr_t)(entry - entries) };
	entry->is_used = true;
	entry->handle = handle;
	memcpy(entry->name, name, NAME_MAX_UNITS);
	port_queue(port, BC_ACQUIRE, &handle);
	port_queue(port, BC_REQUEST_DEATH_NOTIFICATION, &watch);
}

static void forget(struct port *port, binder_uintptr_t cookie)
{
	port_queue(port, BC_DEAD_BINDER_DONE, &cookie);
	if (cookie >= entries_used || !entries[cookie].is_used)
		return;
	port_queue(port, BC_RELEASE, &entries[cookie].handle);
	entries[cookie].is_used = false;
}

static void serve(struct port *port, const struct binder_transaction_data *request)
{
	char name[NAME_MAX_UNITS];
	struct flat_binder_object object;
	struct entry *entry = NULL;
	size_t at = 0, size = names_write_empty(answer);
	bool is_readable = names_read((void *)(uintptr_t)request->data.ptr.buffer,
				      request->data_size, name, &object);

	if (is_readable && request->code == ADD_SERVICE &&
	    object.hdr.type == BINDER_TYPE_HANDLE) {
		add_entry(port, name, object.handle);
	} else if (is_readable && request->code == CHECK_SERVICE) {
		entry = find(name);
		size = names_write_handle(answer, entry, entry ? entry->handle : 0, &at);
	}
	port_reply(port, answer, size, at, entry ? 1 : 0);
	port_free(port, request->data.ptr.buffer);
}

static void handle_return(struct port *port, uint32_t word, const void *payload)
{
	struct binder_transaction_data request;
	binder_uintptr_t cookie;

	if (word == BR_TRANSACTION) {
		memcpy(&request, payload, sizeof request);
		serve(port, &request);
	} else if (word == BR_DEAD_BINDER) {
		memcpy(&cookie, payload, sizeof cookie);
		forget(port, cookie);
	} else {
		handle_references(port, word, payload);
	}
}

// Says whether it is the manager, and then serves until it is killed.
int run_registry(void)
{
	static struct port port;
	int error = port_become_manager();

	printf("%d\n", error);
	fflush(stdout);
	if (error)
		return 0;
	on_return = handle_return;
	return run_looper(&port, BC_ENTER_LOOPER);
}
