# SPDX-License-Identifier: Apache-2.0
"""Time limits of calls: a ``Ticket`` for each, which ends when the caller gives up waiting.

It is to a call what a cancel scope of trio's is to a task.  A thread that waits in the driver comes
back when it is woken, and then asks its ticket whether to wait on.  A thread that is just entering
the driver may miss being woken; so it is woken again, ever more rarely, until it has left.  One
thread of this process, which runs while there are alarms, watches the clock for all of them.
"""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Final

from binderclient.workers import HELPERS, IDLE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_PAUSE: Final = 0.02  # seconds between two attempts to wake a thread
_LONGEST_PAUSE: Final = 2.0
_LEAST: Final = 0.001  # seconds that a call gets in any case
_LONGEST_WAIT: Final = 3600.0  # some system calls refuse longer ones


def checked_timeout(timeout: float | None) -> float | None:
    """Return the seconds that a caller is ready to wait; None for ever.

    Raises:
        TypeError: this is no number.
        ValueError: it is not more than 0, or not a number (NaN).
    """
    if timeout is None or timeout == math.inf:
        return None
    check_seconds(timeout)
    if not timeout > 0:
        raise ValueError(f"timeout must be more than 0 seconds, not {timeout}; None is for ever")
    return float(timeout)


def check_seconds(timeout: object) -> None:
    """Refuse what is no number of seconds, nor None."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")


class Deadline:
    """The end of the time that a caller has for several calls.

    Args:
        seconds: from now; None: never.

    Raises:
        TypeError: that is no number.
    """

    def __init__(self, seconds: float | None) -> None:
        check_seconds(seconds)
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Return the seconds that are left, 0 or more; None for ever."""
        left = self._end - time.monotonic()
        return None if left == math.inf else max(0.0, left)

    def for_a_call(self, least: float = _LEAST) -> float | None:
        """Return the seconds that one call may take, ``least`` or more; None for ever."""
        left = self.left()
        return None if left is None else max(least, left)


class Alarm:
    """Something that is to be done at a time.

    Args:
        seconds: from now.
        ring: does it, in a thread of its own; must neither wait nor raise.
    """

    __slots__ = ("_when", "ring")

    def __init__(self, seconds: float, ring: Callable[[], None]) -> None:
        self._when = time.monotonic() + seconds
        self.ring = ring
        _clock.add(self, self._when)

    def stop(self) -> None:
        """Do nothing when the time has come; idempotent."""
        _clock.alarms.pop(self, None)


class _Clock:
    """The thread that watches the clock.

    Adding to a dict, removing from it and copying it are atomic: no lock, as signal handlers and
    finalizers set alarms, too.
    """

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self.alarms: dict[Alarm, float] = {}
        self._next = math.inf  # when the thread looks next
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._starting = threading.RLock()
        self._is_started = False

    def add(self, alarm: Alarm, when: float) -> None:
        """Have an alarm ring.

        Raises:
            RuntimeError: the system has no thread for the clock.
        """
        self.alarms[alarm] = when
        if when < self._next:
            self._news.put(None)
        if not self._is_started:
            self._start(alarm)

    def _start(self, alarm: Alarm) -> None:
        with self._starting:
            if self._is_started:
                return
            self._is_started = True
            try:
                threading.Thread(target=self._run, name="binderclient-clock", daemon=True).start()
            except BaseException:
                self._is_started = False
                self.alarms.pop(alarm, None)
                raise

    def _run(self) -> None:
        while True:
            self._next = math.inf  # a limit that is set meanwhile says so itself
            now = time.monotonic()
            alarms = self.alarms.copy()
            for alarm, when in alarms.items():
                if when <= now and self.alarms.pop(alarm, None) is not None:
                    alarm.ring()
            self._next = min((when for when in alarms.values() if when > now), default=math.inf)
            is_idle = self._next == math.inf
            pause = IDLE_SECONDS if is_idle else max(self._next - time.monotonic(), 0)
            try:
                self._news.get(timeout=min(pause, _LONGEST_WAIT))
            except queue.Empty:
                if is_idle and self._ends():
                    return
            alarms.clear()

    def _ends(self) -> bool:
        """End the thread, unless another thread sets an alarm right now."""
        with self._starting:
            self._is_started = False  # first: a thread that sets one looks at this afterwards
            if self.alarms:
                self._is_started = True
            return not self._is_started


_clock: Final = _Clock()


class Ticket:
    """Whether the caller of one call still waits for its reply.

    Args:
        seconds: how long it waits at most, from now; None: until ``give_up``.
        on_late: called when the time is up, if the call is not over; must neither wait nor raise.
    """

    __slots__ = ("_alarm", "_on_late", "_pause", "_wake", "is_given_up", "is_late", "seconds")

    def __init__(
        self, seconds: float | None = None, on_late: Callable[[], None] | None = None
    ) -> None:
        self.seconds = seconds
        self.is_given_up = self.is_late = False
        self._wake: Callable[[], None] | None = None
        self._pause = _FIRST_PAUSE
        self._on_late = on_late
        self._alarm = None if seconds is None else Alarm(seconds, self._expire)

    def begin(self, wake: Callable[[], None]) -> None:
        """Say that a thread waits in the driver from now on.

        Args:
            wake: has it look at ``is_given_up``; may be called when it waits no more.
        """
        self._wake = wake

    def end(self) -> None:
        """Say that the call is over, or that nobody begins it any more; idempotent."""
        self._wake = self._on_late = None
        if self._alarm is not None:
            self._alarm.stop()

    def give_up(self) -> None:
        """Have the thread wait no longer; returns at once, before it has left the driver."""
        self.is_given_up = True
        if self._wake is not None:
            self._insist_soon()

    def _expire(self) -> None:
        self.is_late = self.is_given_up = True  # before ``on_late``: see ``AsyncDevice.transact``
        tell = self._on_late
        if tell is not None:
            tell()
        self.give_up()

    def _insist_soon(self) -> None:
        try:
            HELPERS.put(self._insist)
        except RuntimeError:  # no thread for it: perhaps there is one later
            self._insist_later()

    def _insist_later(self) -> None:
        Alarm(self._pause, self._insist_soon)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _insist(self) -> None:
        wake = self._wake
        if wake is None:
            return
        wake()  # may take its time, if the driver does
        self._insist_later()
