# SPDX-License-Identifier: Apache-2.0
"""The daemon's end of the helper process: starts it, speaks to it, starts another should it end.

The helper is a process of its own, not a thread: a second thread would make each system call of the
daemon dearer. It puts files into clients' processes and closes files of clients, which a
process that serves requests must not do.

Nothing here waits: what the helper has to say is taken by ``receive`` when ``fileno`` is readable.
Nothing here may know what the messages mean.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from binderd.descriptors.outbox import Outbox
from binderd.injector.messages import REPORT_SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.closer import Closer
    from binderd.descriptors.outbox import Charge

_log: Final = logging.getLogger("binderd")

_SECONDS_BETWEEN_STARTS: Final = 1.0
_SECONDS_TO_END: Final = 2.0


class HelperOwner(Protocol):
    """Gave the helper what it does."""

    def received(self, message: bytes) -> None:
        """The helper reports something."""

    def lost(self) -> None:
        """The helper has ended, and with it what it was doing."""


class HelperProcess:
    """The helper process, as long as there is one.

    Args:
        moved: called with the new ``fileno`` when the helper was started, and with -1 before that
            is closed.
        blocked: called when something waits: ``go_on`` must be called when ``fileno`` can be
            written to, until ``is_waiting`` says that it need not.
        closer: closes duplicates of clients' files.

    ``owner`` is told what the helper reports, from within ``receive`` and ``go_on`` only; it must
    be set before the first message is sent.
    """

    def __init__(
        self, moved: Callable[[int], None], blocked: Callable[[], None], closer: Closer
    ) -> None:
        self.owner: HelperOwner | None = None
        self._moved = moved
        self._blocked = blocked
        self._closer = closer
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._outbox: Outbox | None = None  # of that channel
        self._started = 0.0
        self._start()

    def fileno(self) -> int:
        """Return the descriptor that is readable when the helper has something to say; -1: none."""
        return self._channel.fileno() if self._channel is not None else -1

    @property
    def pid(self) -> int:
        """Its process id, 0 if there is none."""
        return self._process.pid if self._process is not None else 0

    def is_running(self) -> bool:
        """Whether there is a helper; starts one unless that was tried a moment ago."""
        if self._channel is None and time.monotonic() - self._started > _SECONDS_BETWEEN_STARTS:
            self._start()
        return self._channel is not None

    def send(
        self,
        number: int,
        message: bytes,
        files: Sequence[int],
        *,
        must: bool = False,
        charge: Charge | None = None,
    ) -> bool:
        """Send a message of a job, or have it wait; arguments and results as ``Outbox.send``."""
        if self._outbox is None:
            return False
        if not self._outbox.send(number, message, files, must=must, charge=charge):
            return False
        if not self._outbox.is_empty:
            self._blocked()
        return True

    def send_at_once(self, message: bytes, files: Sequence[int]) -> bool:
        """Send a message of no job, before those that wait; False if it cannot be now."""
        return self._outbox is not None and self._outbox.send_at_once(message, files)

    def drop(self, number: int) -> None:
        """Forget what waits for a job."""
        if self._outbox is not None:
            self._outbox.drop(number)

    @property
    def is_waiting(self) -> bool:
        """Does something wait until ``fileno`` can be written to?"""
        return self._outbox is not None and not self._outbox.is_empty

    def go_on(self) -> None:
        """Send what waits, as far as the helper takes it."""
        if self._outbox is not None and not self._outbox.go_on():
            self._restart()

    def receive(self) -> None:
        """Take what the helper says, and pass it on."""
        channel = self._channel
        while channel is not None and channel is self._channel:
            try:
                message = channel.recv(REPORT_SIZE_MAX)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._restart()
                return
            if self.owner is not None:
                self.owner.received(message)

    def close(self) -> None:
        """Let the helper go, for good."""
        if self._channel is not None:
            self._moved(-1)
            self._channel.close()
            self._channel = None
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_SECONDS_TO_END)
            self._process = None

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
        process = self._process
        self.close()
        status = process.poll() if process is not None else None
        _log.error("the helper process has ended (%s)", _how(status))
        if self.owner is not None:
            self.owner.lost()
        self.is_running()


def _how(status: int | None) -> str:
    """Return how a process has ended, as ``Popen.poll`` has it."""
    if status is None:
        return "it still runs, and has closed its socket"
    return f"exit status {status}" if status >= 0 else f"signal {-status}"
