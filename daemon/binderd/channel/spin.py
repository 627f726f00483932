# SPDX-License-Identifier: Apache-2.0
"""Looking for the next request for some microseconds before sleeping until it comes.

A loop that sleeps has to be woken, by the client, and has to be put on a processor again: with
clients on another one that takes longer than the whole request. So after a request we look again
and again for a moment, and let others have the processor between two looks (sched_yield): where
everybody shares one, that is how the client comes to its next request, and it costs nothing.

Where others keep the processor for long after such a look, they need it, and we are better off
asleep: a process that is woken comes before those that compute, one that has yielded comes last.

It is for clients that call often. One that calls now and then comes too late for it anyway, so
after some looks in vain there are none for a while, and a daemon without calls sleeps.
"""

from __future__ import annotations

import os
from time import perf_counter_ns
from typing import Final, Protocol

_TRUST: Final = 8  # so often in vain, then not for a while
_PAUSE: Final = 64  # so many times
_LOST_NS: Final = 500_000  # where two looks are further apart there is no processor to spare


class Poll(Protocol):
    """A ``select.poll`` object."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Look at a descriptor from now on."""

    def unregister(self, fd: int, /) -> None:
        """Do so no longer."""

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """Return what is ready, as soon as anything is."""


class Spin:
    """One channel's.

    Args:
        nanoseconds: for how long to look; 0: not at all.
    """

    __slots__ = ("_nanoseconds", "_paused", "_trust")

    def __init__(self, nanoseconds: int) -> None:
        self._nanoseconds = nanoseconds
        self._trust = _TRUST
        self._paused = 0

    def look(self, poll: Poll) -> list[tuple[int, int]]:
        """Return what is ready, nothing if that takes longer than is looked for."""
        if self._paused:
            self._paused -= 1
            return []
        if not self._nanoseconds:
            return []
        now = perf_counter_ns()
        end = now + self._nanoseconds
        while True:
            before = now
            os.sched_yield()
            ready = poll.poll(0)
            now = perf_counter_ns()
            if now - before > _LOST_NS:
                self._trust = 0
                break
            if ready:
                self._trust = _TRUST
                return ready
            if now >= end:
                break
        self._trust -= 1
        if self._trust <= 0:
            # One look in vain is enough from then on, until there was something.
            self._trust, self._paused = 1, _PAUSE
        return ready
