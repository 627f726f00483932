# SPDX-License-Identifier: Apache-2.0
"""Seeing client threads, and processes, end.

The driver never learns of a thread that ends without BINDER_THREAD_EXIT (I8); a daemon has to,
because the thread's number will be somebody else's one day, and because it must not keep the
objects of dead threads. A pidfd of a single thread (PIDFD_THREAD, Linux 6.9) becomes readable
when the thread ends; all of them are in one epoll set, which one task of the service waits for.
A thread has one pidfd, however many open files it uses.

Nothing here may know trio.
"""

from __future__ import annotations

import os
import select
from errno import EINVAL, ESRCH
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from binderd.memory.client import FileClient

_PIDFD_THREAD: Final = os.O_EXCL


class Ended(NamedTuple):
    """A thread or a process that has ended, and an open file that was interested in it."""

    client: FileClient
    tid: int
    is_process: bool


class Watched:
    """A thread or a process that is watched, and on behalf of which open files."""

    __slots__ = ("clients", "is_process", "pidfd", "tid")

    def __init__(self, pidfd: int, tid: int, *, is_process: bool) -> None:
        self.pidfd = pidfd
        self.tid = tid
        self.is_process = is_process
        self.clients: dict[FileClient, None] = {}

    def has_ended(self) -> bool:
        """Return whether it has ended; the number may belong to somebody else then."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))


class ThreadWatch:
    """The threads and processes whose end is of interest."""

    __slots__ = ("_by_pidfd", "_epoll", "_threads", "is_available")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._by_pidfd: dict[int, Watched] = {}
        self._threads: dict[int, Watched] = {}  # by thread id: the latest of that number
        self.is_available = True  # can this kernel watch single threads?

    def __len__(self) -> int:
        return len(self._by_pidfd)

    def fileno(self) -> int:
        """Return the descriptor that is readable when a watched thread has ended."""
        return self._epoll.fileno()

    def register(self, fd: int) -> None:
        """Have ``fileno`` be readable as well when ``fd`` is."""
        self._epoll.register(fd, select.EPOLLIN)

    def watch(self, client: FileClient, tid: int) -> Watched | None:
        """Watch a thread, which must have a request open so that its number is its own.

        Returns:
            What ``forget`` takes; None if this kernel cannot watch threads: then its objects live
            until the file is closed, as in the driver.

        Raises:
            OSError: it cannot be watched now, for want of a descriptor or memory.
        """
        if not self.is_available:
            return None
        watched = self._threads.get(tid)
        if watched is None or watched.has_ended():
            try:
                pidfd = os.pidfd_open(tid, _PIDFD_THREAD)
            except OSError as error:
                if error.errno == EINVAL:
                    self.is_available = False
                elif error.errno != ESRCH:
                    raise
                return None
            watched = self._watch(pidfd, tid, is_process=False)
            self._threads[tid] = watched
        watched.clients[client] = None
        return watched

    def watch_process(self, client: FileClient, pid: int) -> Watched:
        """Watch a process, of which a thread has a request open; results as ``watch``."""
        watched = self._watch(os.pidfd_open(pid), pid, is_process=True)
        watched.clients[client] = None
        return watched

    def _watch(self, pidfd: int, tid: int, *, is_process: bool) -> Watched:
        try:
            self._epoll.register(pidfd, select.EPOLLIN)
        except BaseException:
            os.close(pidfd)
            raise
        watched = self._by_pidfd[pidfd] = Watched(pidfd, tid, is_process=is_process)
        return watched

    def forget(self, client: FileClient, watched: Watched | None) -> None:
        """An open file is not interested any longer."""
        if watched is None or watched.pidfd < 0:
            return
        watched.clients.pop(client, None)
        if not watched.clients:
            self._close(watched)

    def _close(self, watched: Watched) -> None:
        del self._by_pidfd[watched.pidfd]
        if self._threads.get(watched.tid) is watched:
            del self._threads[watched.tid]
        os.close(watched.pidfd)  # leaves the epoll set by itself: nobody else has this open file
        watched.pidfd = -1

    def ended(self) -> list[Ended]:
        """Return what has ended; never waits. Each must be forgotten by its open file."""
        ended = [self._by_pidfd[fd] for fd, _ in self._epoll.poll(0) if fd in self._by_pidfd]
        return [Ended(client, one.tid, one.is_process) for one in ended for client in one.clients]

    def close(self) -> None:
        """Forget everybody."""
        for watched in list(self._by_pidfd.values()):
            self._close(watched)
        self._epoll.close()
