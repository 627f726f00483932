// SPDX-License-Identifier: Apache-2.0
// collect.c - what of this program's instructions callgrind collects; see roundtrip.py.

#include <valgrind/callgrind.h>

// From now on instructions can be collected, which makes everything slow.
void begin(void)
{
	CALLGRIND_START_INSTRUMENTATION;
}

// Collects if it did not, and the other way round.
void turn(void)
{
	CALLGRIND_TOGGLE_COLLECT;
}

// Writes down what was collected so far, and begins anew.
void end(const char *name)
{
	CALLGRIND_DUMP_STATS_AT(name);
}
