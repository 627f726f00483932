# SPDX-License-Identifier: Apache-2.0
"""The tree inside of the devices' own file system, where no other can be mounted in that.

An ordinary user cannot show a second file system in two places. So its requests are answered by the
session that serves the devices, which hands over what concerns these inodes. What a file says is
settled when it is opened, in one go: only that very user's requests could wait meanwhile.

Inode numbers are those of the tree, above all that the devices ever have; the two directories have
the numbers that the devices' file system gives them. Nothing here may know what else is served.
"""

from __future__ import annotations

import os
from errno import EBADF, EISDIR, ENFILE, ENOENT, ENOMEM, ENOTDIR, EROFS
from typing import TYPE_CHECKING, Final

from binderd.engine.limits import LOG_BYTES, LOGS
from binderd.fuse.frames import BODY
from binderd.fuse.tree import PLACES
from binderd.introspect.tree import FEATURES
from binderd.introspect.tree import LOGS as LOGS_INODE
from binderwire import fuse_abi as abi

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.engine.ports import Charged
    from binderd.fuse.server import Handler
    from binderd.introspect.tree import Entry, LogTree

FIRST: Final = 1 << 62  # inodes and handles from here on are ours
# What the devices' file system calls the two directories, and the tree.
_PLACES: Final = {PLACES[b"features"]: FEATURES, PLACES[b"binder_logs"]: LOGS_INODE}
_FOREVER: Final = 1 << 24  # seconds
_S_IFDIR: Final = 0o040000
_S_IFREG: Final = 0o100000
_DT: Final = {True: 4, False: 8}  # a directory; a file
_FEATURE: Final = 0o444  # permission bits
_OWNER_MAY_WRITE: Final = 0o200
_READ: Final = 0o444
_READ_TO_SEARCH: Final = 2  # bits to the right
_BLOCK_SIZE: Final = 4096  # bytes
_ALWAYS_READY: Final = 0x145  # POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM: as of any file

_Answer = bytes | int | None


