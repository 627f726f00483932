# SPDX-License-Identifier: Apache-2.0
"""The file system that clients see: one directory with the device names in it.

Every LOOKUP of a device gives out a *new* inode number. All opens of one inode must share one
backing file, so this is what gives every open file pages of its own. It works because an entry
is never valid for longer than the lookup that made it: the kernel asks again before each open,
is told another number, and drops the old entry.

A handler returns the body of the reply (bytes), an errno (int) or None where no reply is due.
Nothing here may know what an ioctl is.
"""

from __future__ import annotations

from errno import ENOENT, ENOTDIR, EPERM
from typing import TYPE_CHECKING, Final

from binderd.fuse.frames import BODY
from binderwire.fuse_abi import (
    FATTR_GID,
    FATTR_MODE,
    FATTR_UID,
    FUSE_ROOT_ID,
    fuse_attr_out,
    fuse_batch_forget_in,
    fuse_dirent,
    fuse_entry_out,
    fuse_forget_in,
    fuse_forget_one,
    fuse_kstatfs,
    fuse_open_out,
    fuse_read_in,
    fuse_setattr_in,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# A regular file must look as large as what is mapped of it: some clients check st_size first.
DEVICE_SIZE: Final = 4 << 20  # bytes; the driver's own cap on a mapping

_S_IFDIR: Final = 0o040000
_S_IFREG: Final = 0o100000
_DT_DIR: Final = 4
_DT_REG: Final = 8
# Differs: binderfs creates its nodes 0600 and leaves it to user space to open them up. Here
# chmod is refused, because an inode lives no longer than one open, so the mode is what Android
# sets: 0666.
_DEVICE_MODE: Final = _S_IFREG | 0o666
_ROOT_MODE: Final = _S_IFDIR | 0o755
_BLOCK_SIZE: Final = 4096  # bytes
_NAME_SIZE_MAX: Final = 255  # bytes, BINDERFS_MAX_NAME

_unpack_forget_one = fuse_forget_one.unpack_from


class Node:
    """One inode that the kernel was told of."""

    __slots__ = ("is_open", "lookups", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.lookups = 1  # how many LOOKUP replies has the kernel not taken back yet?
        self.is_open = False  # is there an open file that owns this inode's pages?


class Tree:
    """The root directory and the inodes of the devices in it.

    Args:
        names: the devices, in the order in which the directory lists them.
        seconds: the time that all files show, in seconds since the epoch.
    """

    __slots__ = ("_indices", "_listing", "_next_number", "_nodes", "_seconds")

    def __init__(self, names: Sequence[str], seconds: int = 0) -> None:
        self._indices = {name.encode(): name for name in names}
        self._seconds = seconds
        self._nodes: dict[int, Node] = {}
        self._listing = [(FUSE_ROOT_ID, _DT_DIR, b"."), (FUSE_ROOT_ID, _DT_DIR, b"..")]
        self._next_number = FUSE_ROOT_ID + 1
        for name in self._indices:
            self._listing.append((self._next_number, _DT_REG, name))
            self._next_number += 1

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, nodeid: int) -> Node | None:
        """Return the device inode of that number, None if it is unknown or the directory."""
        return self._nodes.get(nodeid)

    def closed(self, nodeid: int) -> None:
        """The open file that owned the inode's pages is gone."""
        node = self._nodes.get(nodeid)
        if node is not None:
            node.is_open = False
            self._forget(nodeid, 0)

    # Requests

    def lookup(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_LOOKUP: a new inode for a device name."""
        if nodeid != FUSE_ROOT_ID:
            return ENOTDIR
        name = self._indices.get(bytes(frame[BODY : frame.find(0, BODY, size)]))
        if name is None:
            return ENOENT
        number = self._next_number
        self._next_number += 1
        self._nodes[number] = Node(name)
        return fuse_entry_out.pack(number, 0, 0, 0, 0, 0, *self._attributes(number))

    def forget(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_FORGET: the kernel takes back lookups of one inode."""
        (lookups,) = fuse_forget_in.unpack_from(frame, BODY)
        self._forget(nodeid, lookups)
        return None

    def batch_forget(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_BATCH_FORGET: the same for several inodes; entries that were cut off are ignored."""
        count, _ = fuse_batch_forget_in.unpack_from(frame, BODY)
        first = BODY + fuse_batch_forget_in.size
        count = min(count, (size - first) // fuse_forget_one.size)
        for offset in range(first, first + count * fuse_forget_one.size, fuse_forget_one.size):
            self._forget(*_unpack_forget_one(frame, offset))
        return None

    def getattr(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_GETATTR."""
        if nodeid != FUSE_ROOT_ID and nodeid not in self._nodes:
            return ENOENT
        return fuse_attr_out.pack(0, 0, 0, *self._attributes(nodeid))

    def setattr(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_SETATTR: truncating and touching are accepted without effect, as on a device."""
        valid = fuse_setattr_in.unpack_from(frame, BODY)[0]
        if valid & (FATTR_MODE | FATTR_UID | FATTR_GID):
            return EPERM
        return self.getattr(unique, nodeid, uid, tid, frame, size)

    def access(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_ACCESS: everybody may; who can do what is decided by the engine."""
        return b""

    def opendir(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_OPENDIR: the directory has no state, so its handle is 0."""
        return fuse_open_out.pack(0, 0, 0) if nodeid == FUSE_ROOT_ID else ENOTDIR

    def readdir(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_READDIR: as many entries as fit; an entry's ``off`` is the index of the next one."""
        if nodeid != FUSE_ROOT_ID:
            return ENOTDIR
        _, offset, room, *_ = fuse_read_in.unpack_from(frame, BODY)
        body = b""
        for index, (number, kind, name) in enumerate(self._listing[offset:], offset + 1):
            padding = b"\0" * (-len(name) % 8)
            entry = fuse_dirent.pack(number, index, len(name), kind) + name + padding
            if len(body) + len(entry) > room:
                break
            body += entry
        return body

    def releasedir(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_RELEASEDIR."""
        return b""

    def statfs(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_STATFS: a file system without blocks."""
        return fuse_kstatfs.build(
            files=len(self._listing), bsize=_BLOCK_SIZE, frsize=_BLOCK_SIZE, namelen=_NAME_SIZE_MAX
        )

    # Helpers

    def _forget(self, nodeid: int, lookups: int) -> None:
        node = self._nodes.get(nodeid)
        if node is None:
            return
        node.lookups -= lookups
        if node.lookups <= 0 and not node.is_open:
            del self._nodes[nodeid]

    def _attributes(self, nodeid: int) -> tuple[int, ...]:
        """Return the fields of ``struct fuse_attr``."""
        now = self._seconds
        if nodeid == FUSE_ROOT_ID:
            return (nodeid, 0, 0, now, now, now, 0, 0, 0, _ROOT_MODE, 2, 0, 0, 0, _BLOCK_SIZE, 0)
        times = (now, now, now, 0, 0, 0)
        return (nodeid, DEVICE_SIZE, 0, *times, _DEVICE_MODE, 1, 0, 0, 0, _BLOCK_SIZE, 0)
