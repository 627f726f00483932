# SPDX-License-Identifier: Apache-2.0
"""What the host and the agent inside the machine say to each other.

A frame is a header (kind, job number, size) and that many bytes. The agent imports this module in
the emulated machine, where every import costs tens of milliseconds (``typing``: 80): it uses
``struct`` only.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# The virtio-serial port that carries the frames.
PORT: Final = "binderd.vm"

# From the host.
RUN: Final = 1  # content: pack_command()
INPUT: Final = 2  # content for the command's standard input; nothing = end of file
KILL: Final = 3  # SIGKILL to the command's process group

# From the machine; READY and BROKEN belong to no job.
READY: Final = 16  # content: seconds since the kernel started, as text
BROKEN: Final = 17  # content: why the machine is of no use
OUTPUT: Final = 18
ERRORS: Final = 19
EXIT: Final = 20  # content: the exit status as text, 128 + signal where one ended it

HEADER: Final = struct.Struct("<BII")


def pack(kind: int, job: int, content: bytes = b"") -> bytes:
    return HEADER.pack(kind, job, len(content)) + content


class Parser:
    """Turns pieces of a byte stream into frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, piece: bytes) -> list[tuple[int, int, bytes]]:
        """Return the frames that are complete now, as (kind, job, content)."""
        self._pending += piece
        complete, position = [], 0
        while len(self._pending) - position >= HEADER.size:
            kind, job, size = HEADER.unpack_from(self._pending, position)
            start = position + HEADER.size
            if len(self._pending) < start + size:
                break
            complete.append((kind, job, bytes(self._pending[start : start + size])))
            position = start + size
        del self._pending[:position]
        return complete


def pack_command(command: str, directory: str, environment: dict[str, str]) -> bytes:
    """Return the content of a RUN frame.

    Raises:
        ValueError: a NUL in one of them, which no process could be given either.
    """
    fields = [command, directory, *(f"{name}={value}" for name, value in environment.items())]
    if any("\0" in field for field in fields):
        raise ValueError("a command, directory or environment contains a NUL character")
    return "\0".join(fields).encode(errors="surrogateescape")


def unpack_command(content: bytes) -> tuple[str, str, dict[str, str]]:
    """Return (command, directory, environment) of a RUN frame's content."""
    command, directory, *pairs = content.decode(errors="surrogateescape").split("\0")
    return command, directory, dict(pair.split("=", 1) for pair in pairs)
