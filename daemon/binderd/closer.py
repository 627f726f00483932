# SPDX-License-Identifier: Apache-2.0
"""Closing clients' files, which may take any time: in threads that may get stuck.

A close can flush to a file system of a client's own, wait for a peer to read, or free gigabytes. So
no thread with other things to do may close a file that a client gave us. Nor may one user's closes,
if they are stuck, hold up those of others: each has a few threads at most.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY: Final = -1
_WORKERS_OF_ONE: Final = 16  # with as many closes stuck, further files of that user stay open
_WORKERS_MAX: Final = 1024
_IDLE_SECONDS: Final = 0.5  # after this a thread goes: it makes each system call dearer


def _nothing() -> None:
    """A ``done`` that does nothing."""


class Closer:
    """Closes descriptors, in the background."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[int, deque[tuple[list[int], Callable[[], None]]]] = {}  # by owner
        self._busy: dict[int, int] = {}  # how many workers has each owner?
        self._workers = self._idle = self._count = 0

    def close(
        self, fds: list[int], owner: int = NOBODY, done: Callable[[], None] = _nothing
    ) -> None:
        """Close descriptors, soon; never waits.

        Args:
            owner: the user on whose account that is.
            done: called in another thread when they are closed.
        """
        with self._changed:
            self._waiting.setdefault(owner, deque()).append((fds, done))
            self._count += 1
            if self._idle:
                self._changed.notify()
            if self._idle >= self._count or self._workers >= _WORKERS_MAX:
                return
            if self._busy.get(owner, 0) >= _WORKERS_OF_ONE:
                return
            self._workers += 1
        try:
            threading.Thread(target=self._work, daemon=True).start()
        except RuntimeError:  # RLIMIT_NPROC: others will see to it, or the next close tries again
            with self._changed:
                self._workers -= 1

    def _work(self) -> None:
        owner = NOBODY
        is_busy = False
        while True:
            with self._changed:
                if is_busy:
                    self._leave(owner)
                job = self._next()
                if job is None:
                    self._idle += 1
                    self._changed.wait(_IDLE_SECONDS)
                    self._idle -= 1
                    job = self._next()
                if job is None:
                    self._workers -= 1
                    return
                owner, fds, done = job
                is_busy = True
            for fd in fds:
                with suppress(OSError):
                    os.close(fd)
            done()

    def _next(self) -> tuple[int, list[int], Callable[[], None]] | None:
        """Take the next job of an owner that has not too many under way; owners take turns."""
        for owner, jobs in self._waiting.items():
            busy = self._busy.get(owner, 0)
            if busy < _WORKERS_OF_ONE:
                self._busy[owner] = busy + 1
                self._count -= 1
                fds, done = jobs.popleft()
                del self._waiting[owner]
                if jobs:
                    self._waiting[owner] = jobs
                return owner, fds, done
        return None

    def _leave(self, owner: int) -> None:
        self._busy[owner] -= 1
        if not self._busy[owner]:
            del self._busy[owner]
