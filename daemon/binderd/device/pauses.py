# SPDX-License-Identifier: Apache-2.0
"""Paused work of the engine, which waits for its turn like its user's requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.fuse.turns import Job, Turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.engine.completion import Paused


class _Slice(Job):
    """The next slice of paused work."""

    __slots__ = ("_pauses", "ticket")

    def __init__(self, pauses: Pauses, ticket: int) -> None:
        super().__init__(0)
        self._pauses = pauses
        self.ticket = ticket

    def run(self) -> None:
        self._pauses.go_on(self.ticket)


class Pauses:
    """The slices that wait for their turn.

    Args:
        paused: the engine's, by ticket, the latest last.
        turns: of all users.
        go_on: goes on with a ticket, one slice, and writes what that has ended.
    """

    __slots__ = ("_go_on", "_paused", "_turns", "_waiting")

    def __init__(
        self, paused: dict[int, Paused], turns: Turns, go_on: Callable[[int], None]
    ) -> None:
        self._paused = paused
        self._turns = turns
        self._go_on = go_on
        self._waiting: dict[int, None] = {}

    def look(self) -> None:
        """Have what has paused since the last look wait for its turn."""
        for ticket in reversed(self._paused):
            if ticket in self._waiting:
                break
            self._waiting[ticket] = None
            account = self._turns.of_payer(self._paused[ticket].payer)
            self._turns.put_next(account, _Slice(self, ticket))

    def go_on(self, ticket: int) -> None:
        """It is the turn of that ticket, which may have ended meanwhile."""
        del self._waiting[ticket]
        self._go_on(ticket)
