# SPDX-License-Identifier: Apache-2.0
"""Mounting, unmounting, and file systems and mounts without a place."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from binderd.linux.libc import LIBC, check, syscall

# <sys/mount.h>, <linux/mount.h>
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MNT_DETACH: Final = 2
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
UMOUNT_NOFOLLOW: Final = 8
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4  # the source is the descriptor itself
_CLONE_NEWNS: Final = 0x20000
_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
# The same numbers on every architecture.
_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_SYS_FSOPEN: Final = 430
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
_FROM_HERE: Final = ctypes.c_long(-100)  # AT_FDCWD

_mount: Final = LIBC.mount
_mount.argtypes = [
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
]
_umount2: Final = LIBC.umount2
_umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def mount(source: str, target: str, fstype: str, flags: int, options: str) -> None:
    """Mount a file system; see mount(2)."""
    strings = [os.fsencode(text) for text in (source, target, fstype)]
    check(_mount(*strings, flags, os.fsencode(options)), target)


def unmount(target: str, flags: int) -> None:
    """Unmount whatever is mounted last at ``target``; see umount2(2)."""
    check(_umount2(os.fsencode(target), flags), target)


def open_below_mounts(directory: str) -> int:
    """Return a descriptor of ``directory`` in which nothing is mounted.

    It is a private copy of the mount that ``directory`` lies on, without the mounts on top of it:
    names opened relative to it lead to what those mounts hide. ``move_mount`` gives the copy a
    place of its own.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    path = ctypes.c_char_p(os.fsencode(directory))
    return syscall(_SYS_OPEN_TREE, _FROM_HERE, path, ctypes.c_long(flags), about=directory)


def move_mount(fd: int, target: str) -> None:
    """Mount at ``target`` what ``open_below_mounts`` has returned; see move_mount(2)."""
    source = ctypes.c_long(fd), ctypes.c_char_p(b"")
    path = _FROM_HERE, ctypes.c_char_p(os.fsencode(target))
    flags = ctypes.c_long(_MOVE_MOUNT_F_EMPTY_PATH)
    syscall(_SYS_MOVE_MOUNT, *source, *path, flags, about=target)


def unshare_mounts() -> None:
    """Have this process be in a mount namespace of its own, which goes with it."""
    check(LIBC.unshare(_CLONE_NEWNS))
    mount("", "/", "", _MS_REC | _MS_PRIVATE, "")


def open_file_system(fstype: str) -> int:
    """Return a descriptor of the root of a file system that is mounted nowhere.

    It is made new, so that it shows what there is by now.
    """
    name = ctypes.c_char_p(fstype.encode())
    context = syscall(_SYS_FSOPEN, name, ctypes.c_long(_FSOPEN_CLOEXEC))
    try:
        none = ctypes.c_void_p(None)
        create = ctypes.c_long(_FSCONFIG_CMD_CREATE)
        syscall(_SYS_FSCONFIG, ctypes.c_long(context), create, none, none, ctypes.c_long(0))
        flags = ctypes.c_long(_FSMOUNT_CLOEXEC)
        root = syscall(_SYS_FSMOUNT, ctypes.c_long(context), flags, ctypes.c_long(0))
    finally:
        os.close(context)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    finally:
        os.close(root)
