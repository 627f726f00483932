# SPDX-License-Identifier: Apache-2.0
"""When faults are injected: at random times, but the same ones for the same seed. Pure."""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Event(NamedTuple):
    """A fault that is to be injected."""

    seconds: float  # from the start
    kind: str
    dice: float  # from 0 to below 1; chooses the worker
    strength: float  # from 0 to below 1; chooses for how long


class Schedule:
    """An endless row of faults.

    Args:
        seed: of the random numbers.
        rates: kind of event -> how often in a second, 0 for never.
    """

    def __init__(self, seed: int, rates: Mapping[str, float]) -> None:
        streams = [_events(seed, kind, rate) for kind, rate in sorted(rates.items()) if rate > 0]
        self._events = heapq.merge(*streams)
        self._next = next(self._events, None)

    def due(self, seconds: float) -> Iterator[Event]:
        """Yield what was to happen until now and has not been yielded yet."""
        while self._next is not None and self._next.seconds <= seconds:
            event, self._next = self._next, next(self._events, None)
            yield event


def _events(seed: int, kind: str, rate: float) -> Iterator[Event]:
    dice = random.Random(f"{seed} {kind}")
    seconds = 0.0
    while True:
        seconds += dice.expovariate(rate)
        yield Event(seconds, kind, dice.random(), dice.random())
