# SPDX-License-Identifier: Apache-2.0
"""process_vm_readv(2) and process_vm_writev(2): the memory of other processes.

They honour page protections as the kernel's copy_from_user and copy_to_user do.
"""

from __future__ import annotations

import ctypes
from struct import Struct
from typing import Final

from binderd.linux.libc import LIBC, check

pack_iovec: Final = Struct("=QQ").pack  # struct iovec: address, bytes

# For callers that prepare the iovecs in memory of their own: no argtypes, so nothing is converted,
# and without an errno. The pointers are ctypes.c_void_p, everything else are small numbers; the
# result fits in an int as long as no call moves more than that.
_unconverted: Final = ctypes.PyDLL(None)
quick_readv: Final = _unconverted.process_vm_readv
quick_writev: Final = _unconverted.process_vm_writev

_byte: Final = ctypes.create_string_buffer(1)

_readv: Final = LIBC.process_vm_readv
_writev: Final = LIBC.process_vm_writev
for _call in (_readv, _writev):
    _call.argtypes = [ctypes.c_int, *[ctypes.c_char_p, ctypes.c_ulong] * 2, ctypes.c_ulong]
    _call.restype = ctypes.c_ssize_t


def read(tid: int, address: int, size: int) -> bytes:
    """Return up to ``size`` bytes of a thread's memory; fewer where the readable memory ends.

    Raises:
        OSError: EFAULT, there is none at ``address``; ESRCH, there is no such thread.
    """
    local = ctypes.create_string_buffer(size)
    here, there = pack_iovec(ctypes.addressof(local), size), pack_iovec(address, size)
    count = check(_readv(tid, here, 1, there, 1, 0))
    return local.raw[:count]


def write(tid: int, address: int, data: bytes) -> int:
    """Store bytes in a thread's memory; return how many were; errors as ``read``."""
    local = ctypes.create_string_buffer(data, len(data))
    here, there = pack_iovec(ctypes.addressof(local), len(data)), pack_iovec(address, len(data))
    count = check(_writev(tid, here, 1, there, 1, 0))
    # Used once more: compiled code lets go of a local object after its last use, not at the end.
    return min(count, len(local))


def copy(tid: int, address: int, size: int, target: int) -> int:
    """Copy bytes of a thread's memory into our own; return how many were, -1 for an error.

    Args:
        target: the address here.
    """
    there: int = _readv(tid, pack_iovec(target, size), 1, pack_iovec(address, size), 1, 0)
    return there


def read_two(tid: int, one: tuple[int, int], other: tuple[int, int]) -> tuple[bytes, bytes]:
    """Return what is in two pieces of a thread's memory, (address, bytes); fewer where it ends.

    What cannot be read of the first leaves nothing of the other.
    """
    size = one[1] + other[1]
    local = ctypes.create_string_buffer(size)
    here = pack_iovec(ctypes.addressof(local), size)
    count = _readv(tid, here, 1, pack_iovec(*one) + pack_iovec(*other), 2, 0)
    found = local.raw[: max(count, 0)]
    return found[: one[1]], found[one[1] :]


def touch_nothing(tid: int) -> None:
    """Take the lock of a thread's mapping table for a moment, and read nothing."""
    check(_readv(tid, pack_iovec(ctypes.addressof(_byte), 1), 1, pack_iovec(0, 1), 1, 0))
