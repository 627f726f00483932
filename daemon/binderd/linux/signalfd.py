# SPDX-License-Identifier: Apache-2.0
"""signalfd(2): signals as something to be polled for."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

from binderd.linux.libc import LIBC, check

_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_MASK_SIZE: Final = 1024 // 8  # bytes of sigset_t
INFO_SIZE: Final = 128  # bytes of struct signalfd_siginfo


def open_signal(number: signal.Signals) -> int:
    """Return a descriptor that is readable when this process has got a signal, and block that.

    To be called before any thread is started: they inherit what is blocked.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    mask = (1 << number - 1).to_bytes(_MASK_SIZE, "little")
    return check(LIBC.signalfd(-1, ctypes.create_string_buffer(mask, _MASK_SIZE), _FLAGS))
