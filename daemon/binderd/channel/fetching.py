# SPDX-License-Identifier: Apache-2.0
"""The tasks that hear workers, and give up on those that are late (``fetcher``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, Protocol

import trio

from binderd.channel.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS_BETWEEN_LOOKS: Final = 0.25  # for accesses that are late


class Fetches(Protocol):
    """See ``fetcher.Fetcher``."""

    @property
    def is_idle(self) -> bool:
        """Is no access under way?"""

    def receive(self) -> None:
        """Take what workers say."""

    def expire(self) -> None:
        """Give up on what is late."""


class Fetching:
    """Waits for workers.

    Args:
        attempt: called with what is done and a call; makes that, and sees to whatever comes of it.
    """

    def __init__(self, attempt: Callable[[str, Callable[[], None]], None]) -> None:
        self.listener = Listener(self._hear)
        self._attempt = attempt
        self._fetches: Fetches | None = None
        self._is_busy = trio.Event()

    def wake(self) -> None:
        """A worker is under way."""
        self._is_busy.set()

    def serve(self, fetches: Fetches) -> None:
        """Wait for these workers from now on."""
        self._fetches = fetches

    async def run(self, fetches: Fetches) -> None:
        """Wait for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.listener.run)
            nursery.start_soon(self._watch_time, fetches)

    def _hear(self) -> None:
        if self._fetches is not None:
            self._do(self._fetches.receive)

    async def _watch_time(self, fetches: Fetches) -> NoReturn:
        while True:
            await self._is_busy.wait()
            self._is_busy = trio.Event()
            while not fetches.is_idle:
                await trio.sleep(_SECONDS_BETWEEN_LOOKS)
                self._do(fetches.expire)

    def _do(self, step: Callable[[], None]) -> None:
        self._attempt("what was fetched of a client's memory", step)
