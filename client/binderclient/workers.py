# SPDX-License-Identifier: Apache-2.0
"""``Workers``: threads for what would keep the caller's own thread.

To the driver a thread is a party of its own, which waits for one reply at a time; so a task that
makes several calls at once, or may have to leave one, has each made by a thread of these.  Nothing
here may know calls or event loops.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

_Box: TypeAlias = "queue.SimpleQueue[Callable[[], None] | None]"  # what one thread is to do next

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
        self._lock = threading.RLock()  # reentrant: finalizers may come here
        self._jobs: deque[Callable[[], None]] = deque()  # that wait for a thread
        self._idle: list[_Box] = []  # of the threads that wait for a job, the latest at the end
        self._count = 0

    def put(self, job: Callable[[], None]) -> None:
        """Have a job done, which must not raise; may be called from any thread.

        Raises:
            RuntimeError: the system has no thread for it.
        """
        with self._lock:
            with contextlib.suppress(IndexError):
                self._idle.pop().put(job)  # who was busy a moment ago has all at hand
                return
            self._jobs.append(job)
            if self._limit is not None and self._count >= self._limit:
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
        with self._lock:
            self._is_closed = True
            while self._idle:
                self._count -= 1
                self._idle.pop().put(None)

    def _work(self) -> None:
        box: _Box = queue.SimpleQueue()
        while (job := self._next(box)) is not None:
            job()
            del job  # what it holds is not to wait for the next one

    def _next(self, box: _Box) -> Callable[[], None] | None:
        with self._lock:
            self._idle.append(box)  # first: so a finalizer that has a job finds somebody
            if self._jobs and self._withdraw(box):
                return self._jobs.popleft()
            if self._is_closed and self._withdraw(box):
                self._count -= 1
                return None
        with contextlib.suppress(queue.Empty):
            return box.get(timeout=IDLE_SECONDS)
        with self._lock:
            if self._withdraw(box):
                self._count -= 1
                return None
        return box.get()

    def _withdraw(self, box: _Box) -> bool:
        """Have a thread wait no longer; False if there is something in its box already."""
        try:
            self._idle.remove(box)
        except ValueError:
            return False
        return True


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
