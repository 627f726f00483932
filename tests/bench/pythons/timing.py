# SPDX-License-Identifier: Apache-2.0
"""What all clients of the Python bench have in common: the command line, the clock, the report.

A peer is a program with two commands: ``serve ADDRESS`` prints ``ready`` and answers calls until it
is ended, ``call ADDRESS SECONDS`` calls and prints one JSON object. Each call carries TEXT there
and back; what comes back is compared outside of the time that is taken.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TEXT: Final = "hello"
_WARM_UP: Final = 0.2  # of the seconds, before them


def ready() -> None:
    """Say that calls are answered from now on."""
    print("ready", flush=True)


def measure(call: Callable[[str], str], seconds: float) -> None:
    """Call as often as there is time for, and report."""
    _repeat(call, seconds * _WARM_UP)
    _report(_repeat(call, seconds))


async def measure_awaiting(call: Callable[[str], Awaitable[str]], seconds: float) -> None:
    """Do what ``measure`` does, with a call that is to be awaited."""
    await _repeat_awaiting(call, seconds * _WARM_UP)
    _report(await _repeat_awaiting(call, seconds))


def run(serve: Callable[[str], object], call: Callable[[str, float], object]) -> None:
    """Do what the command line says."""
    command, address, *more = sys.argv[1:]
    if command == "serve":
        serve(address)
    else:
        call(address, float(more[0]))


def _repeat(call: Callable[[str], str], seconds: float) -> list[int]:
    durations = []
    now = time.perf_counter_ns()
    end = now + int(seconds * 1e9)
    while now < end:
        start = time.perf_counter_ns()
        answer = call(TEXT)
        now = time.perf_counter_ns()
        durations.append(now - start)
        _check(answer)
    return durations


async def _repeat_awaiting(call: Callable[[str], Awaitable[str]], seconds: float) -> list[int]:
    durations = []
    now = time.perf_counter_ns()
    end = now + int(seconds * 1e9)
    while now < end:
        start = time.perf_counter_ns()
        answer = await call(TEXT)
        now = time.perf_counter_ns()
        durations.append(now - start)
        _check(answer)
    return durations


def _check(answer: str) -> None:
    if answer != TEXT:
        sys.exit(f"{TEXT!r} came back as {answer!r}")


def _report(durations: list[int]) -> None:
    durations.sort()
    mean_us = statistics.fmean(durations) / 1000
    report = {
        "calls": len(durations),
        "p50_us": durations[len(durations) // 2] / 1000,
        "p99_us": durations[len(durations) * 99 // 100] / 1000,
        "mean_us": mean_us,
        "calls_per_s": 1e6 / mean_us,
    }
    print(json.dumps(report), flush=True)
