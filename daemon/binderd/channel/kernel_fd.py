# SPDX-License-Identifier: Apache-2.0
"""A kernel channel: a descriptor on which each read is one request and each write one reply.

Rules of the file: no protocol knowledge, and -1 once closed, so that a reused number is never hit.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Final

import trio

from binderd.channel.spin import Spin
from binderd.channel.transfer import read_frame, write_frame

if TYPE_CHECKING:
    from collections.abc import Callable

# How long a busy channel is waited for without trio, in milliseconds: so long may a signal, the end
# of a thread or a timer have to wait for its turn.
_LINGER_MS: Final = 1
_NEIGHBOURLY_NS: Final = 250_000  # so long may another channel have to wait for its turn


class KernelFd:
    """The channel's descriptor and the one buffer that every request is read into.

    Args:
        fd: owned from now on; made non-blocking.
        buffer_size: bytes; the largest request that gets through.
        spin_ns: nanoseconds; so long the next request is looked for without sleeping.
    """

    __slots__ = (
        "_companions",
        "_fd",
        "_has_neighbours",
        "_heeds",
        "_poll",
        "_spin",
        "buffer",
        "buffers",
    )

    def __init__(self, fd: int, buffer_size: int, spin_ns: int = 0) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self.buffer = bytearray(buffer_size)
        self.buffers = [self.buffer]  # made once, for readv
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._spin = Spin(spin_ns)
        self._has_neighbours = False
        self._companions: dict[Callable[[], None], int] = {}  # who heeds what
        self._heeds: dict[int, Callable[[], None]] = {}  # the other way round

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._fd

    def read(self) -> int:
        """Read the next request into ``buffer``; never waits.

        Returns:
            Its size in bytes, WOULD_BLOCK, or ENDED when there will be no more.
        """
        return read_frame(self._fd, self.buffers)

    def write(self, frame: bytes) -> None:
        """Write one frame; it goes out whole or, where nobody waits for it any more, not at all.

        Raises:
            OSError: the kernel does not understand the frame.
        """
        write_frame(self._fd, frame)

    def accompany(self, fd: int, heed: Callable[[], None]) -> None:
        """Have ``linger`` look at another descriptor as well.

        Args:
            fd: in the place of the one that had the same ``heed``; -1 for none.
            heed: called when it is readable.
        """
        last = self._companions.pop(heed, -1)
        if last >= 0:
            del self._heeds[last]
            self._poll.unregister(last)
        if fd >= 0:
            self._companions[heed] = fd
            self._heeds[fd] = heed
            self._poll.register(fd, select.POLLIN)

    def meet(self, neighbour: KernelFd) -> None:
        """Have ``linger`` give way when another channel has something to read."""
        self._has_neighbours = True
        self._poll.register(neighbour.fileno(), select.POLLIN)

    def part(self, neighbour: KernelFd) -> None:
        """Undo ``meet``, before the other is closed."""
        self._poll.unregister(neighbour.fileno())

    def linger(self) -> bool:
        """Wait a moment, without trio, for the next request of a busy channel.

        Trio's way of waiting costs more than a request: it enters and leaves the scheduler and
        changes the set of descriptors twice.

        Returns:
            Whether there is something to read.
        """
        if self._fd < 0:
            return False
        ready = self._spin.look(self._poll) or self._poll.poll(_LINGER_MS)
        if len(ready) == 1 and ready[0][0] == self._fd:
            return True
        numbers = {fd for fd, _ in ready}
        for fd in numbers:
            heed = self._heeds.get(fd)
            if heed is not None:
                heed()
        return self._fd in numbers if self._has_neighbours else bool(ready)

    def patience(self, alone: int) -> int:
        """Return how long neither trio nor another channel needs a turn, ``alone`` if none is."""
        return _NEIGHBOURLY_NS if self._has_neighbours else alone

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
        """Close the channel and wake whoever waits for it; a second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            trio.lowlevel.notify_closing(fd)
            os.close(fd)
