# SPDX-License-Identifier: Apache-2.0
"""Python's collector of reference cycles, kept from holding everybody up.

Now and then it looks at every object that has been alive for a while: with the hundreds of
thousands that a single user may have made, tens of milliseconds in which nobody is served. Young
objects are cheap to look at, and stay its business; the old ones it may look at only while they are
few. The engine takes apart what it has made, so cycles are rare, and can wait.
"""

from __future__ import annotations

import gc
import sys
from typing import Final, NoReturn

import trio

_YOUNG: Final = (700, 10)  # Python's own
_NEVER: Final = 1 << 30
_SECONDS_BETWEEN_LOOKS: Final = 10.0
_FEW: Final = 60_000  # blocks of memory: what takes a few milliseconds


class Garbage:
    """The collector; from now on it spares what lives at this moment, and old objects if many."""

    def __init__(self) -> None:
        gc.freeze()  # what was made at the start lives to the end
        gc.set_threshold(*_YOUNG, _NEVER)
        self._at_start = sys.getallocatedblocks()

    async def run(self) -> NoReturn:
        """Look at old objects from time to time."""
        while True:
            await trio.sleep(_SECONDS_BETWEEN_LOOKS)
            self.collect()

    def collect(self) -> bool:
        """Look at old objects if there were new ones, and they are few; returns whether it did."""
        has_news = gc.get_count()[2] > 0
        if not has_news or sys.getallocatedblocks() > self._at_start + _FEW:
            return False
        gc.collect()
        return True
