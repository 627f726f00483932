# SPDX-License-Identifier: Apache-2.0
"""Frames for the kernel on one connection: the answers of ioctls, and wake-ups of pollers.

A ticket of the engine is the kernel's number of a request (``unique``), which counts per
connection, with the connection's number in front of it. That of the FUSE connection, the first, is
0, so that its requests' numbers are tickets as they are.

Nothing here may know the engine or open files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderd.fuse.frames import poll_wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

# Mypyc's fast integers end at 62 bits: room for 2^14 connections, and for a request every
# microsecond for nine years.
TICKET_SHIFT: Final = 48
CONNECTIONS_MAX: Final = 1 << 14


class Replies:
    """What is to be written on one connection."""

    __slots__ = ("_write", "outgoing", "ticket_base")

    def __init__(self) -> None:
        self.ticket_base = 0  # the connection's number, shifted to its place in a ticket
        # Frames, in the order in which they must be written; the protocol server has the same list.
        self.outgoing: list[bytes] = []
        self._write: Callable[[], None] | None = None

    def written_by(self, write: Callable[[], None]) -> None:
        """Have ``write`` called to write what is in ``outgoing``; it never waits."""
        self._write = write

    def write_out(self) -> None:
        """Write what is in ``outgoing``."""
        if self.outgoing and self._write is not None:
            self._write()

    def answer(self, ticket: int, result: int, payload: bytes) -> None:
        """Answer an ioctl; arguments as ``Completion`` has them."""
        raise NotImplementedError

    def wake_poller(self, kernel_handle: int) -> None:
        """Have the kernel ask once more what a poll finds.

        Args:
            kernel_handle: what the kernel has called the pollers that wait.
        """
        self.outgoing.append(poll_wakeup(kernel_handle))
