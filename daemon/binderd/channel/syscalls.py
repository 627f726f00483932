# SPDX-License-Identifier: Apache-2.0
"""The system calls for mounting that Python does not have.

Every one raises OSError as the os module does.  Nothing here may know what is mounted.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

# <sys/mount.h>, <linux/mount.h>
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4  # the source is the descriptor itself
_SYS_OPEN_TREE: Final = 428  # the same numbers on every architecture
_SYS_MOVE_MOUNT: Final = 429
_AT_FDCWD: Final = -100

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.syscall.restype = ctypes.c_long


def mount(source: str, target: str, fstype: str, flags: int, options: str) -> None:
    """Mount a file system; see mount(2)."""
    strings = [os.fsencode(text) for text in (source, target, fstype)]
    _check(_libc.mount(*strings, flags, os.fsencode(options)), target)


def unmount(target: str, flags: int) -> None:
    """Unmount whatever is mounted last at ``target``; see umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def open_below_mounts(directory: str) -> int:
    """Return a descriptor of ``directory`` in which nothing is mounted.

    It is a private copy of the mount that ``directory`` lies on, without the mounts on top of it:
    names opened relative to it lead to what those mounts hide. ``move_mount`` gives the copy a
    place of its own.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    path = ctypes.c_char_p(os.fsencode(directory))
    arguments = [ctypes.c_long(_SYS_OPEN_TREE), ctypes.c_long(_AT_FDCWD), path]
    return _check(_libc.syscall(*arguments, ctypes.c_long(flags)), directory)


def move_mount(fd: int, target: str) -> None:
    """Mount at ``target`` what ``open_below_mounts`` has returned; see move_mount(2)."""
    source = [ctypes.c_long(_SYS_MOVE_MOUNT), ctypes.c_long(fd), ctypes.c_char_p(b"")]
    path = [ctypes.c_long(_AT_FDCWD), ctypes.c_char_p(os.fsencode(target))]
    _check(_libc.syscall(*source, *path, ctypes.c_long(_MOVE_MOUNT_F_EMPTY_PATH)), target)


def _check(result: int, path: str) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), path)
    return result
