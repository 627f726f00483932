// SPDX-License-Identifier: Apache-2.0
// names.c - writing and reading those parcels; no device but for the two calls.

#include "names.h"

#include "board.h"

#include <stdio.h>
#include <string.h>

static const char DESCRIPTOR[] = "android.os.IServiceManager";
enum { STRICT_MODE = (int)0x80000000, NO_WORK_SOURCE = -1, SYST = 0x53595354, STABILITY = 12 };
enum { OBJECT_SIZE = sizeof(struct flat_binder_object), DUMP_PRIORITY = 8 };

void name_of_server(char *name, unsigned server, uint64_t life)
{
	snprintf(name, NAME_MAX_UNITS, "binderd.stress.%llu.%u.%llu",
		 (unsigned long long)board->run, server, (unsigned long long)life);
}

static size_t put(unsigned char *out, size_t at, int32_t value)
{
	memcpy(out + at, &value, sizeof value);
	return at + sizeof value;
}

static size_t put_text(unsigned char *out, size_t at, const char *text)
{
	uint16_t unit;

	at = put(out, at, (int32_t)strlen(text));
	do {
		unit = (unsigned char)*text;
		memcpy(out + at, &unit, sizeof unit);
		at += sizeof unit;
	} while (*text++);
	return (at + 3) & ~(size_t)3;
}

static size_t put_head(unsigned char *out, const char *name)
{
	size_t at;

	memset(out, 0, REQUEST_MAX);
	at = put(out, 0, STRICT_MODE);
	at = put(out, at, NO_WORK_SOURCE);
	at = put(out, at, SYST);
	at = put_text(out, at, DESCRIPTOR);
	return put_text(out, at, name);
}

static size_t put_object(unsigned char *out, size_t at, const struct flat_binder_object *object)
{
	memcpy(out + at, object, OBJECT_SIZE);
	return put(out, at + OBJECT_SIZE, object->hdr.type ? STABILITY : 0);
}

static int32_t get(const void *data, size_t size, size_t at)
{
	int32_t value = -1;

	if (at + sizeof value <= size)
		memcpy(&value, (const char *)data + at, sizeof value);
	return value;
}

enum outcome names_add(struct port *port, const char *name, binder_uintptr_t node, int *status)
{
	unsigned char out[REQUEST_MAX];
	struct flat_binder_object object = { .hdr.type = BINDER_TYPE_BINDER,
					     .flags = FLAT_BINDER_FLAG_ACCEPTS_FDS | 0x7f,
					     .binder = node };
	size_t objects_at = put_head(out, name);
	size_t at = put_object(out, objects_at, &object);

	at = put(out, at, 0); // not for isolated processes
	at = put(out, at, DUMP_PRIORITY);
	struct call call = { .code = ADD_SERVICE, .data = out, .size = at,
			     .objects_at = objects_at, .objects = 1 };
	enum outcome outcome = port_call(port, &call);
	*status = call.error;
	if (outcome == ACCEPTED) {
		*status = get((void *)(uintptr_t)call.reply.data.ptr.buffer,
			      call.reply.data_size, 0);
		port_free(port, call.reply.data.ptr.buffer);
	}
	return outcome;
}

// The handle is good until the buffer is freed; no buffer: nobody has that name.
enum outcome names_check(struct port *port, const char *name, uint32_t *handle,
			 binder_uintptr_t *buffer)
{
	unsigned char out[REQUEST_MAX];
	struct flat_binder_object object;
	size_t size = put_head(out, name);
	struct call call = { .code = CHECK_SERVICE, .data = out, .size = size };
	enum outcome outcome = port_call(port, &call);
	const char *data = (const char *)(uintptr_t)call.reply.data.ptr.buffer;

	*buffer = 0;
	if (outcome != ACCEPTED)
		return outcome;
	if (call.reply.data_size >= sizeof(int32_t) + OBJECT_SIZE && !get(data, 4, 0)) {
		memcpy(&object, data + sizeof(int32_t), OBJECT_SIZE);
		if (object.hdr.type == BINDER_TYPE_HANDLE) {
			*handle = object.handle;
			*buffer = call.reply.data.ptr.buffer;
			return ACCEPTED;
		}
	}
	port_free(port, call.reply.data.ptr.buffer);
	return ACCEPTED;
}

// Reads the name and what may follow it; false for what nobody here sends.
bool names_read(const void *data, size_t size, char *name, struct flat_binder_object *object)
{
	unsigned char head[REQUEST_MAX];
	size_t start = put_head(head, "") - 8; // where the length of the name is
	int32_t units = get(data, size, start);
	size_t end = start + 4 + ((((size_t)units + 1) * 2 + 3) & ~(size_t)3);

	if (units <= 0 || units >= NAME_MAX_UNITS || end > size || memcmp(data, head, start))
		return false;
	for (int32_t i = 0; i <= units; i++)
		name[i] = ((const char *)data)[start + 4 + (size_t)i * 2];
	memset(object, 0, sizeof *object);
	if (end + OBJECT_SIZE <= size)
		memcpy(object, (const char *)data + end, OBJECT_SIZE);
	return true;
}

size_t names_write_empty(unsigned char *reply)
{
	return put(reply, 0, 0);
}

size_t names_write_handle(unsigned char *reply, bool is_there, uint32_t handle, size_t *at)
{
	struct flat_binder_object object = { 0 };

	if (is_there) {
		object.hdr.type = BINDER_TYPE_HANDLE;
		object.handle = handle;
	}
	*at = put(reply, 0, 0);
	return put_object(reply, *at, &object);
}
