// SPDX-License-Identifier: Apache-2.0
// broker.c - runs dbus-broker on a socket of ours, as its controller: it needs no systemd.
//
//   broker PATH PROGRAM    has the program listen there, prints "ready", ends with it
//
// dbus-broker listens to nothing by itself. Whoever starts it is the other end of its controller's
// socket, and hands over listening sockets with a policy (AddListener of org.bus1.DBus.Broker). Ours
// is that of a session bus: everybody may connect, own and send everything.

#include "bench.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>

// Allowed or not and how urgent: to connect; rules of names; of sending; of receiving.
#define BATCH "bta(btbs)a(btssssuutt)a(btssssuutt)"
#define POLICY "a(u(" BATCH "))a(buu(" BATCH "))a(ss)bs"
#define EVERYBODY UINT32_MAX
#define PLENTY "1000000000"

static void check(int result, const char *what)
{
	if (result < 0) {
		errno = -result;
		die(what);
	}
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		die("socket");
	if (strlen(path) >= sizeof address.sun_path)
		die_saying("the path is too long for a socket");
	strcpy(address.sun_path, path);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, SOMAXCONN) < 0)
		die(path);
	return fd;
}

// Starts the broker; the controller's socket is its standard input.
static pid_t start(const char *program, int controller)
{
	pid_t broker = fork();

	if (broker < 0)
		die("fork");
	if (broker > 0)
		return broker;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(controller, STDIN_FILENO) < 0)
		die("dup2");
	execl(program, "dbus-broker", "--controller", "0", "--machine-id",
	       "0123456789abcdef0123456789abcdef", "--max-bytes", PLENTY, "--max-fds", PLENTY,
	       "--max-matches", PLENTY, "--max-objects", PLENTY, NULL);
	die(program);
}

static void append_policy(sd_bus_message *call)
{
	// One batch for everybody: yes to each, with priority 1.
	check(sd_bus_message_append(call, "v", "(" POLICY ")",
				    1, EVERYBODY, true, UINT64_C(1),
				    1, true, UINT64_C(1), true, "",
				    1, true, UINT64_C(1), "", "", "", "", 0, 0, UINT64_C(0), UINT64_MAX,
				    1, true, UINT64_C(1), "", "", "", "", 0, 0, UINT64_C(0), UINT64_MAX,
				    0, 0, false, "session"),
	      "the policy");
}

static sd_bus *control(int fd)
{
	sd_bus *bus;

	check(sd_bus_new(&bus), "sd_bus_new");
	check(sd_bus_set_fd(bus, fd, fd), "sd_bus_set_fd");
	check(sd_bus_start(bus), "sd_bus_start");
	return bus;
}

int main(int argc, char **argv)
{
	int pair[2], status;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *call;

	if (argc != 3)
		die_saying("usage: broker PATH PROGRAM");
	int listener = listen_at(argv[1]);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		die("socketpair");
	pid_t broker = start(argv[2], pair[1]);
	close(pair[1]);
	sd_bus *bus = control(pair[0]);
	check(sd_bus_message_new_method_call(bus, &call, NULL, "/org/bus1/DBus/Broker",
					     "org.bus1.DBus.Broker", "AddListener"),
	      "new_method_call");
	check(sd_bus_message_append(call, "oh", "/org/bus1/DBus/Listener/0", listener), "append");
	append_policy(call);
	if (sd_bus_call(bus, call, 0, &error, NULL) < 0)
		die_saying(error.message ? error.message : "dbus-broker does not take our socket");
	announce_ready();
	waitpid(broker, &status, 0);
	die_saying("dbus-broker has ended");
}
