# SPDX-License-Identifier: Apache-2.0
"""Hearing a process beside us, through a descriptor that is another one once it was started again.

Trio waits for it; a channel that polls, which is without trio, looks at it as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.channel.kernel_fd import KernelFd


class Listener:
    """Waits for what one process has to say.

    Args:
        hear: called when there is something.
    """

    def __init__(self, hear: Callable[[], None]) -> None:
        self._hear = hear
        self._channels: list[KernelFd] = []
        self._fd = -1
        self._has_moved = trio.Event()

    def join(self, channel: KernelFd) -> None:
        """Have a channel hear the process while it polls."""
        channel.register(self._fd, self._hear)
        self._channels.append(channel)

    def move(self, fd: int) -> None:
        """The process is heard at this descriptor now; -1: no longer at the last one."""
        if fd < 0:
            trio.lowlevel.notify_closing(self._fd)
        for channel in self._channels:
            channel.register(fd, self._hear)
        self._fd = fd
        self._has_moved.set()

    async def run(self) -> NoReturn:
        """Wait for ever."""
        while True:
            if self._fd < 0:
                await self._has_moved.wait()
                self._has_moved = trio.Event()
                continue
            try:
                await trio.lowlevel.wait_readable(self._fd)
            except trio.ClosedResourceError:
                continue
            self._hear()
