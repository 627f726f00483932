# SPDX-License-Identifier: Apache-2.0
"""The FUSE protocol server: the table of requests, and the agreement with the kernel.

How a request is handled is told in ``server.py``. Nothing here may know the engine, file
descriptors, time or trio.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ENODEV, EPERM, EPROTO
from typing import TYPE_CHECKING, Final, Protocol

from binderd.fuse.frames import BODY
from binderd.fuse.locks import LockHandlers
from binderd.fuse.server import (
    AT_ONCE,
    INTERRUPTS,
    MAX_WRITE,
    OF_FILE,
    OF_RELEASE,
    READ_BUFFER_SIZE,
    FileHandlers,
    Handler,
    Row,
    Server,
    file_rows,
    refuse_with,
    row,
)
from binderwire import fuse_abi as abi

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.fuse.tree import Charge, Tree
    from binderd.fuse.turns import Turns

__all__ = [
    "NOT_MAPPABLE",
    "NO_PASSTHROUGH",
    "READ_BUFFER_SIZE",
    "TOO_OLD",
    "DeviceHandlers",
    "Session",
]

# ATOMIC_O_TRUNC: an open with O_TRUNC asks for no SETATTR, which would be refused.
_BASIC_FLAGS: Final = abi.FUSE_PARALLEL_DIROPS | abi.FUSE_ATOMIC_O_TRUNC | abi.FUSE_FLOCK_LOCKS
# Both or neither: what they make possible is a plain mmap that shows the receive area.
_PASSTHROUGH_FLAGS: Final = abi.FUSE_INIT_EXT | abi.FUSE_PASSTHROUGH
_MMAP_FLAGS: Final = _PASSTHROUGH_FLAGS | abi.FUSE_DIRECT_IO_ALLOW_MMAP
TOO_OLD: Final = (
    "this kernel's FUSE is of protocol {}: it must be 7, which all are since Linux 2.6.18"
)

NO_PASSTHROUGH: Final = (
    "this kernel's FUSE has no passthrough (Linux 6.9 with CONFIG_FUSE_PASSTHROUGH=y has it), so "
    "a plain mmap of a device cannot show its receive area"
)
SWITCHED_OFF: Final = (
    "--passthrough off forbids that a plain mmap of a device file shows its receive area"
)
NOT_MAPPABLE: Final = (NO_PASSTHROUGH, SWITCHED_OFF)


class DeviceHandlers(FileHandlers, Protocol):
    """The requests that concern an open device file."""

    @property
    def flush(self) -> Handler: ...


class InsideHandlers(Protocol):
    """Requests on inodes of another tree; see ``introspect/inside.py``."""

    def covers(self, nodeid: int) -> bool:
        """Whether an inode is theirs."""

    def lists(self, nodeid: int) -> bool:
        """Whether what is in a directory is theirs."""

    def handlers(self) -> dict[int, Handler]:
        """Return the handlers of requests on what ``covers``, by opcode."""

    def listing(self) -> dict[int, Handler]:
        """Return the handlers of requests in what ``lists``, by opcode."""


class Session(Server):
    """One FUSE connection.

    Args:
        tree: the directory.
        device: the handlers of open files; its list of frames is the session's.
        negotiated: called once, when the kernel and we agree; with a reason if we cannot.
        report_bug: called with the opcode and the exception when a handler failed.
        turns: of all users; the device has the same.
        has_passthrough: make mmap work, if the kernel can; the attribute says whether it does.
        needs_passthrough: refuse a kernel that cannot.
        charge_wait: charges a request that waits for a lock; see ``LockHandlers``.
        inside: another tree that answers requests on its inodes; None: there is none.
    """

    __slots__ = ("_is_switched_off", "_needs_passthrough", "_negotiated", "has_passthrough")

    def __init__(
        self,
        tree: Tree,
        device: DeviceHandlers,
        negotiated: Callable[[str | None], None],
        report_bug: Callable[[int, Exception], None],
        turns: Turns,
        *,
        has_passthrough: bool = True,
        needs_passthrough: bool = False,
        charge_wait: Callable[[int, int], Charge | None] | None = None,
        inside: InsideHandlers | None = None,
    ) -> None:
        outgoing = device.outgoing
        locks = LockHandlers(tree, outgoing, device.release, device.interrupt, charge_wait)
        rows = self._table(tree, device, locks)
        if inside is not None:
            _hand_over(rows, inside.handlers(), inside.covers)
            _hand_over(rows, inside.listing(), inside.lists)
        super().__init__(rows, outgoing, device, report_bug, turns)
        self.has_passthrough = has_passthrough
        self._is_switched_off = not has_passthrough
        self._needs_passthrough = needs_passthrough
        self._negotiated = negotiated

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
        if self._needs_passthrough and not self.has_passthrough:
            self._negotiated(SWITCHED_OFF if self._is_switched_off else NO_PASSTHROUGH)
            return EPROTO
        flags &= _BASIC_FLAGS | (_MMAP_FLAGS if self.has_passthrough else 0)
        self._negotiated(None)
        return abi.fuse_init_out.build(
            major=abi.FUSE_KERNEL_VERSION,
            minor=min(minor, abi.FUSE_KERNEL_MINOR_VERSION),
            max_readahead=readahead,
            flags=flags & 0xFFFFFFFF,
            flags2=flags >> 32,
            max_write=MAX_WRITE,
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

    def _table(self, tree: Tree, device: DeviceHandlers, locks: LockHandlers) -> dict[int, Row]:
        """Return opcode -> (least frame size in bytes, handler, whose turn it takes)."""
        return {
            **file_rows(device),
            abi.FUSE_FLUSH: row(device.flush, abi.fuse_flush_in, OF_FILE),
            abi.FUSE_RELEASE: row(locks.release, abi.fuse_release_in, OF_RELEASE),
            abi.FUSE_INTERRUPT: row(locks.interrupt, abi.fuse_interrupt_in, INTERRUPTS),
            abi.FUSE_SETLK: row(locks.set_lock, abi.fuse_lk_in),
            abi.FUSE_SETLKW: row(locks.wait_for_lock, abi.fuse_lk_in),
            # What a kernel says of character devices.
            abi.FUSE_FSYNC: row(refuse_with(EINVAL)),
            abi.FUSE_FALLOCATE: row(refuse_with(ENODEV)),
            abi.FUSE_READ: row(tree.read, abi.fuse_read_in),
            abi.FUSE_LOOKUP: row(tree.lookup),
            abi.FUSE_FORGET: row(tree.forget, abi.fuse_forget_in, AT_ONCE),
            abi.FUSE_BATCH_FORGET: row(tree.batch_forget, abi.fuse_batch_forget_in, AT_ONCE),
            abi.FUSE_GETATTR: row(tree.getattr),
            abi.FUSE_SETATTR: row(tree.setattr, abi.fuse_setattr_in),
            abi.FUSE_ACCESS: row(tree.access),
            abi.FUSE_UNLINK: row(tree.unlink),
            abi.FUSE_RENAME: row(tree.rename, abi.fuse_rename_in),
            abi.FUSE_RENAME2: row(tree.rename2, abi.fuse_rename2_in),
            abi.FUSE_OPENDIR: row(tree.opendir, abi.fuse_open_in),
            abi.FUSE_READDIR: row(tree.readdir, abi.fuse_read_in),
            abi.FUSE_RELEASEDIR: row(tree.releasedir),
            abi.FUSE_STATFS: row(tree.statfs),
            abi.FUSE_INIT: (BODY + _INIT_SIZE_MIN, self._init, AT_ONCE),
            abi.FUSE_DESTROY: row(self._destroy, None, AT_ONCE),
            # binderfs has no create, link or mkdir.
            abi.FUSE_CREATE: row(refuse_with(EACCES)),
            **dict.fromkeys(_NAME_CHANGES, row(refuse_with(EPERM))),
        }


def _hand_over(
    rows: dict[int, Row], handlers: dict[int, Handler], is_theirs: Callable[[int], bool]
) -> None:
    """Have others handle requests on inodes that are theirs."""
    for opcode, handler in handlers.items():
        least, ours, turn = rows[opcode]
        rows[opcode] = (least, _either(is_theirs, handler, ours), turn)


def _either(is_theirs: Callable[[int], bool], theirs: Handler, ours: Handler) -> Handler:
    def handle(
        unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        handler = theirs if is_theirs(nodeid) else ours
        return handler(unique, nodeid, uid, tid, frame, size)

    return handle


# major, minor, max_readahead and flags; kernels before 5.17 send no more
_INIT_SIZE_MIN: Final = 16

_NAME_CHANGES: Final = (
    abi.FUSE_SYMLINK,
    abi.FUSE_MKNOD,
    abi.FUSE_MKDIR,
    abi.FUSE_RMDIR,
    abi.FUSE_LINK,
)
