# SPDX-License-Identifier: Apache-2.0
"""A kernel channel: a descriptor on which each read is one request and each write one reply.

Rules of the file: no protocol knowledge, and -1 once closed, so that a reused number is never hit.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Final

import trio

from binderd.channel.readiness import Readiness
from binderd.edge.calls import read_frame, write_frame

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMESLICE_NS: Final = 250_000  # so long may another channel have to wait for its turn


class KernelFd:
    """The channel's descriptor and the one buffer that every request is read into.

    Args:
        fd: owned from now on; made non-blocking.
        buffer_size: bytes; the largest request that gets through.
        spin_ns: nanoseconds; so long the next request is looked for without sleeping.
    """

    __slots__ = ("_fd", "buffer", "readiness")

    def __init__(self, fd: int, buffer_size: int, spin_ns: int = 0) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self.buffer = bytearray(buffer_size)
        self.readiness = Readiness(fd, spin_ns)

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._fd

    def read(self) -> int:
        """Read the next request into ``buffer``; never waits.

        Returns:
            Its size in bytes, WOULD_BLOCK, or ENDED when there will be no more.
        """
        return read_frame(self._fd, self.buffer)

    def write(self, frame: bytes) -> None:
        """Write one frame; it goes out whole or, where nobody waits for it any more, not at all.

        Raises:
            OSError: the kernel does not understand the frame.
        """
        write_frame(self._fd, frame)

    def register(self, fd: int, callback: Callable[[], None]) -> None:
        """Have a busy channel look at another descriptor as well.

        Args:
            fd: in the place of the one that had the same callback; -1 for none.
            callback: called when it is readable.
        """
        self.readiness.register(fd, callback)

    def yield_to(self, other: KernelFd) -> None:
        """Let another channel have its turn when it has something to read."""
        self.readiness.yield_to(other.fileno())

    def timeslice(self, alone: int) -> int:
        """Return how long neither trio nor another channel needs a turn, in nanoseconds.

        Args:
            alone: where there is no other channel.
        """
        return _TIMESLICE_NS if self.readiness.shares_loop else alone

    def is_waiting(self) -> bool:
        """Return whether there is something to read."""
        if self._fd < 0:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    async def wait(self) -> None:
        """Wait until there is something to read; always a checkpoint.

        Raises:
            trio.ClosedResourceError: ``close`` was called, before or meanwhile.
        """
        if self._fd < 0:
            raise trio.ClosedResourceError("the kernel channel is closed")
        await trio.lowlevel.wait_readable(self._fd)

    def close(self) -> None:
        """Close the channel and wake the task that waits for it; a second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            trio.lowlevel.notify_closing(fd)
            os.close(fd)
