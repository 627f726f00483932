# SPDX-License-Identifier: Apache-2.0
"""FUSE's requests on the files of our file system: devices, and binder-control.

A request is unpacked here and its answer is packed; what it means is in ``open_files.py``. Nothing
here may know the engine, file descriptors, memory mappings or trio.
"""

from __future__ import annotations

from errno import EACCES, EBADF, EINVAL, ENOENT, ENOTTY, ESTALE
from typing import TYPE_CHECKING, Final

from binderd.device.connection import Connection
from binderd.device.control import CONTROL_HANDLE, POLL_EVENTS, control_ioctl
from binderd.device.extension import EXTENSION
from binderd.device.lanes import LANE_IOCTLS
from binderd.fuse.entrance import Opening
from binderd.fuse.frames import (
    BODY,
    USUAL_ARGUMENT_SIZE,
    failure,
    ioctl_reply,
    ioctl_request,
    ioctl_result,
    write_read_reply,
)
from binderd.fuse.pages import AGAIN, PRIVATE
from binderd.fuse.tree import CONTROL_ID
from binderwire.fuse_abi import (
    FILE_ATTRIBUTE_IOCTLS,
    FOPEN_DIRECT_IO,
    FOPEN_NONSEEKABLE,
    FOPEN_PASSTHROUGH,
    O_DIRECT,
    O_RDONLY,
    fuse_flush_in,
    fuse_interrupt_in,
    fuse_ioctl_in,
    fuse_open_in,
    fuse_open_out,
    fuse_poll_out,
)

if TYPE_CHECKING:
    from binderd.device.open_file import OpenFile
    from binderd.device.open_files import OpenFiles
    from binderd.device.opener import Opener
    from binderd.fuse.directory import Directory
    from binderd.fuse.entrance import Entrance
    from binderd.fuse.tree import Tree

# PASSTHROUGH gives the client's mmap the backing file's pages; DIRECT_IO beside it keeps read(2)
# and write(2) away from them: those come to us and are refused, as the driver refuses them.
_OPEN_FLAGS: Final = FOPEN_PASSTHROUGH | FOPEN_DIRECT_IO
_OPEN_FLAGS_WITHOUT_MMAP: Final = FOPEN_DIRECT_IO
# The flags of an open that no 64-bit program can make, as it has no O_LARGEFILE: the kernel itself
# opens the inode, to ask for what lsattr shows.
_LSATTR: Final = O_RDONLY

_CONTROL_FLAGS: Final = FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE

_ARGUMENT: Final = BODY + fuse_ioctl_in.size  # where an ioctl's argument starts in its frame
_REPLY_SIZE: Final = ioctl_reply.size

_unpack_ioctl: Final = ioctl_request.only("fh", "cmd", "in_size", "out_size", "argument")
_pack_ioctl: Final = ioctl_reply.pack
_pack_write_read: Final = write_read_reply.pack


