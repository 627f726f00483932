// SPDX-License-Identifier: Apache-2.0
// bench.h - what the benchmark programs share: the timed loop, percentiles, a line of results.
//
// A measured call ends when the reply can be read. Stamping the request and comparing the reply
// happen outside the measured time, in the same way for every system, so that the ratios compare
// transport only.

#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Sends `payload` and returns the echoed bytes, which stay readable until the next call.
typedef const void *echo_fn(void *peer, const void *payload, size_t size);

struct samples {
	double *us;
	size_t count;
	size_t room;
};

static inline _Noreturn void die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

static inline _Noreturn void die_saying(const char *what)
{
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
	exit(1);
}

static inline void *allocate(size_t size)
{
	void *memory = malloc(size);
	if (!memory)
		die("malloc");
	return memory;
}

// Tells whoever waits on our standard output that calls will be answered from now on.
static inline void announce_ready(void)
{
	puts("ready");
	fflush(stdout);
}

static inline double now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static inline void samples_add(struct samples *samples, double us)
{
	if (samples->count == samples->room) {
		samples->room = samples->room ? samples->room * 2 : 1 << 16;
		samples->us = realloc(samples->us, samples->room * sizeof(double));
		if (!samples->us)
			die("realloc");
	}
	samples->us[samples->count++] = us;
}

static inline int compare_us(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;
	return (a > b) - (a < b);
}

// One line of JSON. The rate is the inverse of the mean: the checks between the calls do not count.
static inline void samples_report(struct samples *samples, size_t size)
{
	double sum = 0;

	qsort(samples->us, samples->count, sizeof(double), compare_us);
	for (size_t i = 0; i < samples->count; i++)
		sum += samples->us[i];
	double mean = sum / (double)samples->count;
	printf("{\"size\": %zu, \"calls\": %zu, \"p50_us\": %.3f, \"p99_us\": %.3f, "
	       "\"mean_us\": %.3f, \"calls_per_s\": %.1f}\n",
	       size, samples->count, samples->us[samples->count / 2],
	       samples->us[samples->count * 99 / 100], mean, 1e6 / mean);
}

// Calls `echo` for `seconds`, after a fifth of that as warm-up, checks every reply and reports.
static inline void bench_echo(echo_fn *echo, void *peer, size_t size, double seconds)
{
	struct samples samples = { 0 };
	unsigned char *payload = allocate(size + 1);
	double warm_us = now_us() + seconds * 0.2e6;
	double stop_us = warm_us + seconds * 1e6;
	double end_us = 0;

	for (size_t i = 0; i < size; i++)
		payload[i] = (unsigned char)(i * 31 + (i >> 8));
	for (uint64_t serial = 0; end_us < stop_us || !samples.count; serial++) {
		// A new stamp in every request: a reply left over from an earlier call is noticed.
		memcpy(payload, &serial, size < sizeof serial ? size : sizeof serial);
		double start_us = now_us();
		const void *reply = echo(peer, payload, size);
		end_us = now_us();
		if (memcmp(reply, payload, size) != 0)
			die_saying("the reply is not the request");
		if (start_us >= warm_us)
			samples_add(&samples, end_us - start_us);
	}
	samples_report(&samples, size);
	free(samples.us);
	free(payload);
}

// Payload size and duration from the command line, with bounds that every system can carry.
static inline size_t parse_size(const char *text)
{
	char *end;
	unsigned long long size = strtoull(text, &end, 10);
	if (*end || end == text || size > 1 << 20)
		die_saying("the size must be a number of bytes up to 1048576");
	return (size_t)size;
}

static inline double parse_seconds(const char *text)
{
	char *end;
	double seconds = strtod(text, &end);
	if (*end || end == text || !(seconds > 0 && seconds <= 3600))
		die_saying("the duration must be a number of seconds above 0");
	return seconds;
}
