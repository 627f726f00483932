# SPDX-License-Identifier: Apache-2.0
"""What FUSE and CUSE have in common: one request frame in, reply frames out.

Theory of operation. ``receive`` unpacks the header, looks the opcode up in one table and calls
the handler in that row. A row is (least frame size, handler); the size is checked here, so a
handler may unpack its fixed part without looking. Every handler has the same signature and
returns

    bytes   the body of a successful reply
    int     an errno
    None    no reply is due now: the handler appended its frames itself, the request is parked, or
            the kernel expects none

Rules of this file: no frame makes ``receive`` raise. A malformed one is answered with an errno
or, where not even its header can be believed, dropped and counted. An exception in a handler is
our own bug: that request ends with EIO, the bug is reported, everybody else goes on.

Nothing here may know the engine, file descriptors, time or trio.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, EIO, ENOSYS
from typing import TYPE_CHECKING, Final, Protocol

from binderd.fuse.frames import BODY, failure, success
from binderwire import fuse_abi as abi

if TYPE_CHECKING:
    from binderwire.codec import Record

# unique, nodeid, uid, thread id, frame, frame size in bytes
Handler = Callable[[int, int, int, int, bytearray, int], "bytes | int | None"]

# The kernel wants room for its header, a fuse_write_in and max_write bytes, and never less than
# 8 KiB. An ioctl argument can be 16383 bytes long; where it does not fit the kernel answers EIO
# by itself, while the driver's answer to an ioctl it does not know is EINVAL.
READ_BUFFER_SIZE: Final = 32 << 10  # bytes
MAX_WRITE: Final = 4096  # bytes; nobody writes here, but the kernel takes no less

# The kernel waits for no answer to these; one would be taken for the answer to something else.
_UNANSWERED: Final = frozenset({abi.FUSE_FORGET, abi.FUSE_BATCH_FORGET, abi.FUSE_INTERRUPT})

_unpack_header = abi.fuse_in_header.unpack_from


class FileHandlers(Protocol):
    """The requests that concern an open device file, through whatever it was opened."""

    @property
    def open(self) -> Handler: ...
    @property
    def ioctl(self) -> Handler: ...
    @property
    def poll(self) -> Handler: ...
    @property
    def release(self) -> Handler: ...
    @property
    def interrupt(self) -> Handler: ...

    def drain(self) -> None:
        """Turn everything that has become ready into frames."""


class Server:
    """One connection with the kernel.

    Args:
        rows: opcode -> (least frame size in bytes, handler).
        outgoing: where reply frames are put, in the order in which they must be written; the
            device has the same list.
        drain: turns everything that has become ready into frames.
        report_bug: called with the opcode and the exception when a handler failed.
    """

    __slots__ = ("_drain", "_report_bug", "_rows", "bugs", "dropped", "outgoing")

    def __init__(
        self,
        rows: dict[int, tuple[int, Handler]],
        outgoing: list[bytes],
        drain: Callable[[], None],
        report_bug: Callable[[int, Exception], None],
    ) -> None:
        self.outgoing = outgoing
        self.dropped = 0  # frames without a believable header
        self.bugs = 0  # handlers that raised
        self._rows = rows
        self._drain = drain
        self._report_bug = report_bug

    def receive(self, frame: bytearray, size: int) -> None:
        """Handle one request; its replies, and any that it caused, are appended to ``outgoing``.

        Args:
            frame: a buffer of at least READ_BUFFER_SIZE bytes that starts with the request. It
                may be used again as soon as this returns.
            size: how many bytes of it the kernel filled.
        """
        if size < BODY:
            self.dropped += 1
            return
        length, opcode, unique, nodeid, uid, _, tid, _, _ = _unpack_header(frame)
        try:
            least, handler = self._rows.get(opcode, _UNKNOWN)
            if least <= size == length:
                answer = handler(unique, nodeid, uid, tid, frame, size)
            else:
                answer = EINVAL
        except Exception as error:
            answer = self._bug(opcode, error)
        if answer is None:
            return
        if not unique or opcode in _UNANSWERED:  # a reply to unique 0 would be a notification
            self.dropped += 1
        elif isinstance(answer, int):
            self.outgoing.append(failure(unique, answer))
        else:
            self.outgoing.append(success(unique, answer))

    def _bug(self, opcode: int, error: Exception) -> int:
        """Count and report an exception in a handler; return the errno for its request."""
        self.bugs += 1
        try:
            # What the handler had finished before it failed belongs to other clients.
            self._drain()
            self._report_bug(opcode, error)
        except Exception:
            self.bugs += 1
        return EIO


def row(handler: Handler, body: Record | None = None) -> tuple[int, Handler]:
    """Return a row for requests with such a body."""
    return BODY + (body.size if body is not None else 0), handler


def file_rows(device: FileHandlers) -> dict[int, tuple[int, Handler]]:
    """Return the rows that concern open device files; those have no read and no write."""
    return {
        abi.FUSE_IOCTL: row(device.ioctl, abi.fuse_ioctl_in),
        abi.FUSE_INTERRUPT: row(device.interrupt, abi.fuse_interrupt_in),
        abi.FUSE_POLL: row(device.poll, abi.fuse_poll_in),
        abi.FUSE_OPEN: row(device.open, abi.fuse_open_in),
        abi.FUSE_RELEASE: row(device.release, abi.fuse_release_in),
        abi.FUSE_READ: row(refuse_with(EINVAL)),
        abi.FUSE_WRITE: row(refuse_with(EINVAL)),
    }


def refuse_with(errno: int) -> Handler:
    """Return a handler that only says no."""

    def refuse(
        unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        return errno

    return refuse


# An opcode that is not in the table: the kernel remembers ENOSYS and stops asking.
_UNKNOWN: Final = row(refuse_with(ENOSYS))
