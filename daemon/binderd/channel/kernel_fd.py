# SPDX-License-Identifier: Apache-2.0
"""A kernel channel: a descriptor on which each read is one request and each write one reply.

Rules of the file: no protocol knowledge, and -1 once closed, so that a reused number is never hit.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Final

import trio

from binderd.channel.spin import BUSY, Spin
from binderd.channel.transfer import read_frame, write_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.channel.spin import Lanes

# How long a busy channel is waited for without trio, in milliseconds: so long may a signal, the end
# of a thread or a timer have to wait for its turn.
_POLL_MS: Final = 1
_TIMESLICE_NS: Final = 250_000  # so long may another channel have to wait for its turn


class KernelFd:
    """The channel's descriptor and the one buffer that every request is read into.

    Args:
        fd: owned from now on; made non-blocking.
        buffer_size: bytes; the largest request that gets through.
        spin_ns: nanoseconds; so long the next request is looked for without sleeping.
        lanes: looked at meanwhile.
    """

    __slots__ = (
        "_callbacks",
        "_fd",
        "_fds",
        "_lanes",
        "_poll",
        "_shares_loop",
        "_spin",
        "buffer",
        "buffers",
    )

    def __init__(
        self, fd: int, buffer_size: int, spin_ns: int = 0, lanes: Lanes | None = None
    ) -> None:
        self._lanes = lanes
        os.set_blocking(fd, False)
        self._fd = fd
        self.buffer = bytearray(buffer_size)
        self.buffers = [self.buffer]  # made once, for readv
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._spin = Spin(spin_ns)
        self._shares_loop = False  # with other channels?
        self._callbacks: dict[int, Callable[[], None]] = {}  # of descriptors beside the channel's
        self._fds: dict[Callable[[], None], int] = {}  # the other way round

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

    def register(self, fd: int, callback: Callable[[], None]) -> None:
        """Have ``poll`` look at another descriptor as well.

        Args:
            fd: in the place of the one that had the same callback; -1 for none.
            callback: called when it is readable.
        """
        last = self._fds.pop(callback, -1)
        if last >= 0:
            del self._callbacks[last]
            self._poll.unregister(last)
        if fd >= 0:
            self._fds[callback] = fd
            self._callbacks[fd] = callback
            self._poll.register(fd, select.POLLIN)

    def yield_to(self, other: KernelFd) -> None:
        """Have ``poll`` return when another channel has something to read."""
        self._shares_loop = True
        self._poll.register(other.fileno(), select.POLLIN)

    def poll(self) -> bool:
        """Wait a moment, without trio, for the next request of a busy channel.

        Trio's way of waiting costs more than a request: it enters and leaves the scheduler and
        changes the set of descriptors twice.

        Returns:
            Whether there is something to read.
        """
        if self._fd < 0:
            return False
        ready = self._spin.look(self._poll, self._lanes)
        if not ready:
            self.rest()
            ready = self._poll.poll(_POLL_MS)
        if ready is BUSY:
            return True
        if len(ready) == 1 and ready[0][0] == self._fd:
            return True
        numbers = {fd for fd, _ in ready}
        for fd in numbers:
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback()
        return self._fd in numbers if self._shares_loop else bool(ready)

    def is_looking(self) -> bool:
        """Return whether there are lanes to be looked at."""
        return self._lanes is not None and bool(self._lanes.watched)

    def rest(self) -> None:
        """Nobody looks at lanes from now on, as the loop may sleep."""
        if self._lanes is not None:
            self._lanes.rest()

    def timeslice(self, alone: int) -> int:
        """Return how long neither trio nor another channel needs a turn, in nanoseconds.

        Args:
            alone: where there is no other channel.
        """
        return _TIMESLICE_NS if self._shares_loop else alone

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
