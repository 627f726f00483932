# SPDX-License-Identifier: Apache-2.0
"""Timers that are descriptors: readable when time has passed."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from binderd.linux.libc import LIBC, check

_CLOCK_MONOTONIC: Final = 1
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_COUNT_SIZE: Final = 8  # bytes
_itimerspec: Final = struct.Struct("@4l")  # seconds, nanoseconds: between two, until the first

_settime: Final = LIBC.timerfd_settime
_settime.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]


def create() -> int:
    """Return a timer that is not set; the caller closes it."""
    return check(LIBC.timerfd_create(_CLOCK_MONOTONIC, _FLAGS))


def set_interval(timer: int, seconds: int) -> None:
    """Have a timer be readable every so many seconds; 0: no more."""
    check(_settime(timer, 0, _itimerspec.pack(seconds, 0, seconds, 0), None))


def take(timer: int) -> None:
    """Have a timer that is readable be so again only when time has passed."""
    os.read(timer, _COUNT_SIZE)
