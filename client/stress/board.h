// SPDX-License-Identifier: Apache-2.0
// board.h - the memory that all workers and binderctl share: what is to be done, and what was done.
//
// Everything is a uint64_t, so that "layout" can tell binderctl the names and that is all it needs.
// It outlives a worker that is killed, and the one that takes its place goes on counting there.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What binderctl wants; `phase` changes while it runs, `done` and `started` count.
#define SETTINGS(F) \
	F(phase) F(seed) F(run) F(servers) F(clients) F(threads) F(payload_min) F(payload_max) \
	F(oneway) F(nested) F(files) F(interval_ns) F(limit) F(done) \
	F(at_workers) F(at_sent) F(at_received) F(at_links) F(at_histograms) F(size)

// What a worker has seen. `life` says which incarnation it is, `ready` the one that is ready,
// `idle` how many threads of a client have stopped calling. From `corrupt` on: what must not be.
#define WORKER(F) \
	F(pid) F(life) F(ready) F(idle) F(calls) F(oneways) F(nesteds) F(files) F(bytes) \
	F(no_room) F(spam) F(frozen) F(pending_frozen) F(no_room_for_reply) F(dead) F(backoff_ns) \
	F(received) F(stale) F(linked) F(told) F(pool) F(files_at_start) F(files_at_end) \
	F(corrupt) F(lost) F(doubled) F(overtaken) F(stray) F(refused) F(broken)

// Of a client thread and a server: how far the numbers of its calls are, by the one or the other.
#define CELL(F) F(client_life) F(server_life) F(oneways) F(calls)

// Of two workers: how often one asked to be told of the other's death, and was told.
#define LINK(F) F(linked) F(told) F(life)

#define AS_FIELD(name) uint64_t name;
enum { COMPLAINT_MAX = 192 };

struct settings { SETTINGS(AS_FIELD) };
struct worker {
	WORKER(AS_FIELD)
	char complaint[COMPLAINT_MAX]; // the first thing that went wrong, as text
};
struct cell { CELL(AS_FIELD) };
struct link { LINK(AS_FIELD) };

enum phase { STARTING, RUNNING, DRAINING };
enum kind { CALL, ONEWAY, NESTED, FILES, KINDS };

// HdrHistogram's layout of counts: 3 digits, 1000 to 1e12 ns. See the head of board.c.
enum { HISTOGRAM_DIGITS = 3, HISTOGRAM_UNIT_BITS = 9, HISTOGRAM_SUB_BITS = 11 };
enum { HISTOGRAM_BUCKETS = 21, HISTOGRAM_COUNTS = (HISTOGRAM_BUCKETS + 1) << 10 };
enum { SHARDS = 8 }; // so many histograms of each kind are added up in the end
#define HISTOGRAM_LOWEST 1000ull
#define HISTOGRAM_HIGHEST 1000000000000ull

extern struct settings *board; // its first bytes
extern struct worker *self; // the worker that this process is
extern unsigned self_number; // servers first, then clients

void board_open(int fd);
void board_be(unsigned number, uint64_t life);
void board_print_layout(void);
struct worker *board_worker(unsigned number);
struct link *board_link(unsigned observer, unsigned observed);
struct cell *board_sent(unsigned server, unsigned client_thread);
struct cell *board_received(unsigned server, unsigned client_thread);
void board_record(unsigned client, enum kind kind, uint64_t ns);
void board_complain(uint64_t *count, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
uint64_t now_ns(void);
void pause_ns(uint64_t ns);

static inline void add(uint64_t *count, uint64_t more)
{
	__atomic_fetch_add(count, more, __ATOMIC_RELAXED);
}

static inline uint64_t look(const uint64_t *field)
{
	return __atomic_load_n(field, __ATOMIC_ACQUIRE);
}

static inline void set(uint64_t *field, uint64_t value)
{
	__atomic_store_n(field, value, __ATOMIC_RELEASE);
}
