# SPDX-License-Identifier: Apache-2.0
"""mmap(2), munmap(2) and madvise(2) on addresses.

Not Python's mmap module: that keeps a copy of the descriptor.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final

from binderd.linux.libc import QUICK, check

_mmap: Final = QUICK.mmap
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_mmap.restype = ctypes.c_void_p
_madvise: Final = QUICK.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_munmap: Final = QUICK.munmap
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED: Final = ctypes.c_void_p(-1).value


def map_file(fd: int, size: int, protection: int, flags: int) -> int:
    """Map the first ``size`` bytes of a file; return the address.

    Args:
        protection: PROT_... of the mmap module.
        flags: MAP_... of it.
    """
    address = _mmap(None, size, protection, flags, fd, 0)
    if address is None or address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(address)


def give_back(address: int, size: int) -> None:
    """Give pages of a mapping back to the system, in its file as well (MADV_REMOVE).

    They read as zero from then on. Where that fails they are what they were.
    """
    _madvise(address, size, mmap.MADV_REMOVE)


def unmap(address: int, size: int) -> None:
    """Undo ``map_file``."""
    check(_munmap(address, size))
