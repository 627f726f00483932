# SPDX-License-Identifier: Apache-2.0
"""Which pages an inode shows, shared ones or each client's own: the only place that chooses.

Shared pages are the better ones, but the kernel maps one file for all opens of an inode. So an open
of a path has an inode of its own, which no other look-up is told. An open that looks no name up (of
a file that is bind-mounted alone, through /proc/self/fd) has the inode that is there already: then
the pages must be each client's own. The two cannot share an inode, so it is chosen when an inode is
opened that is not open yet.

How it is known: look-ups of a device bring its common inode. An open of that is answered ESTALE,
once. That never reaches a program: the kernel begins anew. By a path it looks the name up once
more, and we know that thread: it gets an inode of its own, and opens that. By a bind mount it opens
the same as before. The same is done where an inode is opened again whose pages are shared. Times,
and who has looked up what before, prove nothing: the thread that binds a file may be the one that
opens it later.

Where no pages can be shared, whatever is not open yet is opened as it is: the common inode by the
first, while others begin anew. An inode could have several open files there, but no two mappings of
one program should be of one inode. Then a later look-up brings another common inode. Not while
look-ups follow one another quickly: all of them at once would find that theirs is another one now,
and ask again. That goes by time, as nothing is wrong with either.

Nothing here may know what pages are. Times are nanoseconds of a clock that is handed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.fuse.tree import Node

SHARED: Final = 1  # with us; one open file can have the inode
PRIVATE: Final = 2  # each client's own
AGAIN: Final = 3  # not known yet: the kernel is to begin anew

QUIET_NS: Final = 10_000_000  # between look-ups that do not follow one another quickly

_RETRIES_MAX: Final = 4096


class Choice:
    """What is chosen for inodes, and which threads begin anew.

    Args:
        clock: returns nanoseconds since any fixed moment.
    """

    __slots__ = ("_retries", "can_share", "clock")

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.can_share = True  # does the kernel map what we give it?
        # thread -> the inode that it was to open; it may never come back
        self._retries: dict[int, int] = {}

    def of(self, node: Node, nodeid: int, tid: int) -> int:
        """Return SHARED, PRIVATE or AGAIN for an open of an inode by a thread.

        After AGAIN, ``begin_anew`` must follow unless the open fails for good.

        Args:
            node: the inode.
            nodeid: its number.
            tid: the thread, in our pid namespace.
        """
        missed = self._retries.pop(tid, 0)
        if missed == nodeid:
            return PRIVATE  # beside the first one, if there is one still
        if node.opens:
            return AGAIN
        if not self.can_share:
            return PRIVATE
        return SHARED if missed and node.seeker == tid else AGAIN

    def begin_anew(self, nodeid: int, tid: int) -> None:
        """A thread that was to open an inode begins anew."""
        if len(self._retries) >= _RETRIES_MAX:
            del self._retries[next(iter(self._retries))]
        self._retries[tid] = nodeid

    def begins_anew(self, tid: int) -> bool:
        """Whether a thread that looks a device up has begun anew to open it."""
        return tid in self._retries

    def stays(self, node: Node) -> bool:
        """Whether one more look-up of a device brings its common inode, too."""
        if self.can_share:
            return True
        asked = node.asked
        node.asked = self.clock()
        return not node.opens or node.asked - asked < QUIET_NS
