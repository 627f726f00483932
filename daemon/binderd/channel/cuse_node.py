# SPDX-License-Identifier: Apache-2.0
"""A character device in /dev that a CUSE channel serves: claiming its name, its node, its owner.

The kernel makes the node itself where /dev is its own devtmpfs; elsewhere, in a container say, we
do. One of ours bears a mark (an extended attribute) with its device number, so that the next daemon
can tell what a dead one has left from what anybody else has put there, which it leaves alone.

Nothing here may know what is served.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from errno import EEXIST, EPERM
from pathlib import Path
from typing import Final

from binderd.channel.errors import StartError, explain
from binderd.channel.fuse_mount import open_channel

CUSE_DEVICE: Final = "/dev/cuse"
_CLASS: Final = Path("/sys/class/cuse")
_NUMBERS: Final = Path("/sys/dev/char")
_MARK: Final = "trusted.binderd"  # its value is the device number of the node that bears it
_RIGHTS: Final = (
    "--owner and --group need CAP_CHOWN, a /dev that is not the kernel's own needs CAP_MKNOD"
)


class CuseNode:
    """One device and the channel that serves it.

    Use ``CuseNode.of``.
    """

    __slots__ = ("_made", "_made_parent", "fd", "name", "path")

    def __init__(self, name: str, path: str, fd: int) -> None:
        self.name = name
        self.path = path
        self.fd = fd  # /dev/cuse; the loop that serves it closes it, and the device goes with it
        self._made: os.stat_result | None = None  # the node, if we made it
        self._made_parent = False  # did we make its directory?

    @classmethod
    def of(cls, name: str) -> CuseNode:
        """Open a channel for the device ``name``, which must be free.

        The kernel makes the device when the CUSE_INIT request, which waits in the channel now, has
        been answered.

        Raises:
            Unsupported: there is no CUSE.
            StartError: we may not, or the name is taken.
        """
        path = f"/dev/{name}"
        fd = open_channel(CUSE_DEVICE, "cuse")
        try:
            _clear(path)
        except OSError as error:
            os.close(fd)
            raise StartError(explain(error, f"cannot look at {path}")) from None
        except StartError:
            os.close(fd)
            raise
        return cls(name, path, fd)

    def place(self, mode: int, uid: int, gid: int) -> None:
        """See that the node is there, and set its owner and mode; CUSE_INIT was answered.

        Args:
            mode: permission bits.
            uid, gid: the owner and the group.

        Raises:
            StartError: the kernel did not make the device, or we may not do that.
        """
        number = self._number()
        try:
            self._make(number)
            # Ours first, also if udev has given it away: so the mode needs no right of its own.
            os.chown(self.path, os.geteuid(), -1)
            os.chmod(self.path, mode)
            os.chown(self.path, uid, gid)
        except OSError as error:
            advice = _RIGHTS if error.errno == EPERM else ""
            raise StartError(explain(error, f"cannot set up {self.path}", advice)) from None

    def remove(self) -> None:
        """Take the node away if we made it; where the kernel did it will."""
        made, self._made = self._made, None
        if made is None:
            return
        with suppress(OSError):
            if os.path.samestat(os.lstat(self.path), made):
                os.unlink(self.path)
            if self._made_parent:  # succeeds if nothing else is in it
                os.rmdir(Path(self.path).parent)

    def _number(self) -> int:
        # The kernel writes a slash in a name as an exclamation mark.
        file = _CLASS / self.name.replace("/", "!") / "dev"
        try:
            major, minor = file.read_text(encoding="ascii").split(":")
        except OSError:
            if not _CLASS.is_dir():
                raise StartError(f"there is no {_CLASS}: mount /sys") from None
            raise StartError(
                f"the kernel has not made {self.path}: another device has that name (--device, "
                "--device-prefix), or all device numbers are taken"
            ) from None
        return os.makedev(int(major), int(minor))

    def _make(self, number: int) -> None:
        try:
            mode, device = _look(self.path)
            if stat.S_ISCHR(mode) and device == number:
                return
            raise OSError(EEXIST, os.strerror(EEXIST))
        except FileNotFoundError:
            pass
        parent = Path(self.path).parent
        self._made_parent = not parent.exists()
        parent.mkdir(mode=0o755, exist_ok=True)
        os.mknod(self.path, stat.S_IFCHR | 0o600, number)
        self._made = os.lstat(self.path)
        with suppress(OSError):  # without it the next daemon refuses the name
            os.setxattr(self.path, _MARK, str(number).encode(), follow_symlinks=False)


def _clear(path: str) -> None:
    """See that a path is free; remove the node that a dead daemon has left there.

    Raises:
        OSError: it cannot be told.
        StartError: it is not free.
    """
    try:
        mode, number = _look(path)
    except FileNotFoundError:
        return
    if stat.S_ISCHR(mode) and not _has_device(number):
        if _bears_mark(path, number):
            os.unlink(path)
            return
        raise StartError(
            f"{path} is a node without a device, and not known to be ours: remove it, or name "
            "other devices with --device, or all at once with --device-prefix"
        )
    raise StartError(
        f"{path} is there already (Linux's own driver, or another binderd?): "
        "name other devices with --device, or all at once with --device-prefix"
    )


def _look(path: str) -> tuple[int, int]:
    """Return mode and device number of a file."""
    status = os.lstat(path)
    return status.st_mode, status.st_rdev


def _has_device(number: int) -> bool:
    """Return whether the kernel has a device of that number; it has if it cannot be asked."""
    return not _NUMBERS.is_dir() or (_NUMBERS / f"{os.major(number)}:{os.minor(number)}").exists()


def _bears_mark(path: str, number: int) -> bool:
    try:
        return os.getxattr(path, _MARK, follow_symlinks=False) == str(number).encode()
    except OSError:
        return False
