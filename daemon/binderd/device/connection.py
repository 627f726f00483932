# SPDX-License-Identifier: Apache-2.0
"""Requests on open files that are the same on every connection: POLL, RELEASE and INTERRUPT.

The handlers have the signature and the return values that ``fuse/server.py`` describes. Nothing
here may know the engine, file descriptors, memory mappings or trio.
"""

from __future__ import annotations

from errno import EACCES, EBADF
from typing import TYPE_CHECKING, Final

from binderd.device.replies import Replies
from binderd.fuse.frames import BODY
from binderd.fuse.server import IoctlHandler
from binderwire.fuse_abi import (
    FUSE_POLL_SCHEDULE_NOTIFY,
    fuse_interrupt_in,
    fuse_poll_in,
    fuse_poll_out,
    fuse_release_in,
)

if TYPE_CHECKING:
    from binderd.device.open_file import OpenFile
    from binderd.device.open_files import OpenFiles

_unpack_poll: Final = fuse_poll_in.unpack_from


class Connection(Replies, IoctlHandler):
    """The device's end of one connection with the kernel.

    Args:
        files: all open files of all devices.
    """

    __slots__ = ("files",)

    def __init__(self, files: OpenFiles) -> None:
        super().__init__()
        self.files = files
        files.connect(self)

    def drain(self) -> None:
        """Turn everything that has become ready into frames."""
        self.files.drain()

    def poll(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_POLL (binder_poll)."""
        handle, kernel_handle, flags, _ = _unpack_poll(frame, BODY)
        file = self.files.find(handle)
        if file is None:
            return self.poll_stateless(handle)
        if not tid:
            return EACCES  # as in open
        wake = bool(flags & FUSE_POLL_SCHEDULE_NOTIFY)
        return fuse_poll_out.pack(self.files.poll(file, tid, kernel_handle if wake else 0), 0)

    def release(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_RELEASE (binder_release): the last descriptor of the file is gone."""
        handle = fuse_release_in.unpack_from(frame, BODY)[0]
        file = self.files.find(handle)
        if file is None:
            return self.close_stateless(handle)
        self.closed(file)
        self.files.release(file)
        return b""

    def interrupt(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_INTERRUPT: a signal arrived for the thread whose request this names.

        The kernel wants the interrupted request answered, not the interruption. It always hands
        out a request before its interruption, so one that is unknown here has been answered.
        """
        interrupted = fuse_interrupt_in.unpack_from(frame, BODY)[0]
        self.files.interrupt(interrupted | self.ticket_base)
        return None

    # Where connections differ

    def closed(self, file: OpenFile) -> None:
        """An open file is about to be released."""

    def poll_stateless(self, handle: int) -> bytes | int:
        """Answer a POLL of a file that is not in the table: EBADF, unless there are such files."""
        return EBADF

    def close_stateless(self, handle: int) -> bytes | int:
        """Answer the close of a descriptor of such a file."""
        return EBADF
