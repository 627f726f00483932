# SPDX-License-Identifier: Apache-2.0
"""Seeing client threads, and processes, end.

The driver never learns of a thread that ends without BINDER_THREAD_EXIT (I8); a daemon has to,
because the thread's number will be reused one day, and because it must not keep the
objects of dead threads. A pidfd of a single thread (PIDFD_THREAD, Linux 6.9) becomes readable
when the thread ends; all of them are in one epoll set, which one task of the service waits for.
A thread has one pidfd, however many open files it uses.

Before that there is the thread's /proc/TID/stat, which has to be asked: a timer that is in the same
set has this done once a second, as long as there are threads to ask about.

Nothing here may know trio.
"""

from __future__ import annotations

import os
import select
from errno import EINVAL, ESRCH
from typing import TYPE_CHECKING, Final

from binderd.linux import pidfd, proc, timerfd

if TYPE_CHECKING:
    from binderd.memory.client import FileClient

_SECONDS_BETWEEN_LOOKS: Final = 1
_LOOKS_MAX: Final = 512  # threads to ask about in one go: some 2 ms


class Ended:
    """A thread or a process that has ended, and an open file that was interested in it."""

    __slots__ = ("client", "is_process", "tid")

    def __init__(self, client: FileClient, tid: int, *, is_process: bool) -> None:
        self.client = client
        self.tid = tid
        self.is_process = is_process


class Watched:
    """A thread or a process that is watched, and on behalf of which open files.

    Args:
        fd: the descriptor that tells.
        is_asked: is that a /proc/TID/stat, which has to be read?
    """

    __slots__ = ("clients", "is_asked", "is_process", "pidfd", "tid")

    def __init__(
        self, fd: int, tid: int, *, is_process: bool = False, is_asked: bool = False
    ) -> None:
        self.pidfd = fd
        self.tid = tid
        self.is_process = is_process
        self.is_asked = is_asked
        self.clients: dict[FileClient, None] = {}

    def has_ended(self) -> bool:
        """Return whether it has ended; its number may have been reused then."""
        if self.is_asked:
            return proc.is_over(self.pidfd)
        return pidfd.has_ended(self.pidfd)


class ThreadWatch:
    """The threads and processes whose end is of interest."""

    __slots__ = ("_asked", "_by_pidfd", "_epoll", "_threads", "_timer", "is_available")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._by_pidfd: dict[int, Watched] = {}
        self._threads: dict[int, Watched] = {}  # by thread id: the latest of that number
        self._asked: dict[Watched, None] = {}  # those that must be asked about, longest ago first
        self._timer = -1  # is readable when it is time for that; -1: it never was
        self.is_available = True  # does this kernel tell of single threads by itself?

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
            What ``forget`` takes; None if there is no such thread any more.

        Raises:
            OSError: it cannot be watched now, for want of a descriptor or memory.
        """
        watched = self._threads.get(tid)
        if watched is None or watched.has_ended():
            watched = self._watch_thread(tid)
            if watched is None:
                return None
            self._threads[tid] = watched
        watched.clients[client] = None
        return watched

    def _watch_thread(self, tid: int) -> Watched | None:
        if self.is_available:
            try:
                return self._register(pidfd.open_thread(tid), tid, is_process=False)
            except OSError as error:
                if error.errno == ESRCH:
                    return None
                if error.errno != EINVAL:
                    raise
                self.is_available = False
        if not self._asked:
            self._set_timer(_SECONDS_BETWEEN_LOOKS)
        try:
            fd = proc.open_in(proc.place_of(tid), "stat", os.O_RDONLY)
        except ProcessLookupError:
            return None
        watched = self._by_pidfd[fd] = Watched(fd, tid, is_asked=True)
        self._asked[watched] = None
        return watched

    def watch_process(self, client: FileClient, pid: int) -> Watched:
        """Watch a process, of which a thread has a request open; results as ``watch``."""
        watched = self._register(pidfd.open_process(pid), pid, is_process=True)
        watched.clients[client] = None
        return watched

    def _register(self, fd: int, tid: int, *, is_process: bool) -> Watched:
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except BaseException:
            os.close(fd)
            raise
        watched = self._by_pidfd[fd] = Watched(fd, tid, is_process=is_process)
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
        if watched.is_asked:
            self._asked.pop(watched, None)
            if not self._asked:
                self._set_timer(0)
        if self._threads.get(watched.tid) is watched:
            del self._threads[watched.tid]
        os.close(watched.pidfd)  # leaves the epoll set, as the last descriptor of its file
        watched.pidfd = -1

    def ended(self) -> list[Ended]:
        """Return what has ended; never waits. Each must be forgotten by its open file."""
        told = [fd for fd, _ in self._epoll.poll(0)]
        found = [self._by_pidfd[fd] for fd in told if fd in self._by_pidfd]
        if self._timer in told:
            timerfd.take(self._timer)
            found += self._ask()
        return [
            Ended(client, one.tid, is_process=one.is_process)
            for one in found
            for client in one.clients
        ]

    def _ask(self) -> list[Watched]:
        """Return which threads have ended, of those that have not been asked about for longest."""
        due = list(self._asked)[:_LOOKS_MAX]
        for watched in due:
            del self._asked[watched]
            self._asked[watched] = None
        return [watched for watched in due if watched.has_ended()]

    def _set_timer(self, seconds: int) -> None:
        """Have ``fileno`` be readable every so many seconds; 0: no more.

        Raises:
            OSError: there can be no timer.
        """
        if self._timer < 0:
            timer = timerfd.create()
            self._epoll.register(timer, select.EPOLLIN)
            self._timer = timer
        timerfd.set_interval(self._timer, seconds)

    def close(self) -> None:
        """Stop watching."""
        for watched in list(self._by_pidfd.values()):
            self._close(watched)
        if self._timer >= 0:
            os.close(self._timer)
            self._timer = -1
        self._epoll.close()
