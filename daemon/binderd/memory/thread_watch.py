# SPDX-License-Identifier: Apache-2.0
"""Seeing client threads, and processes, end.

The driver never learns of a thread that ends without BINDER_THREAD_EXIT (I8); a daemon has to,
because the thread's number will be somebody else's one day, and because it must not keep the
objects of dead threads. A pidfd of a single thread (PIDFD_THREAD, Linux 6.9) becomes readable
when the thread ends; all of them are in one epoll set, which one task of the service waits for.

Nothing here may know trio.
"""

from __future__ import annotations

import os
import select
from errno import EINVAL
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from binderd.memory.client import FileClient

_PIDFD_THREAD: Final = os.O_EXCL


class Watched(NamedTuple):
    """A thread or a process that is watched on behalf of one open file."""

    client: FileClient
    tid: int
    is_process: bool


class ThreadWatch:
    """The threads and processes whose end is of interest."""

    __slots__ = ("_epoll", "_watched", "is_available", "missed")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}  # by pidfd
        self.is_available = True  # can this kernel watch single threads?
        self.missed = 0  # threads that could not be watched

    def __len__(self) -> int:
        return len(self._watched)

    def fileno(self) -> int:
        """Return the descriptor that is readable when a watched thread has ended."""
        return self._epoll.fileno()

    def watch(self, client: FileClient, tid: int) -> int:
        """Watch a thread, which must have a request open so that its number is its own.

        Returns:
            What ``forget`` takes; -1 if the thread cannot be watched: then its objects live until
            the file is closed, as in the driver.
        """
        if not self.is_available:
            return -1
        try:
            pidfd = os.pidfd_open(tid, _PIDFD_THREAD)
        except OSError as error:
            self.is_available = error.errno != EINVAL
            self.missed += 1
            return -1
        return self._register(pidfd, Watched(client, tid, is_process=False))

    def watch_process(self, client: FileClient, pid: int) -> int:
        """Watch a process, of which a thread has a request open; results as ``watch``."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            self.missed += 1
            return -1
        return self._register(pidfd, Watched(client, pid, is_process=True))

    def _register(self, pidfd: int, watched: Watched) -> int:
        try:
            self._epoll.register(pidfd, select.EPOLLIN)
        except OSError:
            os.close(pidfd)
            self.missed += 1
            return -1
        self._watched[pidfd] = watched
        return pidfd

    def forget(self, pidfd: int) -> None:
        """Watch that one no longer; -1 is ignored."""
        if self._watched.pop(pidfd, None) is not None:
            os.close(pidfd)  # leaves the epoll set by itself: nobody else has this open file

    def ended(self) -> list[Watched]:
        """Return what has ended; never waits. Each must be forgotten by who watched it."""
        return [self._watched[pidfd] for pidfd, _ in self._epoll.poll(0) if pidfd in self._watched]

    def close(self) -> None:
        """Forget everybody."""
        for pidfd in list(self._watched):
            self.forget(pidfd)
        self._epoll.close()
