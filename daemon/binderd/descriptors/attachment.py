# SPDX-License-Identifier: Apache-2.0
"""A client's socket: how it gets descriptors from the daemon without being stopped for them.

The client made the pair and named one end (BINDERD_ATTACH, docs/EXTENSION.md); we have taken that
end out of its table. The client still shares it, so no setting of it can be relied on: each send
says for itself that it neither waits nor raises a signal.

Nothing here may know why something is sent.
"""

from __future__ import annotations

import fcntl
import os
import socket
import termios
from collections import deque
from contextlib import suppress
from errno import EAGAIN, EBADF, EINVAL, EMSGSIZE, ENOBUFS, ENOMEM, ENOTSOCK, EPIPE, ETOOMANYREFS
from struct import Struct
from typing import TYPE_CHECKING, Final

from binderd.engine.ports import NoAnswer
from binderd.linux import proc, scm_rights
from binderd.memory.files import take_file
from binderwire.extension_abi import (
    BINDERD_CLOSE,
    BINDERD_FILES,
    BINDERD_FILES_MAX,
    binderd_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.engine.ports import Charged
    from binderd.memory.files import Disposal
    from binderd.memory.thread_watch import Watched

# It might work later, but the daemon does not wait.
_NO_ROOM: Final = frozenset({EAGAIN, EMSGSIZE, ENOBUFS, ENOMEM, ETOOMANYREFS})
_SEND_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_NUMBER_SIZE: Final = 4  # bytes of an s32
_pack_number: Final = Struct("=i").pack
_bytes_unread: Final = Struct("=i")


def _unread(fd: int) -> int:
    """Return how many bytes of the kernel's memory hold what a socket's peer has not taken."""
    unread: int = _bytes_unread.unpack(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0]
    return unread


def _cost_of_message() -> int:
    """Return how many of these bytes a message with descriptors takes here."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(bytes(binderd_message.size))
        return _unread(ours.fileno())


_MESSAGE_COST: Final = _cost_of_message()


class Attachment:
    """Our end of one client process' socket pair.

    Args:
        end: owned from now on.
        flags: BINDERD_ATTACH_..., what it is for.
        disposal: closes it in the end: there may be anything in what the client has sent us.
    """

    __slots__ = ("_disposal", "_end", "charged", "flags", "payer", "payments", "watched")

    def __init__(self, end: socket.socket, flags: int, disposal: Disposal) -> None:
        self._end = end
        self._disposal = disposal
        self.flags = flags
        self.watched: Watched | None = None  # the process, what ``ThreadWatch.forget`` takes
        self.charged: Charged | None = None  # for the socket itself
        # For the files of each message that may still be in the socket; see ``InFlight``.
        self.payments: deque[Charged] = deque()
        self.payer: int | None = None  # the user that is charged for these

    @property
    def fd(self) -> int:
        """The descriptor of our end; -1 once it is closed."""
        return self._end.fileno()

    def in_flight(self) -> int:
        """Return how many of the files that were sent have not been taken.

        Messages are taken in order. What the client itself puts into its own socket can only make
        it seem that more of ours are left.
        """
        if not self.payments:
            return 0
        left = _unread(self.fd) // _MESSAGE_COST
        while len(self.payments) > left:
            self.payments.popleft().end()
        return sum([payment.number for payment in self.payments])

    def send(
        self, kind: int, value: int, left: int = 0, fds: Sequence[int] = (), body: bytes = b""
    ) -> int:
        """Send one message; it goes whole or not at all, and never waits.

        Args:
            kind: of ``binderd_message``.
            value: what it says for that kind.
            left: how many descriptors are to follow in further messages.
            fds: descriptors that go with it, at most BINDERD_FILES_MAX; they stay ours.
            body: numbers (s32) behind the message, for a kind without descriptors.

        Returns:
            0, EAGAIN (the socket is full) or EPIPE (the client has closed its end).
        """
        message = binderd_message.pack(kind, len(fds) or len(body) // _NUMBER_SIZE, value, left)
        try:
            scm_rights.send(self._end, [message, body], fds, _SEND_FLAGS)
        except OSError as error:
            return EAGAIN if error.errno in _NO_ROOM else EPIPE
        return 0

    def send_files(self, number: int, fds: Sequence[int], sent: Callable[[int], None]) -> bool:
        """Send the files of an installation, in as many messages as it takes.

        Args:
            number: of the installation.
            fds: the files.
            sent: called with the number of files of each message that was sent.

        Returns:
            False if they were not all sent. What was is of no use without the rest: the client has
            to be told by the end of the socket.
        """
        for start in range(0, len(fds), BINDERD_FILES_MAX):
            part = fds[start : start + BINDERD_FILES_MAX]
            left = len(fds) - start - len(part)
            if self.send(BINDERD_FILES, number, left, part):
                return False
            sent(len(part))
        return True

    def send_closes(self, numbers: Sequence[int]) -> bool:
        """Tell the client to close descriptors of its own; False if that cannot all be said."""
        for start in range(0, len(numbers), BINDERD_FILES_MAX):
            part = numbers[start : start + BINDERD_FILES_MAX]
            body = b"".join([_pack_number(one) for one in part])
            if self.send(BINDERD_CLOSE, 0, len(numbers) - start - len(part), body=body):
                return False
        return True

    def end(self) -> None:
        """Show the client the end of the socket, behind what is in it."""
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the socket, through which nothing is on its way any more."""
        fd = self._end.detach()
        if fd >= 0:
            self._disposal.dispose(fd, flushes=False)


def attachment_of(tid: int, fd: int, flags: int, disposal: Disposal) -> Attachment | int:
    """Return the attachment over the socket that thread ``tid`` has under ``fd``.

    Both ends must be without a name, as those of a pair are: a client must not get us to talk to a
    server that it has connected to, which could believe our credentials.

    Returns:
        An errno instead: EBADF, no such descriptor; ENOTSOCK; EINVAL, no connected SOCK_SEQPACKET
        pair; ENOTCONN.

    Raises:
        NoAnswer: it could not be asked.
    """
    # Looked at before it is taken: closing a file of a FUSE file system, and be it the device
    # itself, is a request to its server.
    try:
        if not proc.link_of(proc.place_of(tid), f"fd/{fd}").startswith("socket:"):
            return ENOTSOCK
    except FileNotFoundError:
        return EBADF
    except OSError as error:
        raise NoAnswer from error
    taken = take_file(tid, fd, disposal)
    if taken is None:
        return EBADF
    try:
        end = socket.socket(fileno=taken.fd)
    except OSError as error:
        taken.close()
        return error.errno or EINVAL
    try:
        if (end.family, end.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
            raise OSError(EINVAL, os.strerror(EINVAL))
        if end.getsockname() or end.getpeername():
            raise OSError(EINVAL, os.strerror(EINVAL))
    except OSError as error:
        disposal.dispose(end.detach(), flushes=False)
        return error.errno or EINVAL
    return Attachment(end, flags, disposal)
