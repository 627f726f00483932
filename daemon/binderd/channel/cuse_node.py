# SPDX-License-Identifier: Apache-2.0
"""A character device in /dev that a CUSE channel serves: claiming its name, its node, its owner.

The kernel makes the node itself where /dev is its own devtmpfs; elsewhere, in a container say, we
do. Nothing here may know what is served.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from errno import EEXIST, ENODEV, ENOENT, EPERM
from pathlib import Path
from typing import Final

CUSE_DEVICE: Final = "/dev/cuse"
_CLASS: Final = Path("/sys/class/cuse")
_NUMBERS: Final = Path("/sys/dev/char")
_RIGHTS: Final = (
    "--owner and --group need CAP_CHOWN, a /dev that is not the kernel's own needs CAP_MKNOD"
)


class NodeError(Exception):
    """The device cannot be had; the text says why and what to do."""


class CuseNode:
    """One device and the channel that serves it.

    Use ``CuseNode.of``.
    """

    __slots__ = ("_is_made", "fd", "name", "path")

    def __init__(self, name: str, path: str, fd: int) -> None:
        self.name = name
        self.path = path
        self.fd = fd  # /dev/cuse; whoever serves it closes it, and the device goes with it
        self._is_made = False  # did we make the node?

    @classmethod
    def of(cls, name: str) -> CuseNode:
        """Open a channel for the device ``name``, which must be free.

        The kernel makes the device when the CUSE_INIT request, which waits in the channel now, has
        been answered.

        Raises:
            NodeError: there is no CUSE, or the name is taken.
        """
        path = f"/dev/{name}"
        try:
            mode, number = _look(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise NodeError(f"cannot look at {path}: {error.strerror}") from None
        else:
            if not stat.S_ISCHR(mode) or _has_device(number):
                raise NodeError(
                    f"{path} is there already (Linux's own driver, or another binderd?): "
                    "name other devices with --device, or all at once with --device-prefix"
                )
            with suppress(OSError):
                os.unlink(path)  # left by one that is gone
        return cls(name, path, _open_channel())

    def place(self, mode: int, uid: int, gid: int) -> None:
        """See that the node is there and belongs to whom it should; CUSE_INIT was answered.

        Args:
            mode: permission bits.
            uid, gid: the owner and the group.

        Raises:
            NodeError: the kernel did not make the device, or we may not do that.
        """
        number = self._number()
        try:
            self._make(number)
            # Ours first, whoever udev has given it to: so the mode needs no right of its own.
            os.chown(self.path, os.geteuid(), -1)
            os.chmod(self.path, mode)
            os.chown(self.path, uid, gid)
        except OSError as error:
            advice = f": {_RIGHTS}" if error.errno == EPERM else ""
            raise NodeError(f"cannot set up {self.path} ({error.strerror}){advice}") from None

    def remove(self) -> None:
        """Take the node away if we made it; where the kernel did it will."""
        if self._is_made:
            self._is_made = False
            with suppress(OSError):
                os.unlink(self.path)

    def _number(self) -> int:
        # The kernel writes a slash in a name as an exclamation mark.
        file = _CLASS / self.name.replace("/", "!") / "dev"
        try:
            major, minor = file.read_text(encoding="ascii").split(":")
        except OSError:
            raise NodeError(
                f"the kernel has not made {self.path}: does another device have that name, "
                "or are all device numbers taken?"
            ) from None
        return os.makedev(int(major), int(minor))

    def _make(self, number: int) -> None:
        try:
            mode, found = _look(self.path)
            if stat.S_ISCHR(mode) and found == number:
                return
            raise OSError(EEXIST, os.strerror(EEXIST))
        except FileNotFoundError:
            pass
        Path(self.path).parent.mkdir(mode=0o755, exist_ok=True)
        os.mknod(self.path, stat.S_IFCHR | 0o600, number)
        self._is_made = True


def has_cuse() -> bool:
    """Return whether there is a /dev/cuse."""
    return os.path.exists(CUSE_DEVICE)


def _look(path: str) -> tuple[int, int]:
    """Return mode and device number of a file."""
    status = os.lstat(path)
    return status.st_mode, status.st_rdev


def _has_device(number: int) -> bool:
    return (_NUMBERS / f"{os.major(number)}:{os.minor(number)}").exists()


def _open_channel() -> int:
    try:
        return os.open(CUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {ENOENT, ENODEV}:
            advice = "load the module with 'modprobe cuse'; a container needs --device /dev/cuse"
            raise NodeError(f"there is no {CUSE_DEVICE}: {advice}") from None
        advice = "start as root; a container needs --device /dev/cuse"
        raise NodeError(f"cannot open {CUSE_DEVICE} ({error.strerror}): {advice}") from None
