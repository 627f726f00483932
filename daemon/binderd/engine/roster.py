# SPDX-License-Identifier: Apache-2.0
"""The roster: all open files, and the threads to be looked at before a call of the engine ends.

It knows processes and threads. What the nouns share beside that is in ``hub.py``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from binderd.engine.installation import DeferredClose, Installation
    from binderd.engine.ports import OpenFile
    from binderd.engine.process import Process
    from binderd.engine.thread import Thread


class Roster:
    """The open files and the waiting threads of one engine."""

    __slots__ = (
        "deferred_closes",
        "installations",
        "last_installation",
        "parked",
        "poll_wakes",
        "processes",
        "released",
        "runnable",
    )

    def __init__(self) -> None:
        self.processes: dict[Process, None] = {}  # all open files, the latest last
        self.parked: dict[int, Thread] = {}  # blocked reads by ticket
        self.runnable: deque[Thread] = deque()  # blocked threads that have something to look at
        self.poll_wakes: list[OpenFile] = []  # their pollers are to poll again
        self.released: list[OpenFile] = []  # closed for good: their clients can be closed as well
        self.installations: dict[int, Installation] = {}  # under way, by number
        self.deferred_closes: dict[int, DeferredClose] = {}  # the same
        self.last_installation = 0  # the latest number of either

    def next_installation(self) -> int:
        """Return the number of a new installation or deferred close."""
        self.last_installation += 1
        return self.last_installation
