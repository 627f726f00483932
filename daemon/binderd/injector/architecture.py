# SPDX-License-Identifier: Apache-2.0
"""What must be known of a processor to have a stopped thread make a system call.

Only x86_64 is tested. The row of aarch64 was written from the kernel's interface and never ran.
"""

from __future__ import annotations

import platform
from struct import Struct
from typing import Final, NamedTuple


class Architecture(NamedTuple):
    """Registers by their index in the regset NT_PRSTATUS, and numbers of system calls."""

    registers: Struct  # all of them; a thread of another size of words has fewer bytes
    counter: int  # program counter
    number: int  # the system call's number, on entry
    result: int
    arguments: tuple[int, ...]
    # Where the kernel keeps the number of the call that the thread is in, and what says that it is
    # in none, so that it does not try to restart a call on its own.
    current: int | None
    instruction: bytes  # that makes a system call
    ioctl: int
    socketpair: int
    recvmsg: int
    close: int
    fcntl: int


_ARCHITECTURES: Final = {
    # struct user_regs_struct: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax
    # rip cs eflags rsp ss fs_base gs_base ds es fs gs
    "x86_64": Architecture(
        registers=Struct("=27Q"),
        counter=16,
        number=10,
        result=10,
        arguments=(14, 13, 12, 7, 9, 8),
        current=15,
        instruction=b"\x0f\x05",  # syscall
        ioctl=16,
        socketpair=53,
        recvmsg=47,
        close=3,
        fcntl=72,
    ),
    # struct user_pt_regs: x0 … x30 sp pc pstate
    "aarch64": Architecture(
        registers=Struct("=34Q"),
        counter=32,
        number=8,
        result=0,
        arguments=(0, 1, 2, 3, 4, 5),
        current=None,  # settled before the thread stops
        instruction=b"\x01\x00\x00\xd4",  # svc #0
        ioctl=29,
        socketpair=199,
        recvmsg=212,
        close=57,
        fcntl=25,
    ),
}


def own_architecture() -> Architecture | None:
    """Return the row of the machine that we run on, None if there is none."""
    return _ARCHITECTURES.get(platform.machine())
