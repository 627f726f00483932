// SPDX-License-Identifier: Apache-2.0
// board.c - the shared memory: finding things in it, counting, complaining, telling its layout.
//
// Latencies are counted in the array that HdrHistogram defines, so that its Python library can read
// them: buckets of doubling width, each with 1024 equal parts (the first with 2048), unit 512 ns.

#define _GNU_SOURCE
#include "board.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct settings *board;
struct worker *self;
unsigned self_number;

static void *at(uint64_t region, uint64_t number, size_t size)
{
	return (char *)board + region + number * size;
}

void board_open(int fd)
{
	struct stat status;

	if (fstat(fd, &status) || (size_t)status.st_size < sizeof *board) {
		fputs("stress worker: started by binderctl stress only\n", stderr);
		exit(2);
	}
	board = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (board == MAP_FAILED) {
		perror("stress worker: mmap");
		exit(1);
	}
	close(fd);
}

// What this life counts for itself begins anew; the totals go on.
void board_be(unsigned number, uint64_t life)
{
	uint64_t threads = board->clients * board->threads;

	self_number = number;
	self = board_worker(number);
	set(&self->ready, 0);
	set(&self->idle, 0);
	self->files_at_start = self->files_at_end = 0;
	for (unsigned other = 0; other < board->servers + board->clients; other++)
		memset(board_link(number, other), 0, sizeof(struct link));
	for (unsigned i = 0; number < board->servers && i < threads; i++)
		memset(board_received(number, i), 0, sizeof(struct cell));
	for (unsigned s = 0; number >= board->servers && s < board->servers; s++)
		for (uint64_t i = 0; i < board->threads; i++)
			memset(board_sent(s, (number - board->servers) * board->threads + i), 0,
			       sizeof(struct cell));
	self->pid = (uint64_t)getpid();
	set(&self->life, life);
}

struct worker *board_worker(unsigned number)
{
	return at(board->at_workers, number, sizeof(struct worker));
}

struct link *board_link(unsigned observer, unsigned observed)
{
	uint64_t workers = board->servers + board->clients;

	return at(board->at_links, observer * workers + observed, sizeof(struct link));
}

static struct cell *cell(uint64_t region, unsigned server, unsigned client_thread)
{
	uint64_t threads = board->clients * board->threads;

	return at(region, server * threads + client_thread, sizeof(struct cell));
}

struct cell *board_sent(unsigned server, unsigned client_thread)
{
	return cell(board->at_sent, server, client_thread);
}

struct cell *board_received(unsigned server, unsigned client_thread)
{
	return cell(board->at_received, server, client_thread);
}

void board_record(unsigned client, enum kind kind, uint64_t ns)
{
	uint64_t *counts = at(board->at_histograms, client % SHARDS * KINDS + kind,
			      HISTOGRAM_COUNTS * sizeof(uint64_t));
	const uint64_t mask = ((1u << HISTOGRAM_SUB_BITS) - 1) << HISTOGRAM_UNIT_BITS;

	if (ns > HISTOGRAM_HIGHEST)
		ns = HISTOGRAM_HIGHEST;
	unsigned bits = 64 - (unsigned)__builtin_clzll(ns | mask);
	unsigned bucket = bits - HISTOGRAM_UNIT_BITS - HISTOGRAM_SUB_BITS;
	uint64_t part = ns >> (bucket + HISTOGRAM_UNIT_BITS);
	add(&counts[((uint64_t)bucket << (HISTOGRAM_SUB_BITS - 1)) + part], 1);
}

void board_complain(uint64_t *count, const char *format, ...)
{
	va_list arguments;

	if (__atomic_fetch_add(count, 1, __ATOMIC_RELAXED) || self->complaint[0])
		return;
	va_start(arguments, format);
	vsnprintf(self->complaint, sizeof self->complaint, format, arguments);
	va_end(arguments);
}

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void pause_ns(uint64_t ns)
{
	struct timespec time = { .tv_sec = (time_t)(ns / 1000000000u),
				 .tv_nsec = (long)(ns % 1000000000u) };

	nanosleep(&time, NULL);
}

#define AS_TEXT(name) "\"" #name "\", "
#define LIST(title, FIELDS) printf("\"%s\": [%.*s], ", title, (int)sizeof(FIELDS(AS_TEXT)) - 3, \
				   FIELDS(AS_TEXT))

void board_print_layout(void)
{
	putchar('{');
	LIST("settings", SETTINGS);
	LIST("worker", WORKER);
	LIST("cell", CELL);
	LIST("link", LINK);
	printf("\"complaint_size\": %d, \"kinds\": %d, \"shards\": %d, "
	       "\"counts_size\": %d, \"lowest\": %llu, \"highest\": %llu, \"digits\": %d}\n",
	       COMPLAINT_MAX, KINDS, SHARDS, HISTOGRAM_COUNTS, HISTOGRAM_LOWEST, HISTOGRAM_HIGHEST,
	       HISTOGRAM_DIGITS);
}
