# SPDX-License-Identifier: Apache-2.0
"""CUSE's requests on the open files of one character device.

The kernel brings the address of an ioctl's argument only, so we read it from the memory of the
thread before the engine sees the request, and write it back before the thread hears of the result
(``cuse_ioctl.py``): one round trip.

A request here may end requests of other connections, and theirs may end ours; ``open_files.py``
sees that all are written. Nothing here may know the engine, file descriptors or trio.
"""

from __future__ import annotations

from errno import EACCES, EBADF
from typing import TYPE_CHECKING, Final

from binderd.device.connection import Connection
from binderd.device.cuse_ioctl import CuseIoctl
from binderd.fuse.frames import BODY, ioctl_result
from binderwire.fuse_abi import (
    FOPEN_DIRECT_IO,
    FOPEN_NONSEEKABLE,
    fuse_ioctl_in,
    fuse_open_in,
    fuse_open_out,
)

if TYPE_CHECKING:
    from binderd.device.open_files import OpenFiles

_unpack_ioctl: Final = fuse_ioctl_in.unpack_from


class CuseDevice(Connection):
    """One CUSE device.

    Args:
        files: all open files of all devices.
        context: which binder context it leads to.
    """

    __slots__ = ("_context", "_ioctls")

    def __init__(self, files: OpenFiles, context: str) -> None:
        super().__init__(files)
        self._context = context
        self._ioctls: dict[int, CuseIoctl] = {}  # those that are not answered, by ticket

    # Requests; see ``fuse/server.py`` for the arguments

    def open(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_OPEN (binder_open)."""
        if not tid:
            return self.files.refuse_foreign_pid()
        flags, _ = fuse_open_in.unpack_from(frame, BODY)
        file = self.files.open(self, self._context, 0, uid, tid, flags)
        if isinstance(file, int):
            return file
        return fuse_open_out.pack(file.handle, FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE, 0)

    def ioctl(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_IOCTL (binder_ioctl)."""
        handle, _, request, address, _, _ = _unpack_ioctl(frame, BODY)
        file = self.files.find(handle)
        if file is None:
            return EBADF
        if not tid:
            return EACCES
        memory = self.files.memory_of(file, tid)
        if isinstance(memory, int):
            return memory
        ticket = unique | self.ticket_base
        ioctl = CuseIoctl(self.files, file, memory, ticket, (tid, uid, request), address)
        self._ioctls[ticket] = ioctl
        try:
            self.files.run(ioctl)
        except BaseException:
            self._ioctls.pop(ticket, None)
            raise
        return None

    # Answers

    def answer(self, ticket: int, result: int, payload: bytes) -> None:
        ioctl = self._ioctls.get(ticket)
        if ioctl is None or not ioctl.write_back(result, payload):
            return
        del self._ioctls[ticket]
        self.outgoing.append(ioctl_result(ticket - self.ticket_base, ioctl.result, b""))
