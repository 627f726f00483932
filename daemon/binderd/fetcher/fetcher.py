# SPDX-License-Identifier: Apache-2.0
"""The daemon's end: gives workers accesses to make, takes their answers, gives up late ones.

A worker may be stuck for ever in what it does, also when it has been killed. So a request
waits for one for a limited time, each user has few of them (WORKERS), and the stuck ones count
until they are gone: for a user that has only stuck ones, nothing is fetched and no request waits.

Nothing here waits: what workers have to say is taken by ``receive`` when ``fileno`` is readable.
"""

from __future__ import annotations

import logging
import mmap
import os
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from binderd.fetcher import messages
from binderd.linux import scm_rights
from binderd.linux.maps import Area
from binderd.memory.remote_access import Locating, Reading, Storing, Writing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.memory.remote_access import RemoteAccess

_log: Final = logging.getLogger("binderd")

PATIENCE_SECONDS: Final = 5.0  # for one access
_LIMITS: Final = 10
_SECONDS_BETWEEN_STARTS: Final = 1.0
_FD_SIZE: Final = 4


class Reports(Protocol):
    """Is told when accesses are over."""

    def fetched(self, ticket: int) -> None:
        """The access that the request with that ticket has waited for is over."""


class Charge(Protocol):
    """What one worker is charged for (WORKERS)."""

    def end(self) -> None:
        """The worker is free, or has ended."""


class _Job:
    """An access under way."""

    __slots__ = ("access", "charge", "deadline", "is_over", "ticket")

    def __init__(self, access: RemoteAccess, ticket: int, deadline: float) -> None:
        self.access = access
        self.ticket = ticket
        self.deadline = deadline
        self.is_over = False  # was the end told?
        self.charge: Charge | None = None  # once it has a worker


class _User:
    """The accesses of one user."""

    __slots__ = ("running", "stuck", "waiting")

    def __init__(self) -> None:
        self.running = 0  # workers that are not free, those that are stuck among them
        self.stuck = 0
        self.waiting: deque[_Job] = deque()


class Fetcher:
    """The workers and the accesses that they make.

    Args:
        moved: called with the new ``fileno`` when the manager was started, and with -1 before that
            is closed.
        wake: called when the first access begins: ``expire`` must be called several times
            a second from then on, until ``is_idle``.
        charge: called with a payer; charges that for a worker, None if there may be no more.
        stall_limit: seconds for which a client may block the daemon. It is not blocked here, so an
            access may take ten times that, and at most PATIENCE_SECONDS. 0: that many.
        clock: returns seconds.

    ``reports`` is told of the end of accesses, from within ``receive`` and ``expire`` only; it must
    be set before the first access.
    """

    def __init__(
        self,
        moved: Callable[[int], None],
        wake: Callable[[], None],
        charge: Callable[[int], Charge | None],
        stall_limit: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reports: Reports | None = None
        self._moved = moved
        self._wake = wake
        self._charge = charge
        self._clock = clock
        self._patience = min(_LIMITS * stall_limit or PATIENCE_SECONDS, PATIENCE_SECONDS)
        self._jobs: dict[int, _Job] = {}  # those that a worker has, by number
        self._users: dict[int, _User] = {}  # by payer; one that has none is not listed
        self._last_number = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._started = -_SECONDS_BETWEEN_STARTS
        self._start()

    def fileno(self) -> int:
        """Return the descriptor that is readable when a worker has something to say; -1: none."""
        return self._channel.fileno() if self._channel is not None else -1

    @property
    def is_idle(self) -> bool:
        """Is no access under way?"""
        return not self._users

    @property
    def count(self) -> int:
        """How many accesses are under way or wait."""
        return len(self._jobs) + sum(len(user.waiting) for user in self._users.values())

    def begin(self, access: RemoteAccess, ticket: int) -> bool:
        """Send a worker; see ``Workers.begin``."""
        user = self._users.get(access.payer)
        if user is None:
            user = _User()
        job = _Job(access, ticket, self._clock() + self._patience)
        if self._is_running() and not user.waiting:
            job.charge = self._charge(access.payer)
        if job.charge is None and user.running and user.stuck == user.running:
            return False  # all its workers are stuck
        if not self._users:
            self._wake()
        self._users[access.payer] = user
        if job.charge is None:
            user.waiting.append(job)
            return True
        if self._send(job, user):
            return True
        self._settle(access.payer)
        return False

    def receive(self) -> None:
        """Take what workers and their manager say."""
        channel = self._channel
        while channel is not None and channel is self._channel:
            try:
                message, fds = _receive(channel)
            except BlockingIOError:
                return
            except OSError:
                message, fds = b"", []
            if not message:
                self._restart()
                return
            what, is_outside, number = messages.outcome.unpack_from(message)
            body = memoryview(message)[messages.outcome.size :]
            job = self._jobs.get(number)
            try:
                if job is None or job.is_over:
                    pass
                elif what == messages.DONE:
                    self._end(job, _outside(fds) if is_outside else bytes(body))
                else:
                    self._end(job, None)
            finally:
                for fd in fds:
                    os.close(fd)
            if what == messages.FREED and job is not None:
                self._free(number, job)

    def expire(self) -> None:
        """Give up on accesses that take too long."""
        now = self._clock()
        for number, job in list(self._jobs.items()):
            if not job.is_over and job.deadline <= now:
                self._users[job.access.payer].stuck += 1
                self._post(messages.give_up(number))
                _log.info("memory of thread %d keeps a worker waiting: given up", job.access.tid)
                self._end(job, None, is_late=True)
        for payer, user in list(self._users.items()):
            while user.waiting and user.waiting[0].deadline <= now:
                self._end(user.waiting.popleft(), None)
            self._settle(payer)
        if self._users and self._is_running():
            self._go_on()

    def close(self) -> None:
        """Let the manager go, and the workers that can."""
        if self._channel is not None:
            self._moved(-1)
            self._channel.close()
            self._channel = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)
            self._process = None

    # Workers

    def _send(self, job: _Job, user: _User) -> bool:
        self._last_number += 1
        number = self._last_number
        if not self._post(_message_of(number, job.access), _files_of(job.access)):
            _discharge(job)
            return False
        self._jobs[number] = job
        user.running += 1
        return True

    def _post(self, message: bytes, fds: Sequence[int] = ()) -> bool:
        if self._channel is None or len(message) > messages.PACKET_MAX or -1 in fds:
            return False
        try:
            messages.pass_job(self._channel, message, fds)
        except OSError:
            return False
        return True

    def _end(self, job: _Job, outcome: bytes | None, *, is_late: bool = False) -> None:
        """An access is over; None: it has failed."""
        job.is_over = True
        access = job.access
        try:
            if is_late:
                access.time_out()
            elif outcome is None or not _end_with(access, outcome):
                access.fail()
        finally:
            if access.then is not None:
                access.then()
            elif self.reports is not None:
                self.reports.fetched(job.ticket)

    def _free(self, number: int, job: _Job) -> None:
        """A worker can take other jobs, or has gone."""
        del self._jobs[number]
        _discharge(job)
        payer = job.access.payer
        user = self._users[payer]
        user.running -= 1
        if job.deadline <= self._clock() and user.stuck:
            user.stuck -= 1
        self._go_on()
        self._settle(payer)

    def _go_on(self) -> None:
        """Begin accesses that have waited, a user's after another's."""
        for payer, user in list(self._users.items()):
            if not user.waiting:
                continue
            charge = self._charge(payer)
            if charge is not None:
                job = user.waiting.popleft()
                job.charge = charge
                if not self._send(job, user):
                    self._end(job, None)

    def _settle(self, payer: int) -> None:
        user = self._users.get(payer)
        if user is not None and not user.running and not user.waiting:
            del self._users[payer]

    # The manager

    def _is_running(self) -> bool:
        if self._channel is None and self._clock() - self._started > _SECONDS_BETWEEN_STARTS:
            self._start()
        return self._channel is not None

    def _start(self) -> None:
        self._started = self._clock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            places = os.pathsep.join(os.path.abspath(place) for place in sys.path)  # as ours
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "binderd.fetcher"],
                    stdin=theirs.fileno(),
                    # A worker that is stuck must not keep open what ends with us.
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    start_new_session=True,
                    env={**os.environ, "PYTHONPATH": places},
                )
            except OSError as error:
                _log.error("no process can be started that fetches slow memory: %s", error)
                ours.close()
                return
        self._channel = ours
        self._moved(ours.fileno())

    def _restart(self) -> None:
        """The manager is gone, and with it what it was doing."""
        self.close()
        _log.error("the process that fetches slow memory has ended")
        jobs, self._jobs = self._jobs, {}
        for job in jobs.values():
            _discharge(job)
        for payer, user in list(self._users.items()):
            user.running = user.stuck = 0
            self._settle(payer)
        for job in jobs.values():
            if not job.is_over:
                self._end(job, None)
        if self._is_running():
            self._go_on()


