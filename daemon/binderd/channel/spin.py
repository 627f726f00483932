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
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sized

_TRUST: Final = 8  # so often in vain, then not for a while
_PAUSE: Final = 64  # so many times
_MOMENT_NS: Final = 500_000  # so long are lanes served before others have their turn
# So many times as long is looked for what threads with lanes ask: nobody can have himself woken by
# that while we sleep, which a sleeping thread of theirs has to do then.
_WITH_LANES: Final = 4
_ROUNDS: Final = 3  # so often, before the channel is looked at
# Nothing is ready, but it is no time to sleep.
BUSY: Final[list[tuple[int, int]]] = [(-1, 0)]
_LOST_NS: Final = 500_000  # where two looks are further apart there is no processor to spare


class Poll(Protocol):
    """A ``select.poll`` object."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Look at a descriptor from now on."""

    def unregister(self, fd: int, /) -> None:
        """Do so no longer."""

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """Return what is ready, as soon as anything is."""


class Lanes(Protocol):
    """What is looked at beside the channel; see ``device/lanes.py``."""

    @property
    def watched(self) -> Sized:
        """What there is to look at."""

    def look(self, now: int) -> bool:
        """Look, and serve what is found; return whether there was anything.

        Args:
            now: nanoseconds.
        """

    def rest(self) -> None:
        """Nobody looks from now on."""


class Spin:
    """One channel's.

    Args:
        nanoseconds: for how long to look, four times as long for lanes; 0: not at all.
    """

    __slots__ = ("_nanoseconds", "_paused", "_trust")

    def __init__(self, nanoseconds: int) -> None:
        self._nanoseconds = nanoseconds
        self._trust = _TRUST
        self._paused = 0

    def look(self, poll: Poll, lanes: Lanes | None = None) -> list[tuple[int, int]]:
        """Return what is ready, nothing if that takes longer than is looked for.

        Args:
            poll: waits for the channel.
            lanes: looked at as well, and served; while there is something to do in them this
                returns after a moment, with ``BUSY`` if nothing else is ready.
        """
        if self._paused:
            self._paused -= 1
            return []
        if not self._nanoseconds:
            return []
        now = perf_counter_ns()
        length = self._nanoseconds
        if lanes is not None and lanes.watched:
            length *= _WITH_LANES
        end, moment, rounds = now + length, now + _MOMENT_NS, 0
        while True:
            before = now
            os.sched_yield()
            if lanes is not None and lanes.watched and lanes.look(now):
                before = now = perf_counter_ns()
                self._trust, end = _TRUST, now + length
                rounds += 1
                if rounds & _ROUNDS:
                    continue
                if now >= moment:
                    return poll.poll(0) or BUSY
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
