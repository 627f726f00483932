# SPDX-License-Identifier: Apache-2.0
"""The file system that clients see: the devices, binder-control, two directories.

A LOOKUP of a device by a thread that has begun to open it gives out a *new* inode number, any other
the common one of the device (``pages.py``). All opens of one inode share one backing file, if it
has one, so this is what lets each share pages of its own with us. It works because an entry is
never valid for longer than the lookup that made it: the kernel asks again before each open, is told
another number, and drops the old entry. Everything else has a number for good.

The two directories are empty here: they are where another file system is shown, or others answer
what is asked of them. They must keep their numbers, or the kernel would take away what is mounted
on them.

The kernel checks permissions, by the modes and owners that it is told (``default_permissions``).

A handler returns the body of the reply (bytes), an errno (int) or None where no reply is due.
Nothing here may know what an ioctl is.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, EISDIR, ENOENT, ENOMEM, ENOTDIR, EPERM, EXDEV
from typing import TYPE_CHECKING, Final, Protocol

from binderd.fuse.directory import (
    CONTROL_MODE,
    CONTROL_NAME,
    PLACE_NAMES,
    Attributes,
    Device,
)
from binderd.fuse.frames import BODY
from binderwire.fuse_abi import (
    FATTR_ATIME,
    FATTR_GID,
    FATTR_MODE,
    FATTR_MTIME,
    FATTR_SIZE,
    FATTR_UID,
    FUSE_READ_LOCKOWNER,
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
    fuse_rename2_in,
    fuse_rename_in,
    fuse_setattr_in,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.fuse.directory import Directory
    from binderd.fuse.pages import Choice

CONTROL_ID: Final = FUSE_ROOT_ID + 1
PLACES: Final = {name: CONTROL_ID + 1 + index for index, name in enumerate(PLACE_NAMES)}
_FIRST_NUMBER: Final = CONTROL_ID + 1 + len(PLACES)

# A regular file must look as large as what is mapped of it: some clients check st_size first.
DEVICE_SIZE: Final = 4 << 20  # bytes; the driver's own cap on a mapping

_S_IFDIR: Final = 0o040000
_S_IFREG: Final = 0o100000
_PERMISSIONS: Final = 0o7777
_DT_DIR: Final = 4
_DT_REG: Final = 8
_DIRECTORY_MODE: Final = _S_IFDIR | 0o755
_BLOCK_SIZE: Final = 4096  # bytes
_NAME_SIZE_MAX: Final = 255  # bytes, BINDERFS_MAX_NAME
# How long the kernel may believe what never changes behind its back.
_FOREVER: Final = 1 << 24  # seconds
# Every path leads through the root, so it must not be asked for each time; but a stat of it should
# soon say that nobody serves it any more. And an open looks at the attributes that the lookup
# before it has brought.
_A_WHILE: Final = 1  # seconds

_unpack_forget_one: Final = fuse_forget_one.unpack_from


class Charge(Protocol):
    """What somebody is charged for something that is kept."""

    def end(self) -> None:
        """It is gone."""


class Node:
    """One inode of a device that the kernel was told of."""

    __slots__ = ("asked", "charge", "device", "lookups", "opens", "pages", "seeker")

    def __init__(self, device: Device, charge: Charge | None, seeker: int) -> None:
        self.device = device
        self.charge = charge
        self.asked = 0  # when was it brought last, if it is a common one?
        self.lookups = 1  # how many LOOKUP replies has the kernel not taken back yet?
        self.opens = 0  # how many open files has it?
        self.pages = 0  # whose are those of its open files (``pages.py``)? 0: it has none
        self.seeker = seeker  # the thread that is to open it, until it does; 0: whoever comes


class Tree:
    """The root directory and the inodes in it.

    Args:
        directory: the devices.
        choice: knows who gets which inode.
        seconds: the time that all files show, in seconds since the epoch.
        charge: called with user and thread of a LOOKUP of a device; returns None if there is no
            room for one more inode of theirs. None: nobody is charged.
    """

    __slots__ = (
        "_charge",
        "_common",
        "_control",
        "_directory",
        "_next_number",
        "_nodes",
        "_seconds",
        "choice",
        "shows_zeros",
    )

    def __init__(
        self,
        directory: Directory,
        choice: Choice,
        seconds: int = 0,
        charge: Callable[[int, int], Charge | None] | None = None,
    ) -> None:
        self._directory = directory
        self._charge = charge
        self._control = Attributes(CONTROL_MODE)
        self._control.uid, self._control.gid = directory.owner
        self._seconds = seconds
        self.choice = choice
        self._nodes: dict[int, Node] = {}
        self._common: dict[Device, int] = {}  # its common inode
        self._next_number = _FIRST_NUMBER
        self.shows_zeros = False  # are we what the kernel maps? Otherwise nobody needs to read

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, nodeid: int) -> Node | None:
        """Return the device inode of that number, None if it is unknown or no device's."""
        return self._nodes.get(nodeid)

    def opened(self, nodeid: int, pages: int) -> None:
        """The inode has another open file.

        Args:
            pages: SHARED or PRIVATE.
        """
        node = self._nodes[nodeid]
        node.opens += 1
        node.pages = pages
        node.seeker = 0
        self._directory.opened(node.device)

    def closed(self, nodeid: int) -> None:
        """An open file of the inode is gone."""
        node = self._nodes.get(nodeid)
        if node is not None and node.opens:
            node.opens -= 1
            if not node.opens:
                node.pages = 0
            self._directory.closed(node.device)
            self._forget(nodeid, 0)

    # Requests

    def lookup(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_LOOKUP: a new inode for who begins anew to open a device, else the usual one."""
        if nodeid != FUSE_ROOT_ID:
            return ENOENT if nodeid in PLACES.values() else ENOTDIR
        name = _name_at(frame, BODY, size)
        number = CONTROL_ID if name == CONTROL_NAME else PLACES.get(name, 0)
        if number:
            attributes = self._attributes(number)
            return fuse_entry_out.pack(number, 0, _FOREVER, _FOREVER, 0, 0, *attributes)
        device = self._directory.find(name)
        if device is None:
            return ENOENT
        is_own = self.choice.begins_anew(tid)
        number = 0 if is_own else self._common.get(device, 0)
        if number and self.choice.stays(self._nodes[number]):
            self._nodes[number].lookups += 1
        else:
            number = self._add(device, uid, tid, is_own=is_own)
            if not number:
                return ENOMEM
        return fuse_entry_out.pack(number, 0, 0, _A_WHILE, 0, 0, *self._attributes(number))

    def read(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_READ: zeros for the page cache, where the kernel maps nothing of ours; else EINVAL.

        What read(2) asks for comes with an owner of locks, what a page fault asks for does not.
        Differs: nor does what sendfile or splice ask for, which see zeros there.
        """
        _, offset, wanted, flags, *_ = fuse_read_in.unpack_from(frame, BODY)
        end = offset + wanted
        is_for_cache = self.shows_zeros and not flags & FUSE_READ_LOCKOWNER
        if not is_for_cache or nodeid not in self._nodes or end > DEVICE_SIZE:
            return EINVAL
        return bytes(wanted)

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
        is_device = nodeid in self._nodes
        if not (is_device or nodeid == CONTROL_ID or _is_directory(nodeid)):
            return ENOENT
        valid = 0 if is_device else _FOREVER  # a device may be changed through another inode
        if nodeid == FUSE_ROOT_ID:
            valid = _A_WHILE
        return fuse_attr_out.pack(valid, 0, 0, *self._attributes(nodeid))

    def setattr(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_SETATTR: chmod, chown, utimes; truncating is refused, as for a device.

        Differs: the directories stay as they are (EPERM; touching them has no effect).
        """
        fields = fuse_setattr_in.read(frame, BODY)
        if fields.valid & FATTR_SIZE:
            return EINVAL
        node = self._nodes.get(nodeid)
        if node is not None or nodeid == CONTROL_ID:
            attributes = self._control if node is None else node.device
            if fields.valid & FATTR_ATIME:
                attributes.accessed = (fields.atime, fields.atimensec)
            if fields.valid & FATTR_MTIME:
                attributes.modified = (fields.mtime, fields.mtimensec)
            if fields.valid & FATTR_MODE:
                attributes.mode = fields.mode & _PERMISSIONS
            if fields.valid & FATTR_UID:
                attributes.uid = fields.uid
            if fields.valid & FATTR_GID:
                attributes.gid = fields.gid
        elif fields.valid & (FATTR_MODE | FATTR_UID | FATTR_GID):
            return EPERM
        return self.getattr(unique, nodeid, uid, tid, frame, size)

    def access(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_ACCESS: not asked by a kernel that checks by itself."""
        return b""

    def unlink(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_UNLINK: a device's name goes, its open files work on (binderfs_unlink)."""
        name = _name_at(frame, BODY, size)
        if nodeid != FUSE_ROOT_ID:
            return ENOENT
        if name == CONTROL_NAME:
            return EPERM
        if name in PLACES:
            return EISDIR
        return self._directory.remove(name) or b""

    def rename(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_RENAME (binderfs_rename)."""
        (target,) = fuse_rename_in.unpack_from(frame, BODY)
        return self._rename(nodeid, target, 0, frame, BODY + fuse_rename_in.size, size)

    def rename2(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_RENAME2: the same with the flags of renameat2."""
        target, flags, _ = fuse_rename2_in.unpack_from(frame, BODY)
        return self._rename(nodeid, target, flags, frame, BODY + fuse_rename2_in.size, size)

    def opendir(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_OPENDIR: a directory has no state, so its handle is 0."""
        return fuse_open_out.pack(0, 0, 0) if _is_directory(nodeid) else ENOTDIR

    def readdir(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_READDIR: as many entries as fit; an entry's ``off`` is its position.

        Positions of devices never change, so that nothing is lost or told twice where names come
        and go between two requests.
        """
        if not _is_directory(nodeid):
            return ENOTDIR
        _, offset, room, *_ = fuse_read_in.unpack_from(frame, BODY)
        body = b""
        for position, number, kind, name in self._listing(nodeid, offset):
            padding = b"\0" * (-len(name) % 8)
            entry = fuse_dirent.pack(number, position, len(name), kind) + name + padding
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
            files=len(self._directory) + len(_FIXED_LISTING),
            bsize=_BLOCK_SIZE,
            frsize=_BLOCK_SIZE,
            namelen=_NAME_SIZE_MAX,
        )

    # Helpers

    def _add(self, device: Device, uid: int, tid: int, *, is_own: bool) -> int:
        """Make an inode; return its number, 0 if there is no room for it.

        Args:
            uid: the user that looks the device up.
            tid: the thread.
            is_own: is it for that thread alone, or for all look-ups?
        """
        charge: Charge | None = None
        if self._charge is not None:
            charge = self._charge(uid, tid)
            if charge is None:
                return 0
        number = self._next_number
        self._next_number += 1
        node = self._nodes[number] = Node(device, charge, tid if is_own else 0)
        if not is_own:
            node.asked = self.choice.clock()
            self._common[device] = number
        return number

    def _forget(self, nodeid: int, lookups: int) -> None:
        node = self._nodes.get(nodeid)
        if node is None:
            return
        node.lookups -= lookups
        if node.lookups <= 0 and not node.opens:
            del self._nodes[nodeid]
            if self._common.get(node.device) == nodeid:
                del self._common[node.device]
            if node.charge is not None:
                node.charge.end()

    def _rename(
        self, source: int, target: int, flags: int, frame: bytearray, start: int, size: int
    ) -> bytes | int:
        old = _name_at(frame, start, size)
        new = _name_at(frame, start + len(old) + 1, size)
        if source != FUSE_ROOT_ID or target != FUSE_ROOT_ID:
            return EXDEV
        if CONTROL_NAME in {old, new}:
            return EPERM
        if old in PLACES or new in PLACES:
            return EBUSY  # Differs: they are where something is mounted
        return self._directory.rename(old, new, flags) or b""

    def _listing(self, nodeid: int, position: int) -> list[tuple[int, int, int, bytes]]:
        """Return (position, inode number, type, name) of what is behind ``position``."""
        if nodeid != FUSE_ROOT_ID:
            dots = [(1, nodeid, _DT_DIR, b"."), (2, FUSE_ROOT_ID, _DT_DIR, b"..")]
            return dots[position:]
        fixed = len(_FIXED_LISTING)
        listing = _FIXED_LISTING[position:]
        for device in self._directory.listed_after(max(position - fixed, 0)):
            number = _LISTED_DEVICE | device.minor
            listing.append((device.position + fixed, number, _DT_REG, device.name))
        return listing

    def _attributes(self, nodeid: int) -> tuple[int, ...]:
        """Return the fields of ``struct fuse_attr``."""
        if _is_directory(nodeid):
            times = (self._seconds, self._seconds, self._seconds, 0, 0, 0)
            links = 2 + len(PLACES) if nodeid == FUSE_ROOT_ID else 2
            who = self._directory.owner
            return (nodeid, 0, 0, *times, _DIRECTORY_MODE, links, *who, 0, _BLOCK_SIZE, 0)
        node = self._nodes.get(nodeid)
        if node is None:
            shown, file_size, links = self._control, 0, 1
        else:
            shown, file_size, links = node.device, DEVICE_SIZE, int(node.device.is_listed)
        accessed, modified = shown.accessed, shown.modified
        at, at_ns = (self._seconds, 0) if accessed is None else accessed
        mt, mt_ns = (self._seconds, 0) if modified is None else modified
        times = (at, mt, self._seconds, at_ns, mt_ns, 0)
        owner = (shown.uid, shown.gid)
        mode = _S_IFREG | shown.mode
        return (nodeid, file_size, 0, *times, mode, links, *owner, 0, _BLOCK_SIZE, 0)


# Inode numbers in listings: a device has none before it is looked up, but must not show 0.
_LISTED_DEVICE: Final = 1 << 48

_FIXED_LISTING: Final = [
    (1, FUSE_ROOT_ID, _DT_DIR, b"."),
    (2, FUSE_ROOT_ID, _DT_DIR, b".."),
    (3, CONTROL_ID, _DT_REG, CONTROL_NAME),
    *((4 + index, PLACES[name], _DT_DIR, name) for index, name in enumerate(PLACE_NAMES)),
]


def _is_directory(nodeid: int) -> bool:
    return nodeid == FUSE_ROOT_ID or CONTROL_ID < nodeid < _FIRST_NUMBER


def _name_at(frame: bytearray, start: int, size: int) -> bytes:
    """Return the name that starts there and ends with a NUL; without one, an empty name."""
    end = frame.find(0, start, size)
    return bytes(frame[start:end]) if end >= 0 else b""
