# SPDX-License-Identifier: Apache-2.0
"""How long the engine works in one go, by a clock that is handed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SLICE_NS: Final = 250_000  # more than what the largest usual call takes


class Pace:
    """A slice of time, which begins when it is asked after for the second time.

    So most calls, in which it is asked after once, need not look at the clock.

    Args:
        clock: returns nanoseconds since any fixed moment.
        slice_ns: how long a slice is.
    """

    __slots__ = ("_clock", "_ends_ns", "_is_asked", "_slice_ns")

    def __init__(self, clock: Callable[[], int], slice_ns: int = SLICE_NS) -> None:
        self._clock = clock
        self._slice_ns = slice_ns
        self._is_asked = False
        self._ends_ns = 0  # 0: it has not begun

    def begin(self) -> None:
        """What is asked about next is a slice of its own."""
        self._is_asked = False
        self._ends_ns = 0

    def is_over(self) -> bool:
        """Return whether the slice is over: others should have their turn."""
        if not self._is_asked:
            self._is_asked = True
            return False
        now = self._clock()
        if not self._ends_ns:
            self._ends_ns = now + self._slice_ns
        return now >= self._ends_ns