def _discharge(job: _Job) -> None:
    if job.charge is not None:
        job.charge.end()
        job.charge = None


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    size = messages.outcome.size + messages.IN_PACKET_MAX
    return scm_rights.receive(channel, size, 1)


def _outside(fds: list[int]) -> bytes | None:
    """Return what is in the memfd that came along."""
    if not fds:
        return None  # we have no descriptor left for it
    try:
        size = os.fstat(fds[0]).st_size
        with mmap.mmap(fds[0], size, mmap.MAP_SHARED, mmap.PROT_READ) as pages:
            return pages.read()
    except (OSError, ValueError):
        return None


def _message_of(number: int, access: RemoteAccess) -> bytes:
    if isinstance(access, Reading):
        return messages.read_job(number, access.tid, access.ranges)
    if isinstance(access, Writing):
        return messages.write_job(number, access.tid, access.address, access.data)
    if isinstance(access, Storing):
        file, offset = access.pages.file, access.offset
        return messages.store_job(number, file, access.address, offset, access.size)
    assert isinstance(access, Locating)
    return messages.locate_job(number, access.tid, access.files, access.taken)


def _files_of(access: RemoteAccess) -> tuple[int, ...]:
    """Return the descriptors that go along; -1 among them: it is too late for it."""
    return (*access.pages.there, access.pages.fd) if isinstance(access, Storing) else ()


def _end_with(access: RemoteAccess, outcome: bytes) -> bool:
    """Give an access what a worker has answered; False if that is nothing."""
    if isinstance(access, Reading):
        end = position = len(access.ranges) * messages.length.size
        pieces = []
        for (size,) in messages.length.iter_unpack(outcome[:end]):
            pieces.append(outcome[position : position + size])
            position += size
        access.end(pieces)
        return True
    if isinstance(access, (Writing, Storing)):
        access.end(ok=bool(messages.length.unpack(outcome)[0]))
        return True
    assert isinstance(access, Locating)
    if not outcome:
        return False
    which, start, end, offset = messages.area.unpack(outcome)
    access.end(None if which < 0 else (which, Area(start, end, offset)))
    return True
