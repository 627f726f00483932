# SPDX-License-Identifier: Apache-2.0
"""What the daemon has to say to its helper, which may be slow to listen.

A socket holds what net.core.wmem_max lets it, as more would need a right of its own; what does not
fit waits here, in order. Sending never blocks: the owner sends on when the socket can be
written to.

Nothing here may know what the messages mean.
"""

from __future__ import annotations

import fcntl
import socket
import termios
from collections import deque
from contextlib import suppress
from errno import EAGAIN, ENOBUFS, ENOMEM, ETOOMANYREFS
from typing import TYPE_CHECKING, Final, NamedTuple

from binderd.engine.limits import OUTBOX
from binderd.linux import scm_rights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.closer import Closer
    from binderd.engine.ports import Charged

    Charge = Callable[[int], "Charged | None"]

_ROOM: Final = 1 << 20  # bytes to ask for; the kernel gives what it allows
_MESSAGE_COST: Final = 512  # bytes that a message costs us beside its own
# What was sent and not taken counts as root's files on their way (``limits.FLIGHTS``).
_FILES_UNREAD_MAX: Final = 253
# It will work later.
_FULL: Final = frozenset({EAGAIN, ENOBUFS, ENOMEM, ETOOMANYREFS})


class _Waiting(NamedTuple):
    job: int
    message: bytes
    files: list[int]  # duplicates: the others may be closed meanwhile
    payment: Charged | None

    @property
    def cost(self) -> int:
        return _cost(self.message)


def _cost(message: bytes) -> int:
    return len(message) + _MESSAGE_COST


class Outbox:
    """The sending side of a socket that keeps messages apart.

    Args:
        channel: non-blocking; stays its owner's.
        closer: closes duplicates of clients' files.
    """

    __slots__ = ("_bytes", "_channel", "_closer", "_files_unread", "_waiting")

    def __init__(self, channel: socket.socket, closer: Closer) -> None:
        self._channel = channel
        self._closer = closer
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._files_unread = 0  # at most, of those that were sent
        with suppress(OSError):
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)

    @property
    def is_empty(self) -> bool:
        """Does nothing wait?"""
        return not self._waiting

    def send(
        self,
        job: int,
        message: bytes,
        files: Sequence[int] = (),
        *,
        must: bool = False,
        charge: Charge | None = None,
    ) -> bool:
        """Send a message, behind those that wait.

        Args:
            job: whose it is.
            message: small enough for any socket: 4 KiB at most.
            files: descriptors that go along; they stay the caller's.
            must: let it wait however much does; for what is rare and small.
            charge: called with bytes that must wait; returns None if there is no room for them.

        Returns:
            False if that cannot be: too much waits, there are no descriptors left, or nobody is at
            the other end.
        """
        if not self._waiting:
            errno = self._try(message, files)
            if errno not in _FULL:
                return not errno
        if not must and self._bytes + _cost(message) > OUTBOX.most:
            return False
        payment = charge(_cost(message)) if charge is not None else None
        if charge is not None and payment is None:
            return False
        return self._keep(_Waiting(job, message, [], payment), files)

    def send_at_once(self, message: bytes, files: Sequence[int]) -> bool:
        """Send a message of no job, before those that wait; False if it cannot be now."""
        return not self._try(message, files)

    def go_on(self) -> bool:
        """Send what waits, as far as it can be.

        Returns:
            False if nobody is at the other end.
        """
        while self._waiting:
            first = self._waiting[0]
            errno = self._try(first.message, first.files)
            if errno in _FULL:
                return True
            if errno:
                return False
            self._forget(self._waiting.popleft())
        return True

    def drop(self, job: int) -> None:
        """Forget what waits for a job."""
        dropped = [waiting for waiting in self._waiting if waiting.job == job]
        if dropped:
            self._waiting = deque(waiting for waiting in self._waiting if waiting.job != job)
        for waiting in dropped:
            self._forget(waiting)

    def close(self) -> None:
        """Forget everything."""
        while self._waiting:
            self._forget(self._waiting.popleft())

    def _keep(self, waiting: _Waiting, files: Sequence[int]) -> bool:
        self._bytes += waiting.cost
        try:
            for fd in files:
                waiting.files.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))
        except OSError:
            self._forget(waiting)
            return False
        self._waiting.append(waiting)
        return True

    def _forget(self, waiting: _Waiting) -> None:
        self._bytes -= waiting.cost
        if waiting.payment is not None:
            waiting.payment.end()
        if waiting.files:
            self._closer.close(waiting.files)

    def _try(self, message: bytes, files: Sequence[int]) -> int:
        """Return 0 or the errno."""
        if files and self._files_unread + len(files) > _FILES_UNREAD_MAX:
            if any(fcntl.ioctl(self._channel, termios.TIOCOUTQ, bytes(4))):
                return EAGAIN
            self._files_unread = 0
        try:
            scm_rights.send(self._channel, [message], files)
        except OSError as error:
            return error.errno or EAGAIN
        self._files_unread += len(files)
        return 0
