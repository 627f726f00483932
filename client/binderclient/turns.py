# SPDX-License-Identifier: Apache-2.0
"""``Turns``: so many at a time; the others wait, first come, first served.

For one thread: that of an event loop.  Nothing here may know calls.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Turn:
    """Somebody's turn.

    Args:
        begin: called when it has come; must not raise.
    """

    __slots__ = ("begin", "has_come")

    def __init__(self, begin: Callable[[], None]) -> None:
        self.begin = begin
        self.has_come = False


class Turns:
    """So many turns at a time.

    Args:
        limit: how many.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[Turn] = deque()

    def take(self, begin: Callable[[], None]) -> Turn:
        """Return a turn, which has come, or comes when others are given back."""
        turn = Turn(begin)
        self._waiting.append(turn)
        self._go_on()
        return turn

    def give_back(self, turn: Turn) -> None:
        """End a turn, or do without it."""
        if turn.has_come:
            self._free += 1
            self._go_on()
        else:
            self._waiting.remove(turn)

    def _go_on(self) -> None:
        while self._free > 0 and self._waiting:
            self._free -= 1
            turn = self._waiting.popleft()
            turn.has_come = True
            turn.begin()