class Inside:
    """The requests.

    Args:
        tree: what there is.
        seconds: the time that all files show, in seconds since the epoch.
        payer: returns the user that is charged, for a request's thread and user.
        access: permission bits, user and group of logs.
        owner: user and group of the rest.
    """

    def __init__(
        self,
        tree: LogTree,
        seconds: int,
        payer: Callable[[int, int], int],
        access: tuple[int, int, int],
        owner: tuple[int, int],
    ) -> None:
        self._tree = tree
        self._times = (seconds, seconds, seconds, 0, 0, 0)
        self._payer = payer
        self._access = access
        self._owner = owner
        self._contents: dict[int, tuple[bytes, list[Charged]]] = {}  # of open files, by handle
        self._last_handle = FIRST

    def covers(self, nodeid: int) -> bool:
        """Whether an inode is ours, and not only one of the two directories."""
        return nodeid >= FIRST

    def lists(self, nodeid: int) -> bool:
        """Whether what is in a directory is ours."""
        return nodeid >= FIRST or nodeid in _PLACES

    def listing(self) -> dict[int, Handler]:
        """Return the handlers of requests in what ``lists``, by opcode."""
        return {
            abi.FUSE_LOOKUP: self._lookup,
            abi.FUSE_OPENDIR: self._opendir,
            abi.FUSE_READDIR: self._readdir,
            abi.FUSE_UNLINK: _refuse,
            abi.FUSE_RENAME: _refuse,
            abi.FUSE_RENAME2: _refuse,
        }

    def handlers(self) -> dict[int, Handler]:
        """Return the handlers of requests on what ``covers``, by opcode."""
        return {
            abi.FUSE_GETATTR: self._getattr,
            abi.FUSE_SETATTR: _refuse,
            abi.FUSE_OPEN: self._open,
            abi.FUSE_READ: self._read,
            abi.FUSE_POLL: self._poll,
            abi.FUSE_FLUSH: _nothing,
            abi.FUSE_RELEASE: self._release,
        }

    # Directories

    def _lookup(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> _Answer:
        end = frame.find(0, BODY, size)
        entry = self._tree.find(self._inode(nodeid), os.fsdecode(bytes(frame[BODY : max(end, 0)])))
        if entry is None:
            return ENOENT
        number = FIRST | entry.inode
        lasts = _FOREVER if self._tree.is_lasting(entry.inode) else 0
        return abi.fuse_entry_out.pack(number, 0, lasts, lasts, 0, 0, *self._attributes(number))

    def _opendir(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> _Answer:
        if not self._tree.is_directory(self._inode(nodeid)):
            return ENOTDIR
        return abi.fuse_open_out.pack(0, 0, 0)

    def _readdir(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> _Answer:
        """List by inode number, so that names may come and go in between."""
        _, offset, room, *_ = abi.fuse_read_in.unpack_from(frame, BODY)
        found: list[Entry] = self._tree.entries(self._inode(nodeid)) or []
        body = b""
        for entry in sorted(found, key=lambda entry: entry.inode):
            if entry.inode <= offset:
                continue
            name = os.fsencode(entry.name)
            kind = _DT[entry.is_directory]
            head = abi.fuse_dirent.pack(FIRST | entry.inode, entry.inode, len(name), kind)
            if len(body) + len(head) + len(name) + 8 > room:
                break
            body += head + name + b"\0" * (-len(name) % 8)
        return body

    # Files

    def _getattr(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> _Answer:
        return abi.fuse_attr_out.pack(0, 0, 0, *self._attributes(nodeid))

    def _open(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> _Answer:
        """Settle what the file says, and charge it to the reader."""
        inode, accounts = self._inode(nodeid), self._tree.engine
        if self._tree.is_directory(inode):
            return EISDIR
        payer = self._payer(tid, uid)
        payment = accounts.charge(payer, LOGS)
        if payment is None:
            return ENFILE
        pieces = self._tree.read(inode, uid)
        content = None if pieces is None else os.fsencode("".join(pieces))
        charged = None if content is None else accounts.charge(payer, LOG_BYTES, len(content))
        if content is None or charged is None:
            payment.end()
            return ENOENT if content is None else ENOMEM
        self._last_handle += 1
        self._contents[self._last_handle] = content, [payment, charged]
        return abi.fuse_open_out.pack(self._last_handle, abi.FOPEN_DIRECT_IO, 0)

    def _read(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> _Answer:
        handle, offset, wanted, *_ = abi.fuse_read_in.unpack_from(frame, BODY)
        found = self._contents.get(handle)
        return EBADF if found is None else found[0][offset : offset + wanted]

    def _poll(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> _Answer:
        return abi.fuse_poll_out.pack(_ALWAYS_READY, 0)

    def _release(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> _Answer:
        found = self._contents.pop(abi.fuse_release_in.unpack_from(frame, BODY)[0], None)
        if found is not None:
            for payment in found[1]:
                payment.end()
        return b""

    # Helpers

    def _inode(self, nodeid: int) -> int:
        """Return the tree's own number of an inode."""
        return _PLACES.get(nodeid, nodeid & ~FIRST)

    def _attributes(self, nodeid: int) -> tuple[int, ...]:
        """Return the fields of ``struct fuse_attr``."""
        inode = self._inode(nodeid)
        mode, *who = self._access if self._tree.is_log(inode) else (_FEATURE, *self._owner)
        links, kind = 1, _S_IFREG
        if self._tree.is_directory(inode):
            mode |= _OWNER_MAY_WRITE | (mode & _READ) >> _READ_TO_SEARCH
            links, kind = 2, _S_IFDIR
        return (nodeid, 0, 0, *self._times, kind | mode, links, *who, 0, _BLOCK_SIZE, 0)


def _refuse(unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int) -> _Answer:
    """Changes in there are refused."""
    return EROFS


def _nothing(unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int) -> _Answer:
    """There is nothing to do."""
    return b""
