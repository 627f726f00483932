# SPDX-License-Identifier: Apache-2.0
"""A stopped thread of a client that carries out system calls for the helper.

Theory of operation. The thread has just left an ioctl, and its program counter is behind the
instruction that made the call. Step back, put another call's number and arguments into the
registers, let it run to the end of that call: that is ``call``. ``finish`` puts everything back, so
that the thread goes on as if nothing had been, or makes its ioctl once more.

Waiting is written as ``yield``: the caller of these generators sends the wait status of each stop.
All signals are blocked meanwhile, so that none can come between. SIGSTOP, which cannot be blocked,
stops everything but our calls.
"""

from __future__ import annotations

import os
import signal
from errno import EPERM, ESRCH, EXDEV
from typing import TYPE_CHECKING, Final

from binderd.linux import ptrace
from binderd.linux.proc import call_of, has_filter, open_in, place_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from binderd.injector.architecture import Architecture

_ERRORS: Final = 4096  # results above -4096 are errnos
_WORD_MASK: Final = (1 << 64) - 1
_CALL_STOP: Final = signal.SIGTRAP | ptrace.SYSCALL_STOP


class Gone(Exception):
    """The thread has ended."""


class Tracee:
    """A thread that has been seized and interrupted.

    Args:
        tid: its number.
        machine: what it runs on.
    """

    def __init__(self, tid: int, machine: Architecture) -> None:
        self.tid = tid
        self._machine = machine
        self._found: list[int] = []  # registers, as they were
        self._blocked = 0  # signals, as they were
        self._signal = 0  # that it must still receive
        self._memory = -1

    def stop(self, status: int, ending: int) -> None:
        """Take possession of the thread at its first stop.

        Args:
            status: of that stop.
            ending: what its ioctl must have ended with, a negative errno.

        Raises:
            OSError: EXDEV: it is not where it should be; nothing was changed.
            Gone: it has ended.
        """
        _check_alive(status)
        if status >> 16 != ptrace.EVENT_STOP:
            self._signal = os.WSTOPSIG(status)
            raise OSError(EXDEV, "stopped elsewhere")
        machine = self._machine
        found = ptrace.registers(self.tid, machine.registers)
        if found is None or (ending and found[machine.result] != ending & _WORD_MASK):
            raise OSError(EXDEV, "not in our ioctl")
        start = found[machine.counter] - len(machine.instruction)
        call = found[machine.number if machine.current is None else machine.current]
        self._memory = open_in(place_of(self.tid), "mem", os.O_RDWR)
        if call != machine.ioctl or self.read(start, len(machine.instruction)) != (
            machine.instruction
        ):
            raise OSError(EXDEV, "not behind an ioctl")
        self._found = found
        self._blocked = ptrace.block_signals(self.tid)

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of the thread's memory."""
        data = os.pread(self._memory, size, address)
        if len(data) != size:
            raise OSError(EXDEV, "memory ends")
        return data

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into the thread's memory."""
        if os.pwrite(self._memory, data, address) != len(data):
            raise OSError(EXDEV, "memory ends")

    def call(self, number: int, *arguments: int) -> Generator[None, int, int]:
        """Have the thread make a system call; the result is as in the kernel, negative: an errno.

        Raises:
            Gone: it has ended.
        """
        machine = self._machine
        registers = self._rewound()
        registers[machine.number] = number
        for index, argument in zip(machine.arguments, arguments, strict=False):
            registers[index] = argument & _WORD_MASK
        ptrace.set_registers(self.tid, machine.registers, registers)
        yield from self._run_to_call_stop()
        yield from self._run_to_call_stop()
        after = ptrace.registers(self.tid, machine.registers)
        assert after is not None
        result = after[machine.result]
        return result - (1 << 64) if result > _WORD_MASK - _ERRORS else result

    def need(self, number: int, *arguments: int) -> Generator[None, int, int]:
        """Like ``call``, for one that must succeed.

        Raises:
            OSError: with the call's errno.
        """
        result = yield from self.call(number, *arguments)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def finish(self, *, again: bool, first_argument: int | None) -> None:
        """Put everything back and let go.

        Args:
            again: the thread makes its ioctl once more.
            first_argument: the ioctl's, where the registers do not say it any more.

        Raises:
            OSError: ESRCH: it has ended.
        """
        machine = self._machine
        if self._found:
            registers = self._found
            if again:
                registers = self._rewound()
                if first_argument is not None:
                    registers[machine.arguments[0]] = first_argument
                registers[machine.number] = machine.ioctl
            ptrace.set_registers(self.tid, machine.registers, registers)
            ptrace.set_blocked(self.tid, self._blocked)
        ptrace.detach(self.tid, self._signal)

    def close(self) -> None:
        """Keep nothing."""
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _rewound(self) -> list[int]:
        """Return the registers with which the instruction is carried out again."""
        registers = self._found.copy()
        registers[self._machine.counter] -= len(self._machine.instruction)
        if self._machine.current is not None:
            registers[self._machine.current] = _WORD_MASK
        return registers

    def _run_to_call_stop(self) -> Generator[None, int, None]:
        received = 0
        while True:
            ptrace.go_on(self.tid, received)
            status = yield
            _check_alive(status)
            received = 0
            if status >> 16 == 0:
                received = os.WSTOPSIG(status)
                if received == _CALL_STOP:
                    return
            # Else the stop of the whole process, or its end: the kernel stops the thread with the
            # others once we let go.


def _check_alive(status: int) -> None:
    if not os.WIFSTOPPED(status):
        raise Gone


def seize(tid: int) -> None:
    """Seize a thread and have it stop when it leaves the kernel.

    Raises:
        OSError: EPERM: it is being traced already, or has a seccomp filter that we cannot suspend;
            such a filter might kill it for what it is made to do.
    """
    try:
        ptrace.seize(tid, ptrace.TRACESYSGOOD | ptrace.SUSPEND_SECCOMP)
    except OSError as error:
        if error.errno == ESRCH:
            raise
        if has_filter(place_of(tid)):
            raise OSError(EPERM, "has a seccomp filter") from None
        ptrace.seize(tid, ptrace.TRACESYSGOOD)
    ptrace.interrupt(tid)


def first_argument(tid: int) -> int:
    """Return the first argument of the system call in which a thread sleeps.

    Raises:
        OSError: it is not in one.
    """
    try:
        _, arguments = call_of(place_of(tid))
    except ValueError:
        raise OSError(EXDEV, "in no call") from None
    return arguments[0]
