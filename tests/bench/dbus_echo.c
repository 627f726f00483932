// SPDX-License-Identifier: Apache-2.0
// dbus_echo.c - echo server and measuring client over a D-Bus bus, with sd-bus: `ay` in, `ay` out.
//
//   dbus_echo serve ADDRESS NAME             takes the bus name, prints "ready", echoes
//   dbus_echo call ADDRESS NAME SIZE SECONDS calls it, prints one line of JSON
//   dbus_echo idle ADDRESS COUNT             as many connected processes that do nothing

#include "bench.h"

#include <systemd/sd-bus.h>

#define ECHO_INTERFACE "bench.Echo"
#define ECHO_PATH "/echo"

struct caller {
	sd_bus *bus;
	const char *name;
	sd_bus_message *reply; // owns the bytes handed out by the last call
};

static int check(int result, const char *what)
{
	if (result < 0) {
		errno = -result;
		die(what);
	}
	return result;
}

static sd_bus *connect_bus(const char *address)
{
	sd_bus *bus;

	check(sd_bus_new(&bus), "sd_bus_new");
	check(sd_bus_set_address(bus, address), "sd_bus_set_address");
	check(sd_bus_set_bus_client(bus, 1), "sd_bus_set_bus_client");
	check(sd_bus_start(bus), "sd_bus_start");
	return bus;
}

static int on_echo(sd_bus_message *request, void *unused, sd_bus_error *error)
{
	const void *data;
	size_t size;
	sd_bus_message *reply;

	(void)unused, (void)error;
	check(sd_bus_message_read_array(request, 'y', &data, &size), "read_array");
	check(sd_bus_message_new_method_return(request, &reply), "new_method_return");
	check(sd_bus_message_append_array(reply, 'y', data, size), "append_array");
	check(sd_bus_send(NULL, reply, NULL), "sd_bus_send");
	sd_bus_message_unref(reply);
	return 1;
}

static const sd_bus_vtable echo_methods[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD("Echo", "ay", "ay", on_echo, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

static _Noreturn void serve(sd_bus *bus, const char *name)
{
	check(sd_bus_add_object_vtable(bus, NULL, ECHO_PATH, ECHO_INTERFACE, echo_methods, NULL),
	      "add_object_vtable");
	check(sd_bus_request_name(bus, name, 0), "request_name");
	announce_ready();
	for (;;) {
		while (check(sd_bus_process(bus, NULL), "sd_bus_process") > 0)
			;
		check(sd_bus_wait(bus, UINT64_MAX), "sd_bus_wait");
	}
}

static const void *call(void *peer, const void *payload, size_t size)
{
	struct caller *caller = peer;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *request;
	const void *data;
	size_t reply_size;

	sd_bus_message_unref(caller->reply);
	check(sd_bus_message_new_method_call(caller->bus, &request, caller->name, ECHO_PATH,
					     ECHO_INTERFACE, "Echo"),
	      "new_method_call");
	check(sd_bus_message_append_array(request, 'y', payload, size), "append_array");
	check(sd_bus_call(caller->bus, request, 0, &error, &caller->reply), "sd_bus_call");
	check(sd_bus_message_read_array(caller->reply, 'y', &data, &reply_size), "read_array");
	sd_bus_message_unref(request);
	if (reply_size != size)
		die_saying("the reply has another size than the request");
	return data;
}

static void join(const char *address)
{
	const char *name;

	check(sd_bus_get_unique_name(connect_bus(address), &name), "the greeting");
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "serve"))
		serve(connect_bus(argv[2]), argv[3]);
	if (argc == 4 && !strcmp(argv[1], "idle"))
		be_a_crowd(parse_count(argv[3]), join, argv[2]);
	if (argc != 6 || strcmp(argv[1], "call"))
		die_saying("usage: dbus_echo serve ADDRESS NAME | call ADDRESS NAME SIZE SECONDS | "
			   "idle ADDRESS COUNT");
	struct caller caller = { .bus = connect_bus(argv[2]), .name = argv[3] };
	bench_echo(call, &caller, parse_size(argv[4]), parse_seconds(argv[5]));
	sd_bus_message_unref(caller.reply);
	sd_bus_flush_close_unref(caller.bus);
	return 0;
}
