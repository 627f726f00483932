# SPDX-License-Identifier: Apache-2.0
"""What all nouns share: ids, limits, counters, logs, the clock, and what is left to do.

Whatever the engine has to say to the transport is put here (``outbox``, ``timers``, ``paused``,
``fetching``); ``Engine`` shows it. The processes, and the threads to be woken, are in
``roster.py``.

Nothing here may know a process, a thread or anything else that a client has.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from binderd.engine.rings import TransactionLog
from binderd.engine.stats import Stats
from binderd.engine.user import Users

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.engine.completion import Completion, Paused
    from binderd.engine.limits import Limits
    from binderd.engine.pause import Waiting
    from binderd.engine.ports import NotYet


class Hub:
    """What belongs to one engine as a whole; arguments as ``Engine`` has them."""

    __slots__ = (
        "_last_id",
        "_last_step",
        "_last_timer",
        "clock",
        "drained",
        "failed_log",
        "fetching",
        "freezes_others",
        "limits",
        "log",
        "managers",
        "outbox",
        "pace",
        "paused",
        "stats",
        "timed",
        "timers",
        "users",
        "waiting",
    )

    def __init__(self, limits: Limits, clock: Callable[[], int]) -> None:
        self.limits: Limits = limits
        self.clock: Callable[[], int] = clock
        # Called between two steps of a call: should others have their turn now?
        self.pace: Callable[[], bool] = _never
        # Whom the administrator lets become manager of a context; None: the first one's user (I5).
        self.managers: Callable[[str], frozenset[int] | None] = _whoever_is_first
        self.freezes_others = True  # may a client freeze other users' processes, as in the driver?
        self.stats: Stats = Stats()
        self.users: Users = Users(limits)
        self.log: TransactionLog = TransactionLog()  # the latest transactions
        self.failed_log: TransactionLog = TransactionLog()  # the latest that failed
        self.outbox: list[Completion] = []
        # What others have come in between of, by ticket; < 0: not a client's request.
        self.paused: OrderedDict[int, Paused] = OrderedDict()
        self.fetching: dict[int, Paused] = {}  # what waits for something to be fetched, by ticket
        # (number for ``Engine.expire``, milliseconds from now, or STOP)
        self.timers: list[tuple[int, int]] = []
        self.waiting: dict[int, Waiting] = {}  # freezes that wait for calls to end, by ticket
        self.timed: dict[int, Waiting] = {}  # the same, by timer
        # Those that wait for the calls of a frozen process whose last call has ended.
        self.drained: list[dict[int, Waiting]] = []
        self._last_timer = self._last_step = self._last_id = 0

    def next_id(self) -> int:
        """Return the next debug id."""
        self._last_id += 1
        return self._last_id

    def next_step(self) -> int:
        """Return a number for paused work that is no request of a client; it is negative."""
        self._last_step -= 1
        return self._last_step

    def next_timer(self) -> int:
        """Return the number of a new timer."""
        self._last_timer += 1
        return self._last_timer

    def pause(self, paused: Paused) -> None:
        """Let others have their turn before this goes on."""
        self.paused[paused.ticket] = paused

    def await_fetch(self, paused: Paused, reason: NotYet) -> None:
        """Let paused work wait until a fetch is over; then it goes on with its next turn."""
        self.fetching[paused.ticket] = paused
        if not reason.fetch.begin(paused.ticket):
            self.fetched(paused.ticket)

    def fetched(self, ticket: int) -> None:
        """See ``Engine.fetched``."""
        paused = self.fetching.pop(ticket, None)
        if paused is not None:
            self.pause(paused)


def _whoever_is_first(context: str) -> frozenset[int] | None:
    return None


def _never() -> bool:
    return False
