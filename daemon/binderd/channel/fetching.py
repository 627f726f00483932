# SPDX-License-Identifier: Apache-2.0
"""The tasks that hear workers, and give up on those that are late (``fetcher``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.channel.kernel_fd import KernelFd

_SECONDS_BETWEEN_LOOKS: Final = 0.25  # for errands that are late


class Fetches(Protocol):
    """Who has the workers."""

    @property
    def is_idle(self) -> bool:
        """Is nobody on an errand?"""

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to hear; -1: none."""

    def receive(self) -> None:
        """Hear it."""

    def expire(self) -> None:
        """Give up on what is late."""


class Fetching:
    """Waits for workers.

    Args:
        flush: writes what their errands have ended.
        complain: called with what was done and the exception when it failed.
        channels: those that linger, and hear workers meanwhile.
    """

    def __init__(
        self,
        flush: Callable[[], None],
        complain: Callable[[str, Exception], None],
        channels: Sequence[KernelFd],
    ) -> None:
        self._flush = flush
        self._complain = complain
        self._channels = channels
        self._fetches: Fetches | None = None  # while it runs
        self._fd = -1
        self._has_moved = trio.Event()
        self._is_busy = trio.Event()

    def move(self, fd: int) -> None:
        """The workers are heard at this descriptor now; -1: no longer at the last one."""
        if fd < 0:
            trio.lowlevel.notify_closing(self._fd)
        for channel in self._channels:
            channel.accompany(fd, self.hear)
        self._fd = fd
        self._has_moved.set()

    def wake(self) -> None:
        """Somebody is on an errand."""
        self._is_busy.set()

    def hear(self) -> None:
        """Take what workers have to say."""
        if self._fetches is not None:
            self._do(self._fetches.receive)

    async def run(self, fetches: Fetches) -> None:
        """Wait for ever."""
        self._fetches = fetches
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear)
            nursery.start_soon(self._watch_time, fetches)

    async def _hear(self) -> NoReturn:
        while True:
            if self._fd < 0:
                await self._has_moved.wait()
                self._has_moved = trio.Event()
                continue
            try:
                await trio.lowlevel.wait_readable(self._fd)
            except trio.ClosedResourceError:
                continue
            self.hear()

    async def _watch_time(self, fetches: Fetches) -> NoReturn:
        while True:
            await self._is_busy.wait()
            self._is_busy = trio.Event()
            while not fetches.is_idle:
                await trio.sleep(_SECONDS_BETWEEN_LOOKS)
                self._do(fetches.expire)

    def _do(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self._complain("what was fetched of a client's memory", error)
        self._flush()
