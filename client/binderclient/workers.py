# SPDX-License-Identifier: Apache-2.0
"""``Workers``: threads for what would keep the caller's own thread.

To the driver a thread is a party of its own, which waits for one reply at a time; so a task that
makes several calls at once, or may have to leave one, has each made by a thread of these.  Nothing
here may know calls or event loops.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

IDLE_SECONDS: Final = 10.0  # after which a thread without a job ends


class Workers:
    """Threads that do jobs.

    A thread is started when a job finds none that is idle, and ends when it has been idle for
    IDLE_SECONDS.

    Args:
        limit: how many there are at most, beyond which jobs wait; None: as many as there are jobs.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._is_closed = False
        self.begin()
        _all.add(self)

    def begin(self) -> None:
        """Start afresh, without any thread, as it is in a forked child."""
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()  # its lock is reentrant: finalizers may come here
        self._count = self._idle = 0

    def put(self, job: Callable[[], None]) -> None:
        """Have a job done, which must not raise; may be called from any thread.

        Raises:
            RuntimeError: the system has no thread for it.
        """
        with self._changed:
            self._jobs.append(job)
            has_room = self._limit is None or self._count < self._limit
            if len(self._jobs) <= self._idle or not has_room:
                self._changed.notify()
                return
            self._count += 1
            try:
                threading.Thread(target=self._work, name="binderclient-worker", daemon=True).start()
            except BaseException:
                self._count -= 1
                self._jobs.remove(job)
                raise

    def close(self) -> None:
        """Have idle threads end at once from now on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job()
            del job  # what it holds is not to wait for the next one

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._idle += 1
            while not self._jobs:
                is_called = not self._is_closed and self._changed.wait(IDLE_SECONDS)
                if (not is_called or self._is_closed) and not self._jobs:
                    self._idle -= 1
                    self._count -= 1
                    return None
            self._idle -= 1
            return self._jobs.popleft()


def outcome_of(call: Callable[[], _T]) -> _T | BaseException:
    """Return what a function returns, or the exception that it raises."""
    try:
        return call()
    except BaseException as error:
        return error


def result_of(outcome: _T | BaseException) -> _T:
    """Return what a function returned, or raise what it raised."""
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


_all: Final[weakref.WeakSet[Workers]] = weakref.WeakSet()


def _begin_all() -> None:
    for workers in list(_all):
        workers.begin()


os.register_at_fork(after_in_child=_begin_all)
HELPERS: Final = Workers()
"""Threads for short jobs of any part of the client."""
