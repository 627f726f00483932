# SPDX-License-Identifier: Apache-2.0
"""Which pages an inode shows, shared ones or each client's own: the only place that chooses.

Shared pages are the better ones, but the kernel maps one file for all opens of an inode. An
ordinary open looks a name up, which gives it an inode of its own. One that looks no name up (of a
file that is bind-mounted alone, through /proc/self/fd) shares its inode with the next one: then the
pages must be each client's own. The two cannot share an inode, so it is chosen when an inode is
opened that is not open yet.

How it is known: a thread that opens a path sends LOOKUP, then OPEN. But so does one that looks the
name up to bind the file, and opens that later. So the first open of an inode that its very thread
has looked up is answered ESTALE, once. That never reaches a program: the kernel begins anew. By a
path it looks the name up once more, and opens that inode; by a bind mount it opens the same. The
same is done where an inode is opened again whose pages are shared.

Nothing here may know what pages are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from binderd.fuse.tree import Node

SHARED: Final = 1  # with us; one open file can have the inode
PRIVATE: Final = 2  # each client's own
AGAIN: Final = 3  # not known yet: the kernel is to begin anew

_RETRIES_MAX: Final = 4096


class Choice:
    """What is chosen for inodes, and which threads are to begin anew."""

    __slots__ = ("_retries", "can_share")

    def __init__(self) -> None:
        self.can_share = True  # does the kernel map what we give it?
        # thread -> the inode that it was to open; it may never come back
        self._retries: dict[int, int] = {}

    def of(self, node: Node, nodeid: int, tid: int) -> int:
        """Return SHARED, PRIVATE or AGAIN for an open of an inode by a thread.

        Args:
            node: the inode.
            nodeid: its number; later ones are higher.
            tid: the thread, in our pid namespace.
        """
        if not self.can_share:
            return PRIVATE
        missed = self._retries.pop(tid, 0)
        if node.opens and node.pages == PRIVATE:
            return PRIVATE
        is_looked_up = node.seeker == tid
        if not node.opens:
            if missed and is_looked_up and nodeid > missed:
                return SHARED
            if not is_looked_up:
                return PRIVATE
        if missed == nodeid:
            return PRIVATE  # beside the first one, if there is one still
        if len(self._retries) >= _RETRIES_MAX:
            del self._retries[next(iter(self._retries))]
        self._retries[tid] = nodeid
        return AGAIN
