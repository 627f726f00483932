# SPDX-License-Identifier: Apache-2.0
"""The task that goes on with what the engine has paused, by turns with the pumps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


class Pauses:
    """What is paused has one slice after each turn of the pumps.

    Args:
        flush: writes what a slice has ended.
        complain: called with what was done and the exception when it failed.
    """

    def __init__(
        self, flush: Callable[[], None], complain: Callable[[str, Exception], None]
    ) -> None:
        self._flush = flush
        self._complain = complain
        self._have_paused = trio.Event()

    def begin(self) -> None:
        """Something has paused."""
        self._have_paused.set()

    async def run(self, go_on: Callable[[], bool]) -> None:
        """Go on for ever.

        Args:
            go_on: does one slice; returns whether there is another.
        """
        while True:
            await self._have_paused.wait()
            self._have_paused = trio.Event()
            is_more = True
            while is_more:
                try:
                    is_more = go_on()
                except Exception as error:
                    self._complain("a request that had paused", error)
                self._flush()
                await trio.lowlevel.checkpoint()
