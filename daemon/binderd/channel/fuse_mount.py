# SPDX-License-Identifier: Apache-2.0
"""Our place in the file system: claiming a directory, mounting on it, leaving it as it was.

Theory of operation. Whoever serves a directory holds a lock (flock) on the directory *below*
the mount. The lock goes with the process however that ends, so it alone says whether a mount
found there is served or stale, without asking a file system that may never answer. A mount
hides the directory below it; ``open_below_mounts`` reaches it nevertheless. The order

    lock the directory below -> remove what a dead daemon left -> look -> mount

leaves no moment in which two daemons could both believe the place is theirs.

Nothing here may know what is served.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from errno import EBUSY, EEXIST, ENODEV, ENOENT, ENOTDIR, EPERM
from pathlib import Path
from typing import Final, NamedTuple

from binderd.channel import syscalls
from binderwire.fuse_abi import (
    FUSE_DEV_IOC_BACKING_CLOSE,
    FUSE_DEV_IOC_BACKING_OPEN,
    fuse_backing_map,
)

FUSE_DEVICE: Final = "/dev/fuse"
SOURCE: Final = "binderd"
FSTYPE: Final = "fuse.binderd"  # the part behind the dot is ours: it shows in mountinfo
_FLAGS: Final = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_ROOT_MODE: Final = "40755"  # octal, as the kernel wants it
_BACKING_ID_SIZE: Final = 4  # bytes


class MountError(Exception):
    """The directory cannot be served; the text says why and what to do."""


class MountEntry(NamedTuple):
    """One line of /proc/self/mountinfo."""

    mount_id: int
    device: tuple[int, int]  # major and minor number
    path: str
    fstype: str


def read_mounts() -> list[MountEntry]:
    """Return all mounts of our mount namespace; of those on one path the last one is on top."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return [_parse_mount(line) for line in lines]


def mount_at(path: str) -> MountEntry | None:
    """Return what is mounted on top at ``path`` (absolute, without symbolic links), if anything."""
    found = [entry for entry in read_mounts() if entry.path == path]
    return found[-1] if found else None


class FuseMount:
    """A mounted FUSE file system and the channel that serves it.

    Use ``FuseMount.at``.
    """

    __slots__ = ("_claim", "_entry", "device", "fd", "path")

    def __init__(self, claim: _Claim, fd: int, entry: MountEntry) -> None:
        self.path = claim.path
        self.fd = fd  # /dev/fuse; whoever serves it closes it
        self.device = entry.device  # (major, minor) as /proc/PID/maps shows it
        self._claim = claim
        self._entry = entry

    @classmethod
    def at(cls, directory: str) -> FuseMount:
        """Mount on ``directory``, which is made if it is missing.

        Nobody can use the file system until the FUSE_INIT request, which waits in the channel now,
        is answered.

        Raises:
            MountError: it is served by another daemon, holds files, is another mount, or the system
                does not let us; nothing has changed.
        """
        fd = open_device()
        try:
            claim = _Claim.of(directory)
        except BaseException:
            os.close(fd)
            raise
        try:
            _look(claim.path)
            entry = _mount(claim.path, mount_options(fd))
        except BaseException:
            claim.give_up()
            os.close(fd)
            raise
        return cls(claim, fd, entry)

    def register(self, fd: int) -> int:
        """Make ``fd`` known to the kernel as a backing file; return its backing id (positive).

        Raises:
            OSError: the kernel has no passthrough, or no memory.
        """
        argument = bytearray(fuse_backing_map.build(fd=fd))
        backing_id: int = fcntl.ioctl(self.fd, FUSE_DEV_IOC_BACKING_OPEN, argument)
        return backing_id

    def unregister(self, backing_id: int) -> None:
        """Take a backing id back; open files that use it keep their pages."""
        with suppress(OSError):  # the connection is gone, and the id with it
            argument = bytearray(backing_id.to_bytes(_BACKING_ID_SIZE, "little"))
            fcntl.ioctl(self.fd, FUSE_DEV_IOC_BACKING_CLOSE, argument)

    def unmount(self) -> bool:
        """Take the file system out of the tree, also while it is in use; may be called again.

        The channel works on; open files do so until it is closed, then they fail with ENOTCONN.

        Returns:
            False if something else is mounted on top, so that ours cannot be reached and stays.
        """
        # No descriptor keeps hold of our mount, because then a plain umount by the administrator
        # would fail with EBUSY. So we look whether what is on top is still ours.
        ours = self._entry.mount_id
        is_hidden = False
        top = mount_at(self.path)
        if top is not None and top.mount_id == ours:
            syscalls.unmount(self.path, syscalls.MNT_DETACH)
        else:
            is_hidden = any(entry.mount_id == ours for entry in read_mounts())
        self._claim.give_up()
        return not is_hidden


def mount_options(fd: int) -> str:
    """Return the options of a file system that ``fd`` serves, for everybody.

    The kernel checks permissions by itself, with the modes and owners that we show.
    """
    owner = "user_id=0,group_id=0"  # of the mount
    return f"fd={fd},rootmode={_ROOT_MODE},{owner},allow_other,default_permissions"


def open_device() -> int:
    """Open /dev/fuse: a new, unmounted connection.

    Raises:
        MountError: there is none, or we may not.
    """
    try:
        return os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {ENOENT, ENODEV}:
            advice = "load the module with 'modprobe fuse'; a container needs --device /dev/fuse"
            raise MountError(f"there is no {FUSE_DEVICE}: {advice}") from None
        advice = "start as root; a container needs --device /dev/fuse"
        raise MountError(f"cannot open {FUSE_DEVICE} ({error.strerror}): {advice}") from None


