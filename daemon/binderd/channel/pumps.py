# SPDX-License-Identifier: Apache-2.0
"""All channels to the kernel, each with the loop that serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.channel.kernel_fd import KernelFd
from binderd.channel.pump import Pump
from binderd.fuse.server import READ_BUFFER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.channel.listener import Listener
    from binderd.channel.spin import Lanes
    from binderd.fuse.server import Server
    from binderd.fuse.turns import Turns


class Pumps:
    """The loops, and their channels.

    Args:
        turns: of all users.
        spin_ns: as of ``KernelFd``.
        listeners: hear others while a channel polls.
        reply_failed: called with the exception when the kernel does not understand a reply.
    """

    def __init__(
        self,
        turns: Turns,
        spin_ns: int,
        listeners: Sequence[Listener],
        reply_failed: Callable[[OSError], None],
    ) -> None:
        self.all: list[Pump] = []
        self.channels: list[KernelFd] = []
        self._turns = turns
        self._spin_ns = spin_ns
        self._lanes: Lanes | None = None
        self._listeners = listeners
        self._reply_failed = reply_failed

    def look_at(self, lanes: Lanes) -> None:
        """Serve lanes as well, by all channels that are added from now on."""
        self._lanes = lanes

    def add(self, fd: int, server: Server) -> Pump:
        """Serve one more channel.

        Args:
            fd: owned from now on.
            server: handles its requests.
        """
        channel = KernelFd(fd, READ_BUFFER_SIZE, self._spin_ns, self._lanes)
        for other in self.channels:
            channel.yield_to(other)
            other.yield_to(channel)
        for listener in self._listeners:
            listener.join(channel)
        self.channels.append(channel)
        pump = Pump(channel, server, self._turns, self._reply_failed)
        server.written_by(pump.flush)
        self.all.append(pump)
        return pump

    def wake(self) -> None:
        """Something has begun to wait for its turn, outside of the pumps."""
        for pump in self.all:
            pump.wake()

    def trace_with(self, trace: Callable[[bool, bytes], None] | None) -> None:
        """Have each request and reply shown from now on; None: none."""
        for pump in self.all:
            pump.trace = trace

    def close(self) -> None:
        """Close the channels; requests that are still open fail with ECONNABORTED."""
        for channel in self.channels:
            channel.close()
