# SPDX-License-Identifier: Apache-2.0
"""The FUSE protocol server: one request frame in, reply frames out.

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
from errno import EACCES, EINVAL, EIO, ENOSYS, EPERM, EPROTO
from typing import TYPE_CHECKING, Final, Protocol

from binderd.fuse.frames import BODY, failure, success
from binderwire import fuse_abi as abi

if TYPE_CHECKING:
    from binderd.fuse.tree import Tree
    from binderwire.codec import Record

# unique, nodeid, uid, thread id, frame, frame size in bytes
Handler = Callable[[int, int, int, int, bytearray, int], "bytes | int | None"]

# The kernel wants room for its header, a fuse_write_in and max_write bytes, and never less than
# 8 KiB. An ioctl argument can be 16383 bytes long; where it does not fit the kernel answers EIO
# by itself, while the driver's answer to an ioctl it does not know is EINVAL.
READ_BUFFER_SIZE: Final = 32 << 10  # bytes
_MAX_WRITE: Final = 4096  # bytes; nobody writes here, but the kernel takes no less

_BASIC_FLAGS: Final = abi.FUSE_PARALLEL_DIROPS
# Both or neither: what they make possible is a plain mmap that shows the receive area.
_PASSTHROUGH_FLAGS: Final = abi.FUSE_INIT_EXT | abi.FUSE_PASSTHROUGH
_MMAP_FLAGS: Final = _PASSTHROUGH_FLAGS | abi.FUSE_DIRECT_IO_ALLOW_MMAP
TOO_OLD: Final = (
    "this kernel's FUSE is of protocol {}: it must be 7, which all are since Linux 2.6.18"
)

# The kernel waits for no answer to these; one would be taken for the answer to something else.
_UNANSWERED: Final = frozenset({abi.FUSE_FORGET, abi.FUSE_BATCH_FORGET, abi.FUSE_INTERRUPT})

_unpack_header = abi.fuse_in_header.unpack_from


class DeviceHandlers(Protocol):
    """The requests that concern an open device file."""

    @property
    def open(self) -> Handler: ...
    @property
    def ioctl(self) -> Handler: ...
    @property
    def poll(self) -> Handler: ...
    @property
    def flush(self) -> Handler: ...
    @property
    def release(self) -> Handler: ...
    @property
    def interrupt(self) -> Handler: ...

    def drain(self) -> None:
        """Turn everything that has become ready into frames."""


class Session:
    """One FUSE connection.

    Args:
        tree: the directory.
        device: the handlers of open files.
        outgoing: where reply frames are put, in the order in which they must be written; the
            device has the same list.
        negotiated: called once, when the kernel and we agree; with a reason if we cannot.
        report_bug: called with the opcode and the exception when a handler failed.
        has_passthrough: make mmap work, if the kernel can; the attribute says whether it does.
    """

    __slots__ = (
        "_device",
        "_negotiated",
        "_report_bug",
        "_rows",
        "bugs",
        "dropped",
        "has_passthrough",
        "outgoing",
    )

    def __init__(
        self,
        tree: Tree,
        device: DeviceHandlers,
        outgoing: list[bytes],
        negotiated: Callable[[str | None], None],
        report_bug: Callable[[int, Exception], None],
        *,
        has_passthrough: bool = True,
    ) -> None:
        self.outgoing = outgoing
        self.dropped = 0  # frames without a believable header
        self.bugs = 0  # handlers that raised
        self.has_passthrough = has_passthrough
        self._device = device
        self._negotiated = negotiated
        self._report_bug = report_bug
        self._rows = self._table(tree, device)

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

    # Handlers of the connection itself

    def _init(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_INIT: agree on the protocol or refuse the mount."""
        major, minor, readahead, flags, *_ = abi.fuse_init_in.unpack_from(frame, BODY)
        if size >= BODY + abi.fuse_init_in.size:
            flags |= abi.fuse_init_in.unpack_from(frame, BODY)[4] << 32
        if major > abi.FUSE_KERNEL_VERSION:
            # The protocol's way to step down: name our version, the kernel then sends INIT again.
            return abi.fuse_init_out.build(major=abi.FUSE_KERNEL_VERSION)
        if major < abi.FUSE_KERNEL_VERSION:
            self._negotiated(TOO_OLD.format(major))
            return EPROTO
        if flags & _PASSTHROUGH_FLAGS != _PASSTHROUGH_FLAGS:
            self.has_passthrough = False
        flags &= _BASIC_FLAGS | (_MMAP_FLAGS if self.has_passthrough else 0)
        self._negotiated(None)
        return abi.fuse_init_out.build(
            major=abi.FUSE_KERNEL_VERSION,
            minor=min(minor, abi.FUSE_KERNEL_MINOR_VERSION),
            max_readahead=readahead,
            flags=flags & 0xFFFFFFFF,
            flags2=flags >> 32,
            max_write=_MAX_WRITE,
            time_gran=1,
            # our backing files are memfds, which are stacked on nothing
            max_stack_depth=int(self.has_passthrough),
        )

    def _destroy(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_DESTROY: the last request of a connection."""
        return b""

    # The table

    def _table(self, tree: Tree, device: DeviceHandlers) -> dict[int, tuple[int, Handler]]:
        """Return opcode -> (least frame size in bytes, handler)."""
        return {
            abi.FUSE_IOCTL: _row(device.ioctl, abi.fuse_ioctl_in),
            abi.FUSE_INTERRUPT: _row(device.interrupt, abi.fuse_interrupt_in),
            abi.FUSE_POLL: _row(device.poll, abi.fuse_poll_in),
            abi.FUSE_OPEN: _row(device.open, abi.fuse_open_in),
            abi.FUSE_FLUSH: _row(device.flush, abi.fuse_flush_in),
            abi.FUSE_RELEASE: _row(device.release, abi.fuse_release_in),
            abi.FUSE_LOOKUP: _row(tree.lookup),
            abi.FUSE_FORGET: _row(tree.forget, abi.fuse_forget_in),
            abi.FUSE_BATCH_FORGET: _row(tree.batch_forget, abi.fuse_batch_forget_in),
            abi.FUSE_GETATTR: _row(tree.getattr),
            abi.FUSE_SETATTR: _row(tree.setattr, abi.fuse_setattr_in),
            abi.FUSE_ACCESS: _row(tree.access),
            abi.FUSE_UNLINK: _row(tree.unlink),
            abi.FUSE_RENAME: _row(tree.rename, abi.fuse_rename_in),
            abi.FUSE_RENAME2: _row(tree.rename2, abi.fuse_rename2_in),
            abi.FUSE_OPENDIR: _row(tree.opendir, abi.fuse_open_in),
            abi.FUSE_READDIR: _row(tree.readdir, abi.fuse_read_in),
            abi.FUSE_RELEASEDIR: _row(tree.releasedir),
            abi.FUSE_STATFS: _row(tree.statfs),
            abi.FUSE_INIT: (BODY + _INIT_SIZE_MIN, self._init),
            abi.FUSE_DESTROY: _row(self._destroy),
            # The driver's files have no read or write, and binderfs no create, link or mkdir.
            abi.FUSE_READ: _row(_refuse_with(EINVAL)),
            abi.FUSE_WRITE: _row(_refuse_with(EINVAL)),
            abi.FUSE_CREATE: _row(_refuse_with(EACCES)),
            **dict.fromkeys(_NAME_CHANGES, _row(_refuse_with(EPERM))),
        }

    def _bug(self, opcode: int, error: Exception) -> int:
        """Count and report an exception in a handler; return the errno for its request."""
        self.bugs += 1
        try:
            # What the handler had finished before it failed belongs to other clients.
            self._device.drain()
            self._report_bug(opcode, error)
        except Exception:
            self.bugs += 1
        return EIO


# major, minor, max_readahead and flags; kernels before 5.17 send no more
_INIT_SIZE_MIN: Final = 16

_NAME_CHANGES: Final = (
    abi.FUSE_SYMLINK,
    abi.FUSE_MKNOD,
    abi.FUSE_MKDIR,
    abi.FUSE_RMDIR,
    abi.FUSE_LINK,
)


def _row(handler: Handler, body: Record | None = None) -> tuple[int, Handler]:
    return BODY + (body.size if body is not None else 0), handler


def _refuse_with(errno: int) -> Handler:
    def refuse(
        unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        return errno

    return refuse


# An opcode that is not in the table: the kernel remembers ENOSYS and stops asking.
_UNKNOWN: Final = _row(_refuse_with(ENOSYS))