class FuseDevice(Connection):
    """The device files of the file system.

    Args:
        files: all open files of all devices.
        tree: for the inode that is being opened.
        directory: the devices, for binder-control.
        opener: told if the kernel maps nothing that it is given.
        entrance: where opens wait.
    """

    __slots__ = ("_directory", "_entrance", "_opener", "_room", "_tree", "choice")

    def __init__(
        self,
        files: OpenFiles,
        tree: Tree,
        directory: Directory,
        opener: Opener,
        entrance: Entrance,
    ) -> None:
        super().__init__(files)
        assert self.ticket_base == 0  # so requests' numbers are tickets as they are
        self._tree = tree
        self._directory = directory
        self._opener = opener
        self.choice = tree.choice
        self._entrance = entrance
        entrance.leads_to(self._let_in)
        # Room for the argument in the answer, in bytes, by ticket, where it is not the usual.
        self._room: dict[int, int] = {}

    def lack_passthrough(self) -> None:
        """The kernel maps nothing that we give it; to be called before anything is opened."""
        self.choice.can_share = False
        self._tree.shows_zeros = True
        self._opener.lack_passthrough()

    def try_passthrough(self) -> None:
        """See whether the kernel takes from us what it says that it can map."""
        if self.choice.can_share and not self._opener.can_back():
            self.lack_passthrough()

    # Requests

    def open(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_OPEN (binder_open)."""
        node = self._tree.node(nodeid)
        if node is None:
            if nodeid == CONTROL_ID:
                return fuse_open_out.pack(CONTROL_HANDLE, _CONTROL_FLAGS, 0)
            return ENOENT
        flags, _ = fuse_open_in.unpack_from(frame, BODY)
        if not node.device.is_listed and not node.opens:
            return ENOENT  # unlinked since it was looked up
        if flags & O_DIRECT:
            return EINVAL
        if not tid:
            return self.files.refuse_foreign_pid()
        self._entrance.leave(node.device, tid)
        pages = self.choice.of(node, nodeid, tid)
        if pages == AGAIN:
            if flags == _LSATTR:
                return EINVAL
            payer = self._opener.payer(tid, uid)
            self._entrance.enter(Opening(unique, node.device, nodeid, tid, payer))
            return None
        file = self.files.open(
            self, node.device.context, nodeid, uid, tid, flags, is_private=pages == PRIVATE
        )
        if isinstance(file, int):
            return file
        backing_id = file.client.backing_id
        self._tree.opened(nodeid, node.pages or pages)
        open_flags = _OPEN_FLAGS if backing_id else _OPEN_FLAGS_WITHOUT_MMAP
        return fuse_open_out.pack(file.handle, open_flags, backing_id)

    def _let_in(self, opening: Opening) -> None:
        """Have a thread begin anew to open a device."""
        self.choice.begin_anew(opening.nodeid, opening.tid)
        self.outgoing.append(failure(opening.unique, ESTALE))

    def interrupt(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_INTERRUPT: of an open that waits, or of another request."""
        if not self._entrance.interrupt(fuse_interrupt_in.unpack_from(frame, BODY)[0]):
            super().interrupt(unique, nodeid, uid, tid, frame, size)
        return None

    def ioctl(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_IOCTL (binder_ioctl): the one request that matters for speed."""
        handle, request, in_size, out_size, argument = _unpack_ioctl(frame, BODY)
        file = self.files.find(handle)
        if _ARGUMENT + in_size > size:
            return EINVAL
        if file is None:
            if handle != CONTROL_HANDLE:
                return ENOTTY  # a directory; the driver's files are all in the table
            argument = bytes(frame[_ARGUMENT : _ARGUMENT + in_size])
            self._control_ioctl(unique, request, argument, out_size)
            return None
        if not tid:
            return EACCES  # as in open
        if in_size != USUAL_ARGUMENT_SIZE or out_size != USUAL_ARGUMENT_SIZE:
            if request in FILE_ATTRIBUTE_IOCTLS:
                return EINVAL  # the kernel's own; it takes no other form of answer
            argument = bytes(frame[_ARGUMENT : _ARGUMENT + in_size])
            self._small_ioctl(file, uid, tid, request, argument, unique, out_size)
        else:
            self.files.ioctl(file, tid, uid, request, argument, unique)
        return None

    def _small_ioctl(
        self,
        file: OpenFile,
        uid: int,
        tid: int,
        request: int,
        argument: bytes,
        unique: int,
        out_size: int,
    ) -> None:
        """Do an ioctl that is no BINDER_WRITE_READ."""
        self._room[unique] = out_size
        try:
            if request in EXTENSION:
                self.files.extension_ioctl(file, tid, request, argument, unique)
            elif request in LANE_IOCTLS:
                self.files.use_lane(file, tid, uid, request, argument, unique)
            else:
                self.files.ioctl(file, tid, uid, request, argument, unique)
        except BaseException:
            self._room.pop(unique, None)
            raise

    def _control_ioctl(self, unique: int, request: int, argument: bytes, out_size: int) -> None:
        result, payload = control_ioctl(self._directory, request, argument)
        self.outgoing.append(ioctl_result(unique, result, payload[:out_size]))

    def flush(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_FLUSH (binder_flush): one descriptor of the file was closed."""
        handle = fuse_flush_in.unpack_from(frame, BODY)[0]
        file = self.files.find(handle)
        if file is None:
            return self.close_stateless(handle)
        self.files.flush(file, tid)
        return b""

    def closed(self, file: OpenFile) -> None:
        self._tree.closed(file.nodeid)

    def poll_stateless(self, handle: int) -> bytes | int:
        return fuse_poll_out.pack(POLL_EVENTS, 0) if handle == CONTROL_HANDLE else EBADF

    def close_stateless(self, handle: int) -> bytes | int:
        return b"" if handle == CONTROL_HANDLE else EBADF

    # Answers

    def answer(self, ticket: int, result: int, payload: bytes) -> None:
        if len(payload) == USUAL_ARGUMENT_SIZE and not self._room:
            self.outgoing.append(_pack_ioctl(_REPLY_SIZE, 0, ticket, result, 0, 0, 0, payload))
        else:
            # More than the client asked for would make the kernel fail the whole reply.
            room = self._room.pop(ticket, USUAL_ARGUMENT_SIZE)
            self.outgoing.append(ioctl_result(ticket, result, payload[:room]))

    def answer_write_read(
        self,
        ticket: int,
        result: int,
        write_size: int,
        write_consumed: int,
        write_buffer: int,
        read_size: int,
        read_consumed: int,
        read_buffer: int,
    ) -> None:
        if self._room:
            super().answer_write_read(
                ticket,
                result,
                write_size,
                write_consumed,
                write_buffer,
                read_size,
                read_consumed,
                read_buffer,
            )
            return
        frame = _pack_write_read(
            _REPLY_SIZE,
            0,
            ticket,
            result,
            0,
            0,
            0,
            write_size,
            write_consumed,
            write_buffer,
            read_size,
            read_consumed,
            read_buffer,
        )
        self.outgoing.append(frame)
