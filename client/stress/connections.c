// SPDX-License-Identifier: Apache-2.0
// connections.c - from a name to a handle, and the end of it.

#include "connections.h"

#include "board.h"
#include "fault.h"
#include "names.h"
#include "workers.h"

#include <pthread.h>
#include <stdlib.h>

enum state { NONE, CONNECTING, UP, DOWN };
enum { RETRY_NS = 2000000 };

struct connection {
	enum state state;
	uint32_t handle;
	uint64_t life; // of its server
	uint64_t retry_at;
	unsigned users;
	bool is_told;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct connection *connections;
static bool is_connecting; // one thread at a time: the others go on with what is connected

void connections_prepare(void)
{
	connections = allocate(board->servers * sizeof *connections);
}

bool connection_use(unsigned server, struct use *use)
{
	struct connection *connection = &connections[server];

	pthread_mutex_lock(&lock);
	bool is_up = connection->state == UP;
	if (is_up) {
		connection->users++;
		*use = (struct use){ server, connection->handle, connection->life };
	}
	pthread_mutex_unlock(&lock);
	return is_up;
}

// With the lock held.
static void release_if_over(struct port *port, struct connection *connection)
{
	if (connection->state != DOWN || !connection->is_told || connection->users)
		return;
	port_queue(port, BC_RELEASE, &connection->handle);
	connection->state = NONE;
}

void connection_end(struct port *port, const struct use *use, bool is_dead)
{
	struct connection *connection = &connections[use->server];

	pthread_mutex_lock(&lock);
	connection->users--;
	if (is_dead)
		connection->state = DOWN;
	release_if_over(port, connection);
	pthread_mutex_unlock(&lock);
}

static void note_told(unsigned server)
{
	if (fault("deaf"))
		return;
	add(&board_link(self_number, server)->told, 1);
	add(&self->told, 1);
}

void connection_told(struct port *port, binder_uintptr_t cookie)
{
	unsigned server = (unsigned)(cookie >> 32);
	struct connection *connection = &connections[server < board->servers ? server : 0];

	port_queue(port, BC_DEAD_BINDER_DONE, &cookie);
	pthread_mutex_lock(&lock);
	if (connection->state == NONE || connection->is_told ||
	    cookie != cookie_of(server, connection->life)) {
		board_complain(&self->stray, "client %u: told of a death that it did not ask for",
			       self_number);
	} else {
		note_told(server);
		connection->is_told = true;
		if (connection->state == UP)
			connection->state = DOWN;
		release_if_over(port, connection);
	}
	pthread_mutex_unlock(&lock);
}

// Returns whether this thread is the one to connect.
static bool begin(unsigned server, uint64_t life)
{
	struct connection *connection = &connections[server];
	uint64_t now = now_ns();

	pthread_mutex_lock(&lock);
	bool is_ours = !is_connecting && connection->state == NONE && life &&
		       life != connection->life && now >= connection->retry_at;
	if (is_ours) {
		is_connecting = true;
		connection->state = CONNECTING;
		connection->retry_at = now + RETRY_NS;
		connection->is_told = false;
	}
	pthread_mutex_unlock(&lock);
	return is_ours;
}

static void settle(struct port *port, struct connection *connection, enum state state)
{
	pthread_mutex_lock(&lock);
	is_connecting = false;
	connection->state = state == UP && connection->is_told ? DOWN : state;
	release_if_over(port, connection);
	pthread_mutex_unlock(&lock);
}

static void watch(struct port *port, const struct use *use, binder_uintptr_t buffer)
{
	struct binder_handle_cookie watch = { .handle = use->handle,
					      .cookie = cookie_of(use->server, use->life) };
	struct link *link = board_link(self_number, use->server);

	link->life = use->life;
	add(&link->linked, 1);
	add(&self->linked, 1);
	port_queue(port, BC_ACQUIRE, &use->handle); // before the buffer, and its reference, goes
	port_queue(port, BC_REQUEST_DEATH_NOTIFICATION, &watch);
	port_free(port, buffer);
	port_flush(port);
}

void connection_make(struct port *port, unsigned server,
		     bool (*greet)(struct port *port, const struct use *use))
{
	struct connection *connection = &connections[server];
	struct use use = { .server = server, .life = look(&board_worker(server)->ready) };
	binder_uintptr_t buffer = 0;
	char name[NAME_MAX_UNITS];

	if (!begin(server, use.life))
		return;
	name_of_server(name, server, use.life);
	if (names_check(port, name, &use.handle, &buffer) != ACCEPTED || !buffer) {
		settle(port, connection, NONE); // no room, or it has died since: later again
		return;
	}
	pthread_mutex_lock(&lock);
	connection->handle = use.handle;
	connection->life = use.life;
	pthread_mutex_unlock(&lock);
	watch(port, &use, buffer);
	settle(port, connection, greet(port, &use) ? UP : DOWN);
}
