# SPDX-License-Identifier: Apache-2.0
"""The manager: hands jobs to workers, forks more of them, kills those that are given up.

Theory of operation. A worker may get stuck in a way that even SIGKILL does not end before the
memory answers. So each is a process of its own, the manager never touches a client's memory, and
whether there may be one more is the daemon's business: it counts those that are not free.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from binderd.fetcher import messages
from binderd.fetcher.worker import work
from binderd.linux import prctl

if TYPE_CHECKING:
    from collections.abc import Sequence

_IDLE_MAX: Final = 4  # more workers than these have no need to wait for a job
_END_SECONDS: Final = 1.0  # for workers to end that were killed
_GLANCE_SECONDS: Final = 0.01


def main() -> None:
    """Serve the socket that is our standard input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    prctl.set_name("binderd-fetch")
    Manager(socket.socket(fileno=sys.stdin.fileno())).run()


class _Worker:
    """One worker process."""

    __slots__ = ("channel", "job", "pid")

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.channel = channel
        self.job = 0  # 0: it is free


class Manager:
    """The workers.

    Args:
        daemon: jobs come from there.
    """

    def __init__(self, daemon: socket.socket) -> None:
        self._daemon = daemon
        self._workers: dict[int, _Worker] = {}  # by the descriptor of its channel
        self._poll = select.poll()
        self._poll.register(daemon, select.POLLIN)

    def run(self) -> None:
        """Serve until the daemon's end of the socket is closed."""
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._workers:
                    self._hear(self._workers[fd])
                elif not self._take():
                    self._end()
                    return

    def _take(self) -> bool:
        """Take a message of the daemon; False if it has gone."""
        try:
            message, fds = messages.take_job(self._daemon)
        except OSError:
            return False
        try:
            return bool(message) and self._take_message(message, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _take_message(self, message: bytes, fds: Sequence[int]) -> bool:
        what, _, number = messages.head.unpack_from(message)
        if what == messages.GIVE_UP:
            for one in self._workers.values():
                if one.job == number:
                    os.kill(one.pid, signal.SIGKILL)  # ours until we have waited for it
            return True
        worker = self._free_worker(fds)
        if worker is None:
            self._say_freed(number)
            return True
        worker.job = number
        try:
            messages.pass_job(worker.channel, message, fds)
        except OSError:
            self._forget(worker)
        return True

    def _free_worker(self, fds: Sequence[int]) -> _Worker | None:
        """Return one that is free; a new one does not keep the descriptors of the job."""
        for worker in self._workers.values():
            if not worker.job:
                return worker
        try:
            return self._fork(fds)
        except OSError:
            return None

    def _fork(self, fds: Sequence[int]) -> _Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        manager = os.getpid()
        pid = os.fork()
        if not pid:
            try:
                prctl.die_with_parent()
                for worker in self._workers.values():
                    worker.channel.close()
                ours.close()
                for fd in fds:
                    os.close(fd)
                if os.getppid() == manager:
                    work(theirs, self._daemon)
            finally:
                os._exit(1)
        theirs.close()
        worker = _Worker(pid, ours)
        self._workers[ours.fileno()] = worker
        self._poll.register(ours, select.POLLIN)
        return worker

    def _hear(self, worker: _Worker) -> None:
        """A worker is free, or has gone."""
        try:
            said = worker.channel.recv(1)
        except OSError:
            said = b""
        if not said:
            self._forget(worker)
            return
        number, worker.job = worker.job, 0
        self._say_freed(number)
        if sum(not one.job for one in self._workers.values()) > _IDLE_MAX:
            self._forget(worker)

    def _forget(self, worker: _Worker) -> None:
        """Let a worker go, which is free or ended."""
        self._poll.unregister(worker.channel)
        del self._workers[worker.channel.fileno()]
        worker.channel.close()
        with suppress(ChildProcessError):
            os.waitpid(worker.pid, 0)
        if worker.job:
            self._say_freed(worker.job)

    def _say_freed(self, number: int) -> None:
        with suppress(OSError):
            self._daemon.send(messages.outcome.pack(messages.FREED, 0, number))

    def _end(self) -> None:
        """The daemon has gone; what is stuck goes when its memory answers."""
        for worker in self._workers.values():
            with suppress(OSError):
                os.kill(worker.pid, signal.SIGKILL)
        deadline = time.monotonic() + _END_SECONDS
        for worker in self._workers.values():
            with suppress(ChildProcessError):
                while os.waitpid(worker.pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
                    time.sleep(_GLANCE_SECONDS)
