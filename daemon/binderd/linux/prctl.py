# SPDX-License-Identifier: Apache-2.0
"""prctl(2): what a process, or a thread, settles about itself."""

from __future__ import annotations

import ctypes
import signal
import struct
from typing import Final

from binderd.linux.libc import LIBC, check

# <linux/prctl.h>, <linux/seccomp.h>
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
# One instruction of BPF: return SECCOMP_RET_ALLOW. The kernel is told its address, so it must stay.
_ALLOW_ALL: Final = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000), 8)


def set_name(name: str) -> None:
    """Set the name of this thread, at most 15 bytes, as ps(1) and /proc show it."""
    _prctl(_PR_SET_NAME, name.encode())


def die_with_parent() -> None:
    """Have this process be killed when the thread that forked it ends.

    A parent that ended before this call is not noticed: compare getppid(2) afterwards.
    """
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))


def become_undumpable() -> None:
    """Have others need CAP_SYS_PTRACE to reach this process, also of the same user."""
    _prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0))


def install_empty_filter() -> None:
    """Put this thread under a seccomp filter that allows everything, for good."""
    _prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))
    program = struct.pack("@HP", 1, ctypes.addressof(_ALLOW_ALL))  # struct sock_fprog
    _prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), program)


def _prctl(what: int, *arguments: object) -> None:
    zeros = [ctypes.c_ulong(0)] * (4 - len(arguments))
    check(LIBC.prctl(what, *arguments, *zeros))
