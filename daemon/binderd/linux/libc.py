# SPDX-License-Identifier: Apache-2.0
"""The C library, for the calls that Python does not have.

A function of it is declared (argtypes, restype) in the file that has its noun, and nowhere else.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

# Calls that may take their time: other threads run meanwhile.
LIBC: Final[Any] = ctypes.CDLL(None, use_errno=True)
# Short ones: giving up the interpreter's lock would cost more than it brings.
QUICK: Final[Any] = ctypes.PyDLL(None, use_errno=True)

LIBC.syscall.restype = ctypes.c_long


def check(result: int, path: str | None = None) -> int:
    """Return what a call has returned, unless that says that it failed.

    Args:
        result: negative if it did.
        path: that it was about, for the error.

    Raises:
        OSError: with the call's errno.
    """
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), path)
    return result


def syscall(number: int, *arguments: object, about: str | None = None) -> int:
    """Make a system call that the C library has no function for; see syscall(2).

    Args:
        number: of the call.
        arguments: of ctypes, as wide as registers.
        about: a path, for the error.
    """
    return check(LIBC.syscall(ctypes.c_long(number), *arguments), about)
