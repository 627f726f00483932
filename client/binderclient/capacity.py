# SPDX-License-Identifier: Apache-2.0
"""A capacity limiter: so many calls at a time; the others wait, first come, first served.

As trio's, but with callbacks, for the thread of any event loop.  Nothing here may know calls.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Slot:
    """One unit of the capacity, taken or waited for.

    Args:
        begin: called when it is taken; must not raise.
    """

    __slots__ = ("begin", "is_taken")

    def __init__(self, begin: Callable[[], None]) -> None:
        self.begin = begin
        self.is_taken = False


class CapacityLimiter:
    """So many slots.

    Args:
        limit: how many.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[Slot] = deque()

    @property
    def is_free(self) -> bool:
        """Would ``take`` take a slot at once?"""
        return self._free > 0

    def take(self, begin: Callable[[], None]) -> Slot:
        """Return a slot, which is taken, or will be when others are given back."""
        slot = Slot(begin)
        self._waiting.append(slot)
        self._go_on()
        return slot

    def give_back(self, slot: Slot) -> None:
        """Give a slot back, or stop waiting for it."""
        if slot.is_taken:
            self._free += 1
            self._go_on()
        else:
            self._waiting.remove(slot)

    def _go_on(self) -> None:
        while self._free > 0 and self._waiting:
            self._free -= 1
            slot = self._waiting.popleft()
            slot.is_taken = True
            slot.begin()
