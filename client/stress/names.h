// SPDX-License-Identifier: Apache-2.0
// names.h - the service manager's requests and replies as Android 11 and later write them: enough
// of android.os.IServiceManager to offer a service, to find one, and to be one.

#pragma once

#include "port.h"

enum { NAME_MAX_UNITS = 64, REQUEST_MAX = 512 };
enum { CHECK_SERVICE = 2, ADD_SERVICE = 3 };

void name_of_server(char *name, unsigned server, uint64_t life);
enum outcome names_add(struct port *port, const char *name, binder_uintptr_t node, int *status);
enum outcome names_check(struct port *port, const char *name, uint32_t *handle,
			 binder_uintptr_t *buffer);

// For the manager's side.
bool names_read(const void *data, size_t size, char *name, struct flat_binder_object *object);
size_t names_write_empty(unsigned char *reply);
size_t names_write_handle(unsigned char *reply, bool is_there, uint32_t handle, size_t *at);
