# SPDX-License-Identifier: Apache-2.0
"""A BINDER_WRITE_READ under way: its argument, and the command that it has stopped in.

Nothing here may know whose request it is.
"""

from __future__ import annotations

from typing import Final

from binderwire.binder_abi import binder_write_read

_pack_write_read: Final = binder_write_read.pack


class WriteRead:
    """One BINDER_WRITE_READ argument, under way."""

    __slots__ = (
        "read_buffer",
        "read_consumed",
        "read_size",
        "ticket",
        "write_buffer",
        "write_consumed",
        "write_end",
        "write_size",
    )

    def __init__(self, ticket: int, fields: tuple[int, ...]) -> None:
        self.ticket = ticket
        self.write_end = 0  # up to where this ioctl takes commands
        (
            self.write_size,
            self.write_consumed,
            self.write_buffer,
            self.read_size,
            self.read_consumed,
            self.read_buffer,
        ) = fields

    def pack(self) -> bytes:
        """Return the argument as it goes back to the client."""
        return _pack_write_read(
            self.write_size,
            self.write_consumed,
            self.write_buffer,
            self.read_size,
            self.read_consumed,
            self.read_buffer,
        )


class Unfinished:
    """A command that has stopped in the middle."""

    __slots__ = ("number", "size")

    def __init__(self) -> None:
        self.number = 0  # of the command, among all
        self.size = 0  # of it in its stream, in bytes

    def go_on(self) -> bool:
        """Do some more; returns whether it is through."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Its thread is being released: leave nothing behind."""
