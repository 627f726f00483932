# SPDX-License-Identifier: Apache-2.0
"""The CUSE protocol server of one character device.

It is FUSE with another beginning, no tree, and ioctls that bring nothing but a pointer. There is no
FLUSH and no mmap. Nothing here may know the engine, file descriptors, time or trio.
"""

from __future__ import annotations

from errno import EPROTO
from typing import TYPE_CHECKING

from binderd.fuse.frames import BODY
from binderd.fuse.server import AT_ONCE, MAX_WRITE, Server, file_rows, row
from binderwire import fuse_abi as abi

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.fuse.server import FileHandlers
    from binderd.fuse.turns import Turns


class CuseSession(Server):
    """One CUSE connection: one device.

    Args:
        name: below /dev.
        device: the handlers of open files; its list of frames is the session's.
        negotiated: called once, when the kernel and we agree; with a reason if we cannot. The
            device is there when the answer was written.
        report_bug: called with the opcode and the exception when a handler failed.
        turns: of all users.
    """

    __slots__ = ("_name", "_negotiated")

    def __init__(
        self,
        name: str,
        device: FileHandlers,
        negotiated: Callable[[str | None], None],
        report_bug: Callable[[int, Exception], None],
        turns: Turns,
    ) -> None:
        rows = {**file_rows(device), abi.CUSE_INIT: row(self._init, abi.cuse_init_in, AT_ONCE)}
        super().__init__(rows, device.outgoing, device, report_bug, turns)
        self._name = name
        self._negotiated = negotiated

    def _init(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """CUSE_INIT: agree on the protocol and name the device."""
        major, minor, _, flags = abi.cuse_init_in.unpack_from(frame, BODY)
        if major != abi.FUSE_KERNEL_VERSION or not flags & abi.CUSE_UNRESTRICTED_IOCTL:
            self._negotiated(f"this kernel's CUSE is of protocol {major}.{minor}: too old")
            return EPROTO
        self._negotiated(None)
        head = abi.cuse_init_out.build(
            major=abi.FUSE_KERNEL_VERSION,
            minor=min(minor, abi.FUSE_KERNEL_MINOR_VERSION),
            flags=abi.CUSE_UNRESTRICTED_IOCTL,
            max_read=MAX_WRITE,
            max_write=MAX_WRITE,
        )
        return head + b"DEVNAME=" + self._name.encode() + b"\0"
