# SPDX-License-Identifier: Apache-2.0
"""Scripts: what several processes do with binder devices, step by step, as plain data.

All addresses are fixed (``layout``), so a script's bytes are the same wherever it is played. The
one thing that a step leaves open is which buffer it frees: the n-th of those that its file holds
when the step is played, so that a script still makes sense when other steps are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from binderwire import binder_abi as abi
from binderwire.describe import describe_commands, describe_ioctl

if TYPE_CHECKING:
    from collections.abc import Iterator

# The same as in player.c.
PROCESSES: Final = 3
THREADS: Final = 3  # of each process
FILES: Final = 6
HEAP_SIZE: Final = 64 << 10  # bytes
FIRST_PID: Final = 20001
STREAM_MAX: Final = 2048  # bytes of a read that are compared
SPARE_ADDRESS: Final = 0x10  # never mapped

_AREA: Final = 0x5000  # bytes of heap of each thread: commands, payloads, what is read
_PAYLOADS: Final = 0x1000
_READS: Final = 0x4000
_RUN: Final = re.compile(rb"(.)\1*", re.DOTALL)
PAYLOADS_SIZE: Final = _READS - _PAYLOADS


def heap(process: int) -> int:
    return (process + 1) << 32


def mapping(file: int) -> int:
    return (file + 16) << 32


def process_of(thread: int) -> int:
    return thread // THREADS


def area(thread: int) -> int:
    """Return where a thread's commands begin."""
    return heap(process_of(thread)) + thread % THREADS * _AREA


def payloads(thread: int) -> int:
    return area(thread) + _PAYLOADS


def reads(thread: int) -> int:
    return area(thread) + _READS


def shown(data: bytes) -> str:
    """Return bytes as hex, long runs of the same byte as xx*count."""
    parts = [
        f"{run[0]:02x}*{len(run)} " if len(run) > 4 else run.hex()
        for run in (match.group() for match in _RUN.finditer(data))
    ]
    return "".join(parts).strip()


@dataclass(frozen=True)
class Command:
    """One BC_ command, or what only looks like one.

    Attributes:
        octets: its bytes.
        fills: (address, bytes) that must be in memory for it.
        free: for BC_FREE_BUFFER, which of the file's buffers; then the address in octets is void.
    """

    octets: bytes
    fills: tuple[tuple[int, bytes], ...] = ()
    free: int | None = None

    def __str__(self) -> str:
        if self.free is not None:
            return f"BC_FREE_BUFFER buffer {self.free}"
        text = describe_commands(self.octets)
        return text + "".join(f" [{address:#x}: {shown(data)}]" for address, data in self.fills)


@dataclass(frozen=True)
class Open:
    """A process opens a device and, unless size is 0, maps so many bytes."""

    process: int
    file: int
    device: int
    size: int
    nonblocking: bool = False


@dataclass(frozen=True)
class Close:
    """close; the mapping stays."""

    file: int


@dataclass(frozen=True)
class Unmap:
    file: int


@dataclass(frozen=True)
class Kill:
    process: int


@dataclass(frozen=True)
class Signal:
    thread: int


@dataclass(frozen=True)
class Renice:
    """A thread that does not sleep changes its nice value."""

    thread: int
    nice: int


@dataclass(frozen=True)
class Poll:
    thread: int
    file: int


@dataclass(frozen=True)
class Ioctl:
    """Any ioctl but BINDER_WRITE_READ; argument None: a bad pointer."""

    thread: int
    file: int
    request: int
    argument: bytes | None

    def __str__(self) -> str:
        argument = "bad pointer" if self.argument is None else ""
        told = describe_ioctl(self.request, self.argument or b"")
        return f"thread {self.thread} file {self.file}: {told} {argument}".rstrip()


@dataclass(frozen=True)
class WriteRead:
    """BINDER_WRITE_READ.

    Attributes:
        skip: bytes before the commands that write_consumed says were taken.
        more: how many bytes longer write_size is than the commands; negative: shorter.
        at: address of the commands, instead of the thread's place for them.
        into: address of the read buffer, likewise.
    """

    thread: int
    file: int
    commands: tuple[Command, ...] = ()
    read_size: int = 0
    read_consumed: int = 0
    skip: int = 0
    more: int = 0
    at: int | None = None
    into: int | None = None

    def __str__(self) -> str:
        odd = ["read_consumed", "skip", "more", "at", "into"]
        oddities = "".join(
            f" {name}={getattr(self, name):#x}" for name in odd if getattr(self, name)
        )
        text = f"thread {self.thread} file {self.file}: read {self.read_size}{oddities}"
        return "".join([text, *(f"\n        {command}" for command in self.commands)])


Step = Open | Close | Unmap | Kill | Signal | Renice | Poll | Ioctl | WriteRead
Script = tuple[Step, ...]


def text(script: Script) -> str:
    """Return a script for a person to read."""
    return "\n".join(f"{number:4} {step}" for number, step in enumerate(script))


def smaller(step: Step) -> Iterator[Step]:
    """Yield simpler forms of a step."""
    if not isinstance(step, WriteRead):
        return
    for index in range(len(step.commands)):
        yield replace(step, commands=step.commands[:index] + step.commands[index + 1 :])
    for plain in ({"read_consumed": 0}, {"skip": 0}, {"more": 0}, {"read_size": 256}):
        if replace(step, **plain) != step and (step.read_size or "read_size" not in plain):  # type: ignore[arg-type]
            yield replace(step, **plain)  # type: ignore[arg-type]
    for index, command in enumerate(step.commands):
        for simple in _smaller_commands(command):
            commands = (*step.commands[:index], simple, *step.commands[index + 1 :])
            yield replace(step, commands=commands)


def _smaller_commands(command: Command) -> Iterator[Command]:
    """Yield a transaction without objects, or without any payload."""
    word = int.from_bytes(command.octets[:4], "little")
    if word not in (abi.BC_TRANSACTION, abi.BC_REPLY) or len(command.octets) < 68:
        return
    fields = abi.binder_transaction_data.read(command.octets, 4)
    for change in ({"offsets_size": 0}, {"offsets_size": 0, "data_size": 0}):
        changed = fields._replace(**change)
        if changed != fields:
            octets = command.octets[:4] + abi.binder_transaction_data.pack(*changed)
            yield replace(command, octets=octets)
