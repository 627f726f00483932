# SPDX-License-Identifier: Apache-2.0
"""Our place in the file system: claiming a directory, mounting on it, leaving it as it was.

Theory of operation. A daemon that serves a directory holds a lock (flock) on the directory *below*
the mount. The lock goes with the process however that ends, so it alone says whether a mount
found there may be served, without asking a file system that may never answer. A mount
hides the directory below it; ``open_below_mounts`` reaches it nevertheless. The order

    lock the directory below -> remove what a dead daemon left -> look -> mount

leaves no moment in which two daemons could both believe the place is theirs. That the lock is free
does not make a mount stale: one of a daemon that lives may have been bound or moved here. So only
those go whose connection is dead (``mounts.py``).

A mount of before may live on in other mount namespaces, those of sandboxed services, though it was
unmounted here: the kernel (seen with 6.12) does not take everything away there that it has copied
there, and puts the new mount beneath the dead one. But whatever is mounted on a directory goes with
it, in every namespace. So an empty directory that was there before is replaced by one like it.

An ordinary user cannot look below a mount. There, what a dead daemon has left goes first, and the
directory is locked after that; a daemon that finds a mount that is not dead leaves it alone. If two
daemons find the same dead one, a lock of the parent directory decides.

Nothing here may know what is served.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from errno import (
    EACCES,
    EDQUOT,
    EEXIST,
    EMFILE,
    ENFILE,
    ENODEV,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOTDIR,
    ENXIO,
    EPERM,
    EWOULDBLOCK,
)
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from binderd.channel.errors import StartError, Unsupported, explain
from binderd.channel.fusermount import Fusermount
from binderd.channel.mounts import hold, mount_at
from binderd.linux import mount as linux_mount
from binderd.linux.mountinfo import read_mounts
from binderwire.fuse_abi import (
    FUSE_DEV_IOC_BACKING_CLOSE,
    FUSE_DEV_IOC_BACKING_OPEN,
    fuse_backing_map,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.linux.mountinfo import MountEntry

FUSE_DEVICE: Final = "/dev/fuse"
SOURCE: Final = "binderd"
FSTYPE: Final = "fuse.binderd"  # the part behind the dot is ours: it shows in mountinfo
ABORTED: Final = "lost its connection, which was aborted"
_FLAGS: Final = linux_mount.MS_NOSUID | linux_mount.MS_NODEV | linux_mount.MS_NOEXEC
_ROOT_MODE: Final = "40755"  # octal, as the kernel wants it
_BACKING_ID_SIZE: Final = 4  # bytes
_MARK: Final = "trusted.binderd"  # an extended attribute of a directory that we made
_RESERVE: Final = 4  # descriptors
_ELSEWHERE: Final = "name another directory with --mount"
_MAKE_IT: Final = f"make it first, or {_ELSEWHERE}"
_FREE_SPACE: Final = f"free some space or inodes there, or {_ELSEWHERE}"


class Mounter(Protocol):
    """The way to mount: ``Root`` or ``Fusermount``."""

    @property
    def can_look_below(self) -> bool:
        """Can directories be opened below what is mounted on them?"""

    def open_directory(self, path: str) -> int:
        """Return a descriptor of a directory, below all mounts if that can be."""

    def mount(self, path: str) -> int:
        """Mount a new file system; return its channel, which the loop that serves it closes."""

    def unmount(self, path: str) -> None:
        """Take what is mounted there out of the tree, also while it is in use."""

    def close(self) -> None:
        """Close the channel; only where nothing serves it."""


class Root:
    """How root mounts.

    Raises:
        Unsupported: there is no FUSE.
        StartError: we may not.
    """

    __slots__ = ("_fd",)

    can_look_below = True

    def __init__(self) -> None:
        self._fd = open_device()

    def open_directory(self, path: str) -> int:
        """See ``open_below_mounts``."""
        return linux_mount.open_below_mounts(path)

    def mount(self, path: str) -> int:
        """Mount; see ``Mounter``.

        Raises:
            Unsupported: there is no FUSE.
            StartError: it cannot be done.
        """
        try:
            linux_mount.mount(SOURCE, path, FSTYPE, _FLAGS, mount_options(self._fd))
        except OSError as error:
            if error.errno == ENODEV:
                raise Unsupported("this kernel has no FUSE ('modprobe fuse')") from None
            raise StartError(explain(error, f"cannot mount on {path}")) from None
        return self._fd

    def unmount(self, path: str) -> None:
        """Unmount; see ``Mounter``."""
        detach(path)

    def close(self) -> None:
        """Close the channel."""
        os.close(self._fd)


class FuseMount:
    """A mounted FUSE file system and the channel that serves it.

    Use ``FuseMount.at``.
    """

    __slots__ = ("_claim", "_entry", "_mounter", "_reserve", "device", "fd", "path")

    def __init__(self, claim: _Claim, fd: int, entry: MountEntry, mounter: Mounter) -> None:
        self.path = claim.path
        self.fd = fd  # /dev/fuse; the loop that serves it closes it
        self.device = entry.device  # (major, minor) as /proc/PID/maps shows it
        self._claim = claim
        self._entry = entry
        self._mounter = mounter
        # Clients can fill our table of descriptors, and unmounting takes some.
        self._reserve = [os.dup(fd) for _ in range(_RESERVE)]

    @classmethod
    def at(cls, directory: str, *, by_user: bool = False) -> FuseMount:
        """Mount on ``directory``, which is made if it is missing.

        Nobody can use the file system until the FUSE_INIT request, which waits in the channel now,
        is answered.

        Args:
            by_user: are we an ordinary user, for whom fusermount3 mounts?

        Raises:
            Unsupported: there is no FUSE; nothing has changed.
            StartError: it is served by another daemon, holds files, is another mount, or the system
                does not let us; nothing has changed.
        """
        mounter: Mounter = user_mounter() if by_user else Root()
        claim = None
        try:
            claim = _Claim.of(directory, mounter)
            _look(claim.path)
            fd = mounter.mount(claim.path)
            entry = _entry_at(claim.path)
        except BaseException:
            if claim is not None:
                claim.give_up()
            mounter.close()
            raise
        return cls(claim, fd, entry, mounter)

    @property
    def can_mount_inside(self) -> bool:
        """Can other file systems be mounted and moved in this one?"""
        return self._mounter.can_look_below

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

    def is_mounted(self) -> bool:
        """Return whether it is in the tree still, wherever it may have been moved.

        Raises:
            OSError: it cannot be told.
        """
        return any(map(self._entry.is_same, read_mounts()))

    def how_it_ended(self) -> str:
        """Return what has become of the channel, as far as it can be known."""
        try:
            return ABORTED if self.is_mounted() else "was unmounted"
        except OSError:
            return "was unmounted, or its connection aborted,"

    def unmount(self) -> str:
        """Take the file system out of the tree, also while it is in use; may be called again.

        The channel works on; open files do so until it is closed, then they fail with ENOTCONN.

        Returns:
            What did not go as it should, or an empty string.
        """
        # No descriptor keeps hold of our mount, because then a plain umount by the administrator
        # would fail with EBUSY. So we look where it is, and whether what is on top there is ours.
        while self._reserve:
            os.close(self._reserve.pop())
        try:
            complaints = [self._unmount(entry) for entry in read_mounts() if self._is_ours(entry)]
        except OSError as error:
            complaints = [explain(error, f"cannot unmount {self.path}, do it by hand")]
        self._claim.give_up()
        return "; ".join(filter(None, complaints))

    def _is_ours(self, entry: MountEntry) -> bool:
        return entry.is_same(self._entry)

    def _unmount(self, entry: MountEntry) -> str:
        inside = [
            other.path
            for other in read_mounts()
            if other.path.startswith(f"{entry.path}/") and other.fstype != FSTYPE
        ]
        with hold(entry.path) as mount:
            is_ours = mount is not None and self._is_ours(mount.entry)
            if mount is None or not is_ours or not mount.unmount(self._mounter.unmount):
                return f"something is mounted over {entry.path}: unmount both by hand"
        # There is no place any more where they could be.
        return f"what others had mounted inside went along: {', '.join(inside)}" if inside else ""


def user_mounter() -> Fusermount:
    """Return what mounts for an ordinary user.

    Raises:
        Unsupported: there is no FUSE.
        StartError: there is no fusermount3, or its user may not open /dev/fuse.
    """
    mounter = Fusermount(SOURCE)
    if os.path.exists(FUSE_DEVICE) and not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        raise StartError(
            f"no right to open {FUSE_DEVICE}: let everybody ('chmod 666 {FUSE_DEVICE}'), as most "
            "systems do, or start as root"
        )
    os.close(open_device())
    return mounter


def mount_options(fd: int) -> str:
    """Return the options of a file system that ``fd`` serves, for everybody.

    The kernel checks permissions by itself, with the modes and owners that we show.
    """
    owner = "user_id=0,group_id=0"  # of the mount
    return f"fd={fd},rootmode={_ROOT_MODE},{owner},allow_other,default_permissions"


def open_device() -> int:
    """Open /dev/fuse: a new, unmounted connection.

    Raises:
        Unsupported: there is none.
        StartError: we may not.
    """
    return open_channel(FUSE_DEVICE, "fuse")


def open_channel(device: str, module: str) -> int:
    """Open a device of the kernel that makes a channel.

    Args:
        device: its path.
        module: the kernel's module that has it.

    Raises:
        Unsupported: there is none.
        StartError: we may not.
    """
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {ENOENT, ENODEV, ENXIO}:
            advice = f"'modprobe {module}'; a container needs --device {device}"
            raise Unsupported(f"there is no {device} ({advice})") from None
        if error.errno in {EPERM, EACCES}:
            advice = f"start as root; a container needs --device {device}"
            raise StartError(f"no right to open {device} ({error.strerror}): {advice}") from None
        raise StartError(explain(error, f"cannot open {device}")) from None
    if stat.S_ISCHR(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise Unsupported(f"{device} is not a device: remove it, and 'modprobe {module}'")


class _Claim:
    """The directory below the mount, locked as long as this process lives or until given up."""

    __slots__ = ("_fd", "_is_made", "_parent", "path")

    def __init__(self, path: str, parent: int, fd: int, *, is_made: bool) -> None:
        self.path = path
        self._parent = parent  # the directory that holds it, below all mounts
        self._fd = fd
        self._is_made = is_made  # did we make the directory?

    @classmethod
    def of(cls, directory: str, mounter: Mounter) -> _Claim:
        """Lock ``directory`` for us, and remove the mount of a dead daemon from it.

        Raises:
            StartError: another daemon has it, or it cannot be made.
        """
        parent_path = os.path.realpath(Path(directory).parent)
        name = Path(directory).name
        path = str(Path(parent_path, name))
        if not name or name == "..":
            raise StartError(f"cannot mount on {directory}: name a directory of its own")
        try:
            parent = mounter.open_directory(parent_path)
        except OSError as error:
            advice = _MAKE_IT if error.errno == ENOENT else ""
            raise StartError(_explain(error, f"cannot reach {parent_path}", advice)) from None
        try:
            if not mounter.can_look_below:
                _clear(parent, path, mounter)
            fd, is_made = _lock_directory(parent, name, path)
        except BaseException:
            os.close(parent)
            raise
        claim = cls(path, parent, fd, is_made=is_made or _bears_mark(fd))
        try:
            if mounter.can_look_below:
                remove_dead(path)
            if not is_made:
                claim.renew()
        except OSError as error:
            claim.give_up()
            raise StartError(explain(error, f"cannot see what is mounted on {path}")) from None
        except BaseException:
            claim.give_up()
            raise
        return claim

    def renew(self) -> None:
        """Have a new directory like this one in its place, so that nothing is mounted on it.

        Where that cannot be, it stays as it is: it is not empty, something is mounted on it here,
        or it may not be replaced.
        """
        name = Path(self.path).name
        fresh = f".{name}.binderd-{os.getpid()}"
        fd = -1
        try:
            os.mkdir(fresh, 0o700, dir_fd=self._parent)
            fd = _open(self._parent, fresh, self.path)
            _make_alike(fd, self._fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(self._fd), os.stat(name, dir_fd=self._parent)):
                os.rename(fresh, name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
                fd, self._fd = self._fd, fd
                return
        except (OSError, StartError):
            pass
        finally:
            if fd >= 0:
                os.close(fd)
        with suppress(OSError):
            os.rmdir(fresh, dir_fd=self._parent)

    def give_up(self) -> None:
        """Leave the directory as it was found, and unlock it; a second call does nothing."""
        if self._fd < 0:
            return
        if self._is_made:
            name = Path(self.path).name
            with suppress(OSError):  # somebody has put something into it: it stays
                status = os.stat(name, dir_fd=self._parent, follow_symlinks=False)
                if os.path.samestat(status, os.fstat(self._fd)):
                    os.rmdir(name, dir_fd=self._parent)
        for fd in (self._fd, self._parent):
            os.close(fd)
        self._fd = self._parent = -1


def _lock_directory(parent: int, name: str, path: str) -> tuple[int, bool]:
    """Return a locked descriptor of the directory ``name``, and whether we had to make it."""
    while True:
        is_made = _make(parent, name, path)
        fd = _open(parent, name, path)
        if fd < 0:
            continue  # its maker removed it just now
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno != EWOULDBLOCK:
                raise StartError(explain(error, f"cannot lock {path}")) from None
            raise StartError(f"another binderd serves {path}: stop it, or {_ELSEWHERE}") from None
        if os.fstat(fd).st_nlink:
            if is_made:
                with suppress(OSError):  # then one that is killed leaves the directory behind
                    os.setxattr(fd, _MARK, b"made")
            return fd, is_made
        os.close(fd)  # the same, between our open and our lock


def _make(parent: int, name: str, path: str) -> bool:
    try:
        # The copy of the mount shares its files with the real one, so this makes the real
        # directory.
        os.mkdir(name, 0o755, dir_fd=parent)
    except OSError as error:
        if error.errno != EEXIST:
            raise StartError(_explain(error, f"cannot make {path}")) from None
        return False
    return True


def _bears_mark(fd: int) -> bool:
    """Return whether a daemon, which was killed then, has made a directory."""
    try:
        return os.getxattr(fd, _MARK) == b"made"
    except OSError:
        return False


def _make_alike(fd: int, other: int) -> None:
    """Give a directory what another has: owner, mode, extended attributes (ACL, labels, mark)."""
    status = os.fstat(other)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    for attribute in os.listxattr(other):
        os.setxattr(fd, attribute, os.getxattr(other, attribute))
    os.fchown(fd, status.st_uid, status.st_gid)  # from then on the rest would take another right


def _open(parent: int, name: str, path: str) -> int:
    """Return a descriptor of the directory ``name``, -1 if there is none."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno == ENOENT:
            return -1
        if error.errno == ENOTDIR:
            raise StartError(
                f"cannot mount on {path}, which is not a directory: {_ELSEWHERE}"
            ) from None
        raise StartError(_explain(error, f"cannot open {path}")) from None


