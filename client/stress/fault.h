// SPDX-License-Identifier: Apache-2.0
// fault.h - mistakes on purpose, in workers that are built with -DSTRESS_FAULTS: so that tests can
// see that each of them is found. $STRESS_FAULT names the one to make, every now and then.

#pragma once

#include <stdbool.h>

#ifdef STRESS_FAULTS
#include <stdlib.h>
#include <string.h>

static inline bool always_fault(const char *name)
{
	const char *wanted = getenv("STRESS_FAULT");

	return wanted && !strcmp(wanted, name);
}

static inline bool fault(const char *name)
{
	static unsigned turns;

	return always_fault(name) && __atomic_add_fetch(&turns, 1, __ATOMIC_RELAXED) % 16 == 1;
}
#else
static inline bool always_fault(const char *name)
{
	(void)name;
	return false;
}

static inline bool fault(const char *name)
{
	(void)name;
	return false;
}
#endif
