// SPDX-License-Identifier: Apache-2.0
// bench.h - what the benchmark programs share: the timed loop, percentiles, processor time, idle
// processes, a line of results.
//
// A measured call ends when the reply can be read. Stamping the request and comparing the reply
// happen outside the measured time, in the same way for every system, so that the ratios compare
// transport only. Processor time is that of the same span, with all that happens in it: our own, and
// that of each process whose number is in BENCH_PROCESSES (separated by spaces) or was given to
// bench_watch. Clients that are measured together begin together: at BENCH_BEGIN_US of the monotonic
// clock.

#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define WATCHED_MAX 32

// Sends `payload` and returns the echoed bytes, which stay readable until the next call.
typedef const void *echo_fn(void *peer, const void *payload, size_t size);

struct samples {
	double *us;
	size_t count;
	size_t room;
};

// Processor time: of ourselves, then of others in the order in which they became known.
struct clocks {
	clockid_t id[WATCHED_MAX];
	double us[WATCHED_MAX];
	size_t count;
};

static struct clocks watched;

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

// Has the processor time of one more process measured; 0: our own.
static inline void bench_watch(pid_t pid)
{
	if (watched.count == WATCHED_MAX)
		die_saying("too many processes take part");
	if (clock_getcpuclockid(pid, &watched.id[watched.count++]) != 0)
		die_saying("a process that takes part is gone");
}

// Ourselves first; what bench_watch was given meanwhile (a child) stays last.
static inline void watch_the_listed(void)
{
	const char *list = getenv("BENCH_PROCESSES");
	struct clocks children = watched;

	watched.count = 0;
	bench_watch(0);
	for (char *end; list && *list; list = end) {
		long pid = strtol(list, &end, 10);
		if (end == list)
			break;
		bench_watch((pid_t)pid);
	}
	for (size_t i = 0; i < children.count && watched.count < WATCHED_MAX; i++)
		watched.id[watched.count++] = children.id[i];
}

// Leaves the time since the last look; one that ended meanwhile has used nothing since.
static inline void look_at_clocks(double us[WATCHED_MAX])
{
	for (size_t i = 0; i < watched.count; i++) {
		struct timespec now;
		if (clock_gettime(watched.id[i], &now) < 0)
			continue;
		double at_us = (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
		us[i] = at_us - watched.us[i];
		watched.us[i] = at_us;
	}
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

// One line of JSON. calls_per_s is the inverse of the mean: the checks between the calls do not count
// there; in span_us and cpu_us they do.
static inline void samples_report(struct samples *samples, size_t size, double span_us)
{
	double sum = 0, cpu_us[WATCHED_MAX] = { 0 };

	look_at_clocks(cpu_us);
	qsort(samples->us, samples->count, sizeof(double), compare_us);
	for (size_t i = 0; i < samples->count; i++)
		sum += samples->us[i];
	double mean = sum / (double)samples->count;
	printf("{\"size\": %zu, \"calls\": %zu, \"p50_us\": %.3f, \"p99_us\": %.3f, "
	       "\"mean_us\": %.3f, \"calls_per_s\": %.1f, \"span_us\": %.1f, \"cpu_us\": [",
	       size, samples->count, samples->us[samples->count / 2],
	       samples->us[samples->count * 99 / 100], mean, 1e6 / mean, span_us);
	for (size_t i = 0; i < watched.count; i++)
		printf("%s%.1f", i ? ", " : "", cpu_us[i]);
	puts("]}");
}

// When the measured span begins: after a fifth of its length as warm-up, or when we were told.
static inline double span_begins_us(double seconds)
{
	const char *told = getenv("BENCH_BEGIN_US");

	return told ? strtod(told, NULL) : now_us() + seconds * 0.2e6;
}

// Calls `echo` for `seconds`, after some warm-up, checks every reply and reports.
static inline void bench_echo(echo_fn *echo, void *peer, size_t size, double seconds)
{
	struct samples samples = { 0 };
	unsigned char *payload = allocate(size + 1);
	double warm_us = span_begins_us(seconds);
	double stop_us = warm_us + seconds * 1e6;
	double begin_us = 0, end_us = 0, unused[WATCHED_MAX];

	watch_the_listed();
	for (size_t i = 0; i < size; i++)
		payload[i] = (unsigned char)(i * 31 + (i >> 8));
	for (uint64_t serial = 0; end_us < stop_us || !samples.count; serial++) {
		// A new stamp in every request: a reply left over from an earlier call is noticed.
		memcpy(payload, &serial, size < sizeof serial ? size : sizeof serial);
		if (!begin_us && now_us() >= warm_us) {
			look_at_clocks(unused);
			begin_us = now_us();
		}
		double start_us = now_us();
		const void *reply = echo(peer, payload, size);
		end_us = now_us();
		if (memcmp(reply, payload, size) != 0)
			die_saying("the reply is not the request");
		if (begin_us)
			samples_add(&samples, end_us - start_us);
	}
	samples_report(&samples, size, end_us - begin_us);
	free(samples.us);
	free(payload);
}

static inline _Noreturn void idle(pid_t parent, void (*join)(const char *), const char *place,
				  int joined)
{
	char byte = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		exit(1);
	join(place);
	if (write(joined, &byte, 1) != 1)
		die("write");
	for (;;)
		pause();
}

// Starts `count` processes that do what `join` does and then nothing, one after the other, says so,
// and waits to be ended: they end with us.
static inline _Noreturn void be_a_crowd(size_t count, void (*join)(const char *), const char *place)
{
	pid_t parent = getpid();
	int joined[2];
	char byte;

	for (size_t i = 0; i < count; i++) {
		if (pipe(joined) < 0)
			die("pipe");
		pid_t child = fork();
		if (child < 0)
			die("fork");
		if (child == 0)
			idle(parent, join, place, joined[1]);
		close(joined[1]);
		if (read(joined[0], &byte, 1) != 1)
			die_saying("an idle process did not get that far");
		close(joined[0]);
	}
	announce_ready();
	for (;;)
		pause();
}

static inline size_t parse_number(const char *text, size_t max, const char *complaint)
{
	char *end;
	unsigned long long number = strtoull(text, &end, 10);
	if (*end || end == text || number > max)
		die_saying(complaint);
	return (size_t)number;
}

// Payload size and duration from the command line, with bounds that every system can carry.
static inline size_t parse_size(const char *text)
{
	return parse_number(text, 1 << 20, "the size must be a number of bytes up to 1048576");
}

static inline size_t parse_count(const char *text)
{
	return parse_number(text, 20000, "a count must be a number up to 20000");
}

static inline double parse_seconds(const char *text)
{
	char *end;
	double seconds = strtod(text, &end);
	if (*end || end == text || !(seconds > 0 && seconds <= 3600))
		die_saying("the duration must be a number of seconds above 0");
	return seconds;
}
