# SPDX-License-Identifier: Apache-2.0
"""The CUSE protocol server of one character device.

It is FUSE with another beginning, no tree, and ioctls that bring nothing but a pointer. There is no
FLUSH and no mmap. Nothing here may know the engine, file descriptors, time or trio.
"""

from __future__ import annotations

from errno import EINVAL, EPROTO
from typing import TYPE_CHECKING, Protocol

from binderd.fuse.frames import BODY
from binderd.fuse.server import MAX_WRITE, Handler, Server, refuse_with, row
from binderwire import fuse_abi as abi

if TYPE_CHECKING:
    from collections.abc import Callable


class CuseHandlers(Protocol):
    """The requests that concern open files of the device."""

    outgoing: list[bytes]

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


class CuseSession(Server):
    """One CUSE connection: one device.

    Args:
        name: below /dev.
        device: the handlers of open files; its list of frames is the session's.
        negotiated: called once, when the kernel and we agree; with a reason if we cannot. The
            device is there when the answer was written.
        report_bug: called with the opcode and the exception when a handler failed.
    """

    __slots__ = ("_name", "_negotiated")

    def __init__(
        self,
        name: str,
        device: CuseHandlers,
        negotiated: Callable[[str | None], None],
        report_bug: Callable[[int, Exception], None],
    ) -> None:
        rows = {
            abi.FUSE_IOCTL: row(device.ioctl, abi.fuse_ioctl_in),
            abi.FUSE_INTERRUPT: row(device.interrupt, abi.fuse_interrupt_in),
            abi.FUSE_POLL: row(device.poll, abi.fuse_poll_in),
            abi.FUSE_OPEN: row(device.open, abi.fuse_open_in),
            abi.FUSE_RELEASE: row(device.release, abi.fuse_release_in),
            abi.FUSE_READ: row(refuse_with(EINVAL)),
            abi.FUSE_WRITE: row(refuse_with(EINVAL)),
            abi.CUSE_INIT: row(self._init, abi.cuse_init_in),
        }
        super().__init__(rows, device.outgoing, device.drain, report_bug)
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