def _clear(parent: int, path: str, mounter: Mounter) -> None:
    """See that nothing is mounted at ``path``, for a user that cannot look below.

    Args:
        parent: the directory that holds it; locked while something is removed.

    Raises:
        StartError: something is, and it is not dead, or it cannot be removed.
    """
    try:
        if mount_at(path) is None:
            return
        fcntl.flock(parent, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            remove_dead(path, mounter.unmount)
        finally:
            fcntl.flock(parent, fcntl.LOCK_UN)
        _refuse_mounted(path)
    except BlockingIOError:
        raise StartError(f"another binderd is starting at {path}: start again") from None
    except OSError as error:
        what = f"cannot clear {path}"
        raise StartError(explain(error, what, f"'fusermount3 -u {path}'")) from None


def detach(path: str) -> None:
    """Take what is mounted there out of the tree, also while it is in use, as root.

    Raises:
        OSError: it was not done.
    """
    linux_mount.unmount(path, linux_mount.MNT_DETACH | linux_mount.UMOUNT_NOFOLLOW)


def remove_dead(path: str, unmount: Callable[[str], None] = detach) -> None:
    """Unmount what dead daemons have left, and nothing that anybody may still serve."""
    is_removed = True
    while is_removed:
        with hold(path) as mount:
            is_ours = mount is not None and mount.entry.fstype == FSTYPE and mount.is_dead()
            is_removed = mount is not None and is_ours and mount.unmount(unmount)


def _look(path: str) -> None:
    """Refuse a place where mounting would hide something."""
    _refuse_mounted(path)
    if os.listdir(path):
        raise StartError(f"{path} is not empty, and a mount would hide what is in it: {_ELSEWHERE}")


def _refuse_mounted(path: str) -> None:
    entry = mount_at(path)
    if entry is not None:
        raise StartError(
            f"{path} is a mount point already ({entry.fstype}): unmount it, or {_ELSEWHERE}"
        )


def _entry_at(path: str) -> MountEntry:
    """Return the line in mountinfo of what we have just mounted."""
    # A stat would tell the device number, too, but it would be a request to ourselves.
    entry = mount_at(path)
    if entry is None or entry.fstype != FSTYPE:
        raise StartError(f"{path}: something else was mounted at the same moment")
    return entry


def _explain(error: OSError, what: str, advice: str = "") -> str:
    """Return what is wrong with the place, and what to do; see ``explain``."""
    if error.errno in {EMFILE, ENFILE, ENOMEM}:
        return explain(error, what)
    if error.errno in {ENOSPC, EDQUOT}:
        advice = _FREE_SPACE
    return explain(error, what, advice or _ELSEWHERE)
