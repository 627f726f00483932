# SPDX-License-Identifier: Apache-2.0
"""statx(2) without asking a file system: what the kernel has in memory of an open file."""

from __future__ import annotations

import ctypes
import os
import stat
from struct import Struct
from typing import Final

from binderd.linux.libc import QUICK

# <linux/stat.h>
_AT_EMPTY_PATH: Final = 0x1000
_AT_STATX_DONT_SYNC: Final = 0x4000  # ask no server
_STATX_NOTHING: Final = 0  # and that there is nothing to ask it for
_STATX_TYPE: Final = 0x01
_STATX_SIZE: Final = 256
_MODE: Final = Struct("=I24xH")  # what is known at all, and the mode
_DEVICE: Final = Struct("=136xII")  # major and minor number of the file system

_statx: Final = QUICK.statx
_result: Final = ctypes.create_string_buffer(_STATX_SIZE)


def device_of(fd: int) -> tuple[int, int, int]:
    """Return a file's mode, and its file system's major and minor number.

    They are what the kernel has in memory anyway: the file system may be anybody's own, which
    never answers. (fstat asks it, and so does fstatfs.) Where the kernel keeps even that to itself,
    as a mount without allow_other makes it do, it is taken for a regular file.
    """
    flags = _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC
    if _statx(fd, b"", flags, _STATX_NOTHING, _result):
        return stat.S_IFREG, 0, 0
    known, mode = _MODE.unpack_from(_result)
    major, minor = _DEVICE.unpack_from(_result)
    return mode if known & _STATX_TYPE else stat.S_IFREG, major, minor


def _memory_device() -> tuple[int, int]:
    fd = os.memfd_create("binderd", os.MFD_CLOEXEC)
    try:
        return device_of(fd)[1:]
    finally:
        os.close(fd)


_MEMORY_DEVICE: Final = _memory_device()


def memory_device() -> tuple[int, int]:
    """Return the major and minor number that memfds and shared anonymous memory show."""
    return _MEMORY_DEVICE
