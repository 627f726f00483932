# SPDX-License-Identifier: Apache-2.0
"""The loop's heartbeat, in memory that the watchdog sees: which request, and in which client.

Some calls reach into a client, and a client can block them: by its memory, by the locks of its
mapping table, or by those that it holds in its exec. Code that makes such a call stores right
before which client that is. The watchdog (``watchdog/``) looks at both numbers from outside; if
they stay the same while the loop sleeps in such a call, it knows the client without asking the
loop.

A subject is a number that stands for a client as long as the loop is stuck in it:

    0         no client
    positive  a descriptor of ours for the directory of its process in /proc, which also serves to
              send it signals (pidfd_send_signal)
    negative  minus the number of a thread that has a request open: it cannot go before its answer

One store per request and one per access. Nothing here may know what a request is, or a client.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from binderd.edge.calls import beat, enter, show

__all__ = ["beat", "enter"]  # from here they are known as what they are

NOBODY: Final = 0

# The cells, eight bytes each.
BEATS: Final = 0  # requests, and other turns of the loop, that have begun
SUBJECT: Final = 1
STALLS: Final = 2  # how often the watchdog had to end one
STALLER: Final = 3  # the subject of the last one
LOOKS: Final = 4  # how often the watchdog has looked: its own heartbeat

FD: Final = os.memfd_create("binderd-heartbeat", os.MFD_CLOEXEC)
os.ftruncate(FD, mmap.PAGESIZE)
_cells: Final = memoryview(mmap.mmap(FD, mmap.PAGESIZE)).cast("q")
show(_cells)  # beat and enter count from here on


def read(cell: int) -> int:
    """Return what is in a cell."""
    return _cells[cell]


class Stalls:
    """What the watchdog has told of stalls since the last look."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen = _cells[STALLS]

    def take(self) -> int:
        """Return the subject of a stall that has ended since the last look, 0 if there was none.

        The number means that client only in the access that had stalled, or right behind it.
        """
        count = _cells[STALLS]
        if count == self._seen:
            return NOBODY
        self._seen = count
        return _cells[STALLER]
