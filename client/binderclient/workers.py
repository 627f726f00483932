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
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

IDLE_SECONDS: Final = 10.0  # after which a thread without a job ends


class Worker:
    """One thread, while it does nothing.

    Attributes:
        lent: what its last job has returned, for the use of whoever has taken the thread.
    """

    __slots__ = ("box", "lent")

    def __init__(self) -> None:
        self.box: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.lent: object = None


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
        self._jobs: deque[Callable[[], object]] = deque()  # that wait for a thread
        self._idle: list[Worker] = []  # that wait for a job, the latest at the end
        self._count = 0

    def put(self, job: Callable[[], object]) -> None:
        """Have a job done, which must not raise; may be called from any thread.

        What it returns is lent to whoever takes the thread when it is idle.

        Raises:
            RuntimeError: the system has no thread for it.
        """
        with self._lock:
            with contextlib.suppress(IndexError):
                self._idle.pop().box.put(job)  # who was busy a moment ago has all at hand
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

    def take(self) -> Worker | None:
        """Take the thread that was busy last from those that are idle; None if there is none.

        It waits for ``put_to`` or ``give_back``, one of which has to follow.
        """
        with self._lock:
            return self._idle.pop() if self._idle else None

    def put_to(self, worker: Worker, job: Callable[[], object]) -> None:
        """Have a thread that was taken do a job."""
        worker.box.put(job)

    def give_back(self, worker: Worker) -> None:
        """Let a thread that was taken be idle again."""
        with self._lock:
            if self._jobs:
                worker.box.put(self._jobs.popleft())
            elif self._is_closed:
                self._count -= 1
                worker.box.put(None)
            else:
                self._idle.append(worker)

    def close(self) -> None:
        """Have idle threads end at once from now on."""
        with self._lock:
            self._is_closed = True
            while self._idle:
                self._count -= 1
                self._idle.pop().box.put(None)

    def _work(self) -> None:
        worker = Worker()
        while (job := self._next(worker)) is not None:
            worker.lent = None
            worker.lent = job()
            del job  # what it holds is not to wait for the next one

    def _next(self, worker: Worker) -> Callable[[], object] | None:
        with self._lock:
            self._idle.append(worker)  # first: so a finalizer that has a job finds somebody
            if self._jobs and self._withdraw(worker):
                return self._jobs.popleft()
            if self._is_closed and self._withdraw(worker):
                self._count -= 1
                return None
        while True:
            with contextlib.suppress(queue.Empty):
                return worker.box.get(timeout=IDLE_SECONDS)
            with self._lock:
                if self._withdraw(worker):
                    self._count -= 1
                    return None
            # Somebody has taken it.

    def _withdraw(self, worker: Worker) -> bool:
        """Have a thread wait no longer; False if it has a job, or will have one."""
        try:
            self._idle.remove(worker)
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
