# SPDX-License-Identifier: Apache-2.0
"""ptrace(2): stopping a thread, and its registers and signals while it is stopped."""

from __future__ import annotations

import ctypes
from struct import Struct
from typing import Final

from binderd.linux.libc import LIBC, check

# <linux/ptrace.h>
_SYSCALL: Final = 24
_DETACH: Final = 17
_GETREGSET: Final = 0x4204
_SETREGSET: Final = 0x4205
_SEIZE: Final = 0x4206
_INTERRUPT: Final = 0x4207
_GETSIGMASK: Final = 0x420A
_SETSIGMASK: Final = 0x420B

TRACESYSGOOD: Final = 0x01
SUSPEND_SECCOMP: Final = 1 << 21
EVENT_STOP: Final = 128  # in bits 16 and up of a status
SYSCALL_STOP: Final = 0x80  # or'ed to SIGTRAP

_NT_PRSTATUS: Final = 1
_SIGMASK_SIZE: Final = 8  # bytes
_ALL_SIGNALS: Final = (1 << 64) - 1
_ROOM: Final = 1024  # bytes; more than any processor's registers

_ptrace: Final = LIBC.ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long

# The registers, and the struct iovec that says where they are; the signals that are blocked.
_registers = bytearray(_ROOM)
_registers_address: Final = ctypes.addressof(ctypes.c_char.from_buffer(_registers))
_iovec: Final = Struct("=QQ")
_room = bytearray(_iovec.size)
_room_address: Final = ctypes.addressof(ctypes.c_char.from_buffer(_room))
_mask = ctypes.c_uint64()
_mask_address: Final = ctypes.addressof(_mask)


def seize(tid: int, options: int) -> None:
    """Become the tracer of a thread, which goes on running."""
    check(_ptrace(_SEIZE, tid, None, options))


def interrupt(tid: int) -> None:
    """Have a seized thread stop as soon as it leaves the kernel."""
    check(_ptrace(_INTERRUPT, tid, None, None))


def go_on(tid: int, signal: int = 0) -> None:
    """Let a stopped thread run to the next begin or end of a system call.

    Args:
        signal: that it receives instead of the one that it was stopped with; 0: none.
    """
    check(_ptrace(_SYSCALL, tid, None, signal))


def detach(tid: int, signal: int = 0) -> None:
    """Let go of a stopped thread; it receives ``signal`` unless that is 0."""
    check(_ptrace(_DETACH, tid, None, signal))


def registers(tid: int, layout: Struct) -> list[int] | None:
    """Return the registers of a stopped thread; None if they are not laid out like that."""
    _iovec.pack_into(_room, 0, _registers_address, _ROOM)
    check(_ptrace(_GETREGSET, tid, _NT_PRSTATUS, _room_address))
    if _iovec.unpack(_room)[1] != layout.size:
        return None
    return list(layout.unpack_from(_registers))


def set_registers(tid: int, layout: Struct, values: list[int]) -> None:
    """Set all registers of a stopped thread."""
    layout.pack_into(_registers, 0, *values)
    _iovec.pack_into(_room, 0, _registers_address, layout.size)
    check(_ptrace(_SETREGSET, tid, _NT_PRSTATUS, _room_address))


def block_signals(tid: int) -> int:
    """Block all signals of a stopped thread; return what was blocked before."""
    check(_ptrace(_GETSIGMASK, tid, _SIGMASK_SIZE, _mask_address))
    before = _mask.value
    set_blocked(tid, _ALL_SIGNALS)
    return before


def set_blocked(tid: int, mask: int) -> None:
    """Set which signals of a stopped thread are blocked."""
    _mask.value = mask
    check(_ptrace(_SETSIGMASK, tid, _SIGMASK_SIZE, _mask_address))