class _Claim:
    """The directory below the mount, locked as long as this process lives or until given up."""

    __slots__ = ("_fd", "_is_made", "_parent", "path")

    def __init__(self, path: str, parent: int, fd: int, *, is_made: bool) -> None:
        self.path = path
        self._parent = parent  # the directory that holds it, below all mounts
        self._fd = fd
        self._is_made = is_made  # did we make the directory?

    @classmethod
    def of(cls, directory: str) -> _Claim:
        """Lock ``directory`` for us, and remove the mount of a dead daemon from it.

        Raises:
            MountError: another daemon has it, or it cannot be made.
        """
        parent_path = os.path.realpath(Path(directory).parent)
        name = Path(directory).name
        path = str(Path(parent_path, name))
        if not name or name == "..":
            raise MountError(f"cannot mount on {directory}: name a directory of its own")
        try:
            parent = syscalls.open_below_mounts(parent_path)
        except OSError as error:
            raise MountError(_explain(error, f"cannot reach {parent_path}")) from None
        try:
            fd, is_made = _lock_directory(parent, name, path)
        except BaseException:
            os.close(parent)
            raise
        claim = cls(path, parent, fd, is_made=is_made)
        try:
            _remove_stale(path)
        except BaseException:
            claim.give_up()
            raise
        return claim

    def give_up(self) -> None:
        """Leave the directory as it was found, and unlock it; a second call does nothing."""
        if self._fd < 0:
            return
        if self._is_made:
            with suppress(OSError):  # somebody has put something into it: it stays
                os.rmdir(Path(self.path).name, dir_fd=self._parent)
        for fd in (self._fd, self._parent):
            os.close(fd)
        self._fd = self._parent = -1


def _lock_directory(parent: int, name: str, path: str) -> tuple[int, bool]:
    """Return a locked descriptor of the directory ``name``, and whether we had to make it."""
    while True:
        is_made = _make(parent, name, path)
        fd = _open(parent, name, path)
        if fd < 0:
            continue  # whoever had made it removed it just now
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise MountError(
                f"another binderd serves {path}: stop it, or name another directory with --mount"
            ) from None
        if os.fstat(fd).st_nlink:
            return fd, is_made
        os.close(fd)  # the same, between our open and our lock


def _make(parent: int, name: str, path: str) -> bool:
    try:
        # The copy of the mount shares its files with the real one, so this makes the real
        # directory.
        os.mkdir(name, 0o755, dir_fd=parent)
    except OSError as error:
        if error.errno != EEXIST:
            raise MountError(_explain(error, f"cannot make {path}")) from None
        return False
    return True


def _open(parent: int, name: str, path: str) -> int:
    """Return a descriptor of the directory ``name``, -1 if there is none."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno == ENOENT:
            return -1
        if error.errno == ENOTDIR:
            raise MountError(f"cannot mount on {path}: it is not a directory") from None
        raise MountError(_explain(error, f"cannot open {path}")) from None


def _remove_stale(path: str) -> None:
    """Unmount what dead daemons have left; nobody serves it, because the lock is ours."""
    while (entry := mount_at(path)) is not None and entry.fstype == FSTYPE:
        syscalls.unmount(path, syscalls.MNT_DETACH)


def _look(path: str) -> None:
    """Refuse a place where mounting would hide something."""
    entry = mount_at(path)
    if entry is not None:
        raise MountError(
            f"{path} is a mount point already ({entry.fstype}): unmount it, "
            "or name another directory with --mount"
        )
    if os.listdir(path):
        raise MountError(
            f"{path} is not empty, and a mount would hide what is in it: "
            "name another directory with --mount"
        )


def _mount(path: str, options: str) -> MountEntry:
    """Mount our file system; return its line in mountinfo."""
    try:
        syscalls.mount(SOURCE, path, FSTYPE, _FLAGS, options)
    except OSError as error:
        if error.errno == EBUSY:
            raise MountError(f"{path} is busy: something else is mounted there") from None
        if error.errno == ENODEV:
            raise MountError(
                "this kernel has no FUSE: load the module with 'modprobe fuse'"
            ) from None
        raise MountError(_explain(error, f"cannot mount on {path}")) from None
    # A stat would tell the device number, too, but it would be a request to ourselves.
    entry = mount_at(path)
    if entry is None or entry.fstype != FSTYPE:
        raise MountError(f"{path}: something else was mounted at the same moment")
    return entry


def _explain(error: OSError, what: str) -> str:
    if error.errno == EPERM:
        return f"{what} ({error.strerror}): start as root; a container needs --cap-add SYS_ADMIN"
    return f"{what} ({error.strerror})"


def _parse_mount(line: str) -> MountEntry:
    # 36 35 98:0 /root /mount/point options shared:1 - type source options
    fields = line.split(" ")
    major, minor = fields[2].split(":")
    fstype = fields[fields.index("-", 6) + 1]
    return MountEntry(int(fields[0]), (int(major), int(minor)), _unescape(fields[4]), fstype)


def _unescape(path: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline, backslash and #."""
    for character in " \t\n#\\":
        path = path.replace(f"\\{ord(character):03o}", character)
    return path
