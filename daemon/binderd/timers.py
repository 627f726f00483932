# SPDX-License-Identifier: Apache-2.0
"""The time limits of clients' requests (BINDER_FREEZE, opens that wait for each other).

They are rare enough for a task each; but that must not outlive the request, or clients could pile
up any number of them. Nothing here may know what runs out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


class Timers:
    """The timers that run.

    Args:
        expire: called with the number of one that has run out.

    ``nursery`` must be set before the first one is started.
    """

    def __init__(self, expire: Callable[[int], None]) -> None:
        self.nursery: trio.Nursery | None = None
        self._expire = expire
        self._running: dict[int, trio.CancelScope] = {}  # by number

    def start(self, number: int, milliseconds: int) -> None:
        """Start a timer; with negative milliseconds: stop it."""
        if milliseconds < 0:
            self._running.pop(number).cancel()
            return
        assert self.nursery is not None
        scope = self._running[number] = trio.CancelScope()
        self.nursery.start_soon(self._run, number, milliseconds, scope)

    async def _run(self, number: int, milliseconds: int, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(milliseconds / 1000)
        if self._running.pop(number, None) is not None:  # else it was stopped
            self._expire(number)
