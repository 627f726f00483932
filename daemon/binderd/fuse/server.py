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

A row also says whose turn a request takes (``turns.py``). One that must wait is copied, since the
frame's buffer is used again, and handled when its turn comes. An interruption of one that waits
waits with it. A release is answered at once and done later: the kernel has few of them under way,
of all users together.

Rules of this file: no frame makes ``receive`` raise. A malformed one is answered with an errno
or, where not even its header can be believed, dropped and counted. An exception in a handler is
our own bug: that request ends with EIO, the bug is reported, other requests go on.

Nothing here may know the engine, file descriptors, time or trio.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, EIO, ENOMEM, ENOSYS
from typing import TYPE_CHECKING, Final, Protocol

from binderd.fuse.frames import BODY, failure, request_head, success
from binderd.fuse.turns import Account, Job, Turns
from binderwire import fuse_abi as abi

if TYPE_CHECKING:
    from binderwire.codec import Record

# unique, nodeid, uid, thread id, frame, frame size in bytes
Handler = Callable[[int, int, int, int, bytearray, int], "bytes | int | None"]

# The kernel wants room for its header, a fuse_write_in and max_write bytes, and never less than
# 8 KiB. An ioctl argument can be 16383 bytes long; where it does not fit the kernel answers EIO
# by itself, while the driver's answer to an ioctl it does not know is EINVAL.
READ_BUFFER_SIZE: Final = 32 << 10  # bytes
MAX_WRITE: Final = 4096  # bytes; all writes are refused, but the kernel takes no less

# The kernel waits for no answer to these; one would be taken for the answer to something else.
_UNANSWERED: Final = frozenset({abi.FUSE_FORGET, abi.FUSE_BATCH_FORGET, abi.FUSE_INTERRUPT})

# Whose turn does a request take?
AT_ONCE: Final = 0  # none: it is served at once
OF_NAMES: Final = 1  # its user's, for looking around
OF_USER: Final = 2  # its user's
OF_FILE: Final = 3  # of the user that pays for the open file; the body begins with its handle
OF_RELEASE: Final = 4  # the same, answered at once
INTERRUPTS: Final = 5  # that of the request that it names

Row = tuple[int, Handler, int]

_unpack_head: Final = request_head.only("len", "opcode", "unique", "nodeid", "uid", "pid", "handle")
_unpack_interrupt: Final = abi.fuse_interrupt_in.unpack_from


