# SPDX-License-Identifier: Apache-2.0
"""The daemon's end: hands jobs to the helper process, and hears what has become of them.

The helper is a process of its own, not a thread: a second thread would make each system call of the
daemon dearer. It starts with the daemon and is started again should it die. It also closes files of
clients, which nobody who serves requests may do (``closer.py``).

Nothing here waits: what the helper has to say is taken by ``receive`` when ``fileno`` is readable.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from binderd.closer import NOBODY, Closer
from binderd.injector import messages
from binderd.injector.architecture import own_architecture
from binderd.injector.outbox import Outbox
from binderd.linux.proc import place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.engine.ports import Charged
    from binderd.injector.outbox import Charge

_log: Final = logging.getLogger("binderd")

_SECONDS_BETWEEN_STARTS: Final = 1.0
_CLOSES_MAX: Final = 16384  # descriptors to close, of one job


class Reports(Protocol):
    """Who wants to know how installations go on; see ``Engine``."""

    def stopped(self, number: int) -> None:
        """The thread will run no code of its own before ``installed``."""

    def installed(self, number: int, numbers: Sequence[int] | None) -> None:
        """The installation is over."""


class _Close:
    """A file that is being closed, here, by the helper or by both."""

    __slots__ = ("is_helpers", "is_ours", "payment")

    def __init__(self, payment: Charged | None) -> None:
        self.payment = payment
        self.is_ours = self.is_helpers = False

    def look(self) -> bool:
        """Have it paid for no longer if it is closed; return whether it is."""
        if self.is_ours or self.is_helpers:
            return False
        if self.payment is not None:
            self.payment.end()
        return True


class Injector:
    """The helper process and the jobs that it has.

    Args:
        reports: is told how the jobs go on, from within ``receive`` only.
        injects: may it stop clients? If not it only closes files.
        moved: called with the new ``fileno`` when the helper was started, and with -1 before that
            is closed.
        blocked: called when something waits: ``go_on`` must be called when ``fileno`` can be
            written to, until ``is_waiting`` says that it need not.
    """

    def __init__(
        self,
        reports: Reports,
        moved: Callable[[int], None],
        blocked: Callable[[], None],
        *,
        injects: bool = True,
    ) -> None:
        self._reports = reports
        self._moved = moved
        self._blocked = blocked
        self.injects = injects and own_architecture() is not None
        self._closer = Closer()
        self._closes: dict[int, _Close] = {}  # under way, by number
        self._last_close = 0
        self._closed: deque[int] = deque()  # by us, not settled yet
        self._closed_event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._jobs: dict[int, None] = {}
        # Of each job of which the helper may have something, wanted or not.
        self._payments: dict[int, Charged] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._outbox: Outbox | None = None  # of that channel
        self._started = 0.0
        self._start()

    def fileno(self) -> int:
        """Return the descriptor that is readable when the helper has something to say."""
        return self._channel.fileno() if self._channel is not None else -1

    def is_own(self, tid: int) -> bool:
        """Whether a thread is of the daemon, or of the helper."""
        pids = [os.getpid()]
        if self._process is not None:
            pids.append(self._process.pid)
        return any(os.path.exists(f"{place_of(pid)}/task/{tid}") for pid in pids)

    def begin(
        self,
        number: int,
        tid: int,
        files: Sequence[int],
        closes: Sequence[int],
        room: tuple[int, int],
        payment: Charged,
        charge: Charge | None = None,
        owner: int = NOBODY,
    ) -> bool:
        """Hand a job to the helper; False if that cannot be.

        Args:
            number: its name.
            tid: a thread that has a request open.
            files: descriptors of ours, which remain ours.
            closes: descriptors in the thread's process that are to be closed first.
            room: the unused part of its read buffer: address, bytes.
            payment: for those that are sent at once; it ends when nothing is on its way any more,
                whatever is returned.
            charge: called with bytes that must wait; returns None if there is no room for them.
            owner: the user whose thread it is.
        """
        if not self.injects or len(closes) > _CLOSES_MAX or not self._is_running():
            payment.end()
            return False
        self._payments[number] = payment
        for message, part in messages.of_job(
            number, tid, files, closes, room, payment.number, owner
        ):
            if not self._send(number, message, part, charge=charge):
                self._cancel(number)  # half a job is worse than none
                return False
        self._jobs[number] = None
        return True

    def cancel(self, number: int) -> None:
        """Nobody wants what the job does."""
        if self._jobs.pop(number, self) is None:
            self._cancel(number)

    @property
    def is_waiting(self) -> bool:
        """Does something wait until ``fileno`` can be written to?"""
        return self._outbox is not None and not self._outbox.is_empty

    def go_on(self) -> None:
        """Send what waits, as far as the helper takes it."""
        if self._outbox is not None and not self._outbox.go_on():
            self._restart()

    def dispose(
        self, fd: int, *, flushes: bool, owner: int = NOBODY, payment: Charged | None = None
    ) -> None:
        """Close a file of a client's, without ever waiting for what that may do.

        Args:
            flushes: is it of a file system that wants to know of each close? Then even a close that
                is not the last may take any time.
            owner: the user on whose account that is.
            payment: ends when it is closed.
        """
        self._last_close += 1
        number = self._last_close
        close = self._closes[number] = _Close(payment)
        message = messages.head.pack(messages.DISPOSE, number) + messages.account.pack(owner)
        close.is_helpers = self._outbox is not None and self._outbox.send_at_once(message, (fd,))
        close.is_ours = flushes or not close.is_helpers
        if close.is_ours:
            self._closer.close([fd], owner, partial(self._tell_closed, number))
        else:
            os.close(fd)

    def has_room(self) -> bool:
        """Return True: what nobody pays for is closed all the same."""
        return True

    def settle_when(self, call: Callable[[int], None]) -> None:
        """Call with a descriptor that is readable when ``settle`` is due."""
        call(self._closed_event)

    def settle(self) -> None:
        """See what has been closed here."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._closed_event)
        while self._closed:
            number = self._closed.popleft()
            self._closes[number].is_ours = False
            self._look_at_close(number)

    def _tell_closed(self, number: int) -> None:
        """One is closed; called in another thread."""
        self._closed.append(number)
        with suppress(OSError):
            os.eventfd_write(self._closed_event, 1)

    def _look_at_close(self, number: int) -> None:
        if self._closes[number].look():
            del self._closes[number]

    def receive(self) -> None:
        """Take what the helper says, and pass it on."""
        channel = self._channel
        while channel is not None and channel is self._channel:
            try:
                message = channel.recv(messages.REPORT_SIZE_MAX)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._restart()
                return
            kind, number, error = messages.report.unpack_from(message)
            if kind == messages.CLOSED:
                self._closes[number].is_helpers = False
                self._look_at_close(number)
                continue
            if kind != messages.SEIZED:
                self._is_over(number)
            if number not in self._jobs:
                continue
            if kind == messages.SEIZED:
                self._reports.stopped(number)
                continue
            del self._jobs[number]
            numbers = messages.unpack_numbers(message, messages.report.size)
            self._reports.installed(number, None if error else numbers)

    def close(self) -> None:
        """Let the helper go, for good."""
        self._let_go()
        event, self._closed_event = self._closed_event, -1
        if event >= 0:
            os.close(event)

    def _let_go(self) -> None:
        if self._channel is not None:
            self._moved(-1)
            self._channel.close()
            self._channel = None
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)
            self._process = None

    # The helper

    def _is_running(self) -> bool:
        if self._channel is None and time.monotonic() - self._started > _SECONDS_BETWEEN_STARTS:
            self._start()
        return self._channel is not None

    def _start(self) -> None:
        is_first = not self._started
        self._started = time.monotonic()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            command = [sys.executable, "-P", "-m", "binderd.injector"]
            places = os.pathsep.join(os.path.abspath(place) for place in sys.path)  # as ours
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                    env={**os.environ, "PYTHONPATH": places},
                )
            except OSError as error:
                _log.error("no helper process can be started, so no files by ptrace: %s", error)
                ours.close()
                return
        self._channel = ours
        self._outbox = Outbox(ours, self._closer)
        self._moved(ours.fileno())
        if not is_first:
            _log.warning("a new helper process was started")

    def _restart(self) -> None:
        """The helper is gone, and with it what it was doing."""
        process = self._process
        self._let_go()
        status = process.poll() if process is not None else None
        _log.error("the helper process has ended (%s)", _how(status))
        jobs, self._jobs = self._jobs, {}
        for number in list(self._payments):
            self._is_over(number)
        for number, close in list(self._closes.items()):
            close.is_helpers = False
            self._look_at_close(number)
        for number in jobs:
            self._reports.installed(number, None)
        self._is_running()

    def _send(
        self,
        number: int,
        message: bytes,
        files: Sequence[int],
        *,
        must: bool = False,
        charge: Charge | None = None,
    ) -> bool:
        if self._outbox is None:
            return False
        if not self._outbox.send(number, message, files, must=must, charge=charge):
            return False
        if not self._outbox.is_empty:
            self._blocked()
        return True

    def _is_over(self, number: int) -> None:
        payment = self._payments.pop(number, None)
        if payment is not None:
            payment.end()

    def _cancel(self, number: int) -> None:
        if self._outbox is not None:
            self._outbox.drop(number)
            self._send(number, messages.head.pack(messages.CANCEL, number), (), must=True)


def _how(status: int | None) -> str:
    """Return how a process has ended, as ``Popen.poll`` has it."""
    if status is None:
        return "it still runs, and has closed its socket"
    return f"exit status {status}" if status >= 0 else f"signal {-status}"