class IoctlHandler(Protocol):
    """Who handles FUSE_IOCTL: a base class, as that is called without a look-up."""

    __slots__ = ()

    def ioctl(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """Handle one, as every handler does."""


class FileHandlers(IoctlHandler, Protocol):
    """The requests that concern an open device file, through whatever it was opened.

    ``outgoing`` is where frames are put, in the order in which they must be written.
    """

    outgoing: list[bytes]

    @property
    def open(self) -> Handler: ...
    @property
    def poll(self) -> Handler: ...
    @property
    def release(self) -> Handler: ...
    @property
    def interrupt(self) -> Handler: ...

    def drain(self) -> None:
        """Turn everything that has become ready into frames."""


class WaitingRequest(Job):
    """A request that was put off.

    Args:
        server: that it came to.
        account: of the user that pays.
        unique: its number.
        frame: the request.
        is_answered: it was answered when it came.
    """

    __slots__ = ("account", "frame", "interruption", "is_answered", "server", "unique")

    def __init__(
        self, server: Server, account: Account, unique: int, frame: bytes, *, is_answered: bool
    ) -> None:
        super().__init__(len(frame))
        self.server = server
        self.account = account
        self.unique = unique
        self.frame = frame
        self.is_answered = is_answered
        self.interruption = b""

    def run(self) -> None:
        self.server.resume(self)


class Server:
    """One connection with the kernel.

    Args:
        rows: opcode -> (least frame size in bytes, handler, whose turn it takes).
        outgoing: where reply frames are put, in the order in which they must be written; the
            device has the same list.
        device: handles ioctls, and turns everything that has become ready into frames.
        report_bug: called with the opcode and the exception when a handler failed.
        turns: of all users; other connections have the same.
    """

    __slots__ = (
        "_drain",
        "_flush",
        "_ioctl",
        "_ioctls",
        "_report_bug",
        "_rows",
        "_scratch",
        "_turns",
        "_waiting",
        "bugs",
        "dropped",
        "outgoing",
    )

    def __init__(
        self,
        rows: dict[int, Row],
        outgoing: list[bytes],
        device: FileHandlers,
        report_bug: Callable[[int, Exception], None],
        turns: Turns,
    ) -> None:
        self.outgoing = outgoing
        self.dropped = 0  # frames without a believable header
        self.bugs = 0  # handlers that raised
        self._rows = rows
        self._drain: Callable[[], None] = device.drain
        # Unless others have their hands in it.
        self._ioctl: Row = rows[abi.FUSE_IOCTL]
        is_theirs = self._ioctl[1] != device.ioctl
        self._ioctls: IoctlHandler | None = None if is_theirs else device
        self._report_bug = report_bug
        self._turns = turns
        self._flush: Callable[[], None] | None = None
        self._waiting: dict[int, WaitingRequest] = {}  # by number; those that can be interrupted
        self._scratch = bytearray(READ_BUFFER_SIZE)

    def written_by(self, flush: Callable[[], None]) -> None:
        """Have ``flush`` called when a request that had waited has been handled."""
        self._flush = flush

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
        length: int
        opcode: int
        unique: int
        nodeid: int
        uid: int
        tid: int
        handle: int  # what else may be there is nobody's
        length, opcode, unique, nodeid, uid, tid, handle = _unpack_head(frame)
        is_ioctl = opcode == abi.FUSE_IOCTL
        if is_ioctl:
            least, handler, turn = self._ioctl
        else:
            least, handler, turn = self._rows.get(opcode, _UNKNOWN)
        if not least <= size == length:
            self._reply(opcode, unique, EINVAL)
            return
        if turn and not self._has_turn(turn, handle, unique, uid, tid, frame, size):
            return
        try:
            if is_ioctl and self._ioctls is not None:
                answer = self._ioctls.ioctl(unique, nodeid, uid, tid, frame, size)
            else:
                answer = handler(unique, nodeid, uid, tid, frame, size)
        except Exception as error:
            answer = self._bug(opcode, error)
        if answer is not None:
            self._reply(opcode, unique, answer)

    def resume(self, waiting: WaitingRequest) -> None:
        """Handle a request that was put off, and write what is due then."""
        if not waiting.is_answered:
            del self._waiting[waiting.unique]
        self._handle_again(waiting.frame, is_answered=waiting.is_answered)
        if waiting.interruption:
            self._handle_again(waiting.interruption, is_answered=True)
        if self._flush is not None:
            self._flush()

    def _handle_again(self, request: bytes, *, is_answered: bool) -> None:
        frame, size = self._scratch, len(request)
        frame[:size] = request
        _, opcode, unique, nodeid, uid, tid, _ = _unpack_head(frame)
        try:
            answer = self._rows.get(opcode, _UNKNOWN)[1](unique, nodeid, uid, tid, frame, size)
        except Exception as error:
            answer = self._bug(opcode, error)
        if answer is not None and not is_answered:
            self._reply(opcode, unique, answer)

    def _reply(self, opcode: int, unique: int, answer: bytes | int) -> None:
        if not unique or opcode in _UNANSWERED:  # a reply to unique 0 would be a notification
            self.dropped += 1
        elif isinstance(answer, int):
            self.outgoing.append(failure(unique, answer))
        else:
            self.outgoing.append(success(unique, answer))

    # Requests that must wait

    def _has_turn(
        self,
        turn: int,
        handle: int,
        unique: int,
        uid: int,
        tid: int,
        frame: bytearray,
        size: int,
    ) -> bool:
        """Settle who pays for a request; return False if it has to wait, and does."""
        if turn == INTERRUPTS:
            return not (self._waiting and self._interrupt(frame, size))
        turns, process = self._turns, tid
        if turn >= OF_FILE:
            file = turns.files.get(handle)
            if file is None:
                account = turns.of_user(uid)
            else:
                account, process = file
        else:
            account = turns.of_user(uid) if turn == OF_USER else turns.of_names(uid)
        if account.waits:
            self._put_off(account, process, turn, unique, frame, size)
            return False
        turns.payer = account
        if turn >= OF_FILE:
            turns.process = process
        return True

    def _put_off(
        self, account: Account, process: int, turn: int, unique: int, frame: bytearray, size: int
    ) -> None:
        """Keep a request until it is its turn, or refuse it where there are too many."""
        is_release = turn == OF_RELEASE
        if is_release:
            self.outgoing.append(success(unique, b""))
        elif not self._turns.has_room(account, size):
            self.outgoing.append(failure(unique, ENOMEM))  # the driver's, where it has no room
            return
        request = bytes(frame[:size])
        waiting = WaitingRequest(self, account, unique, request, is_answered=is_release)
        if not is_release:
            self._waiting[unique] = waiting
        self._turns.put(account, process, waiting)

    def _interrupt(self, frame: bytearray, size: int) -> bool:
        """Note an interruption of a request that waits; return whether it is one."""
        waiting = self._waiting.get(_unpack_interrupt(frame, BODY)[0])
        if waiting is not None:
            waiting.interruption = bytes(frame[:size])
        return waiting is not None

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


def row(handler: Handler, body: Record | None = None, turn: int = OF_NAMES) -> Row:
    """Return a row for requests with such a body that take that turn."""
    return BODY + (body.size if body is not None else 0), handler, turn


def file_rows(device: FileHandlers) -> dict[int, Row]:
    """Return the rows that concern open device files; those have no read and no write."""
    return {
        abi.FUSE_IOCTL: row(device.ioctl, abi.fuse_ioctl_in, OF_FILE),
        abi.FUSE_INTERRUPT: row(device.interrupt, abi.fuse_interrupt_in, INTERRUPTS),
        abi.FUSE_POLL: row(device.poll, abi.fuse_poll_in, OF_FILE),
        abi.FUSE_OPEN: row(device.open, abi.fuse_open_in, OF_USER),
        abi.FUSE_RELEASE: row(device.release, abi.fuse_release_in, OF_RELEASE),
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
