# SPDX-License-Identifier: Apache-2.0
"""What the kernel maps when clients map our device files (FUSE passthrough).

An inode that was opened by its name shows the pages that its one client shares with us. All other
inodes show the same zeros, and each client gets pages of its own from what is written there.

One file can be opened in both ways at once, through /proc/PID/fd or a bind mount of that: a process
that opens it after the first has pages of its own beside those of the first.
"""

from __future__ import annotations

import os
from errno import ESTALE
from typing import TYPE_CHECKING, Protocol

from binderd.memory.memfd_arena import make_zeros

if TYPE_CHECKING:
    from binderd.memory.memfd_arena import MemfdArena


class Mount(Protocol):
    """A file system whose kernel maps what it is given."""

    device: tuple[int, int]  # major and minor number, as /proc/PID/maps shows them

    def register(self, fd: int) -> int:
        """Give the kernel a descriptor as backing file; return its backing id (positive)."""

    def unregister(self, backing_id: int) -> None:
        """Take a backing id back."""


class Backing:
    """What an inode shows that was opened by its name."""

    __slots__ = ("euid", "holders", "number")

    def __init__(self, number: int) -> None:
        self.number = number  # the backing id
        self.euid = -1  # the effective user of its first opener
        self.holders = 0  # open files


class Backings:
    """What all inodes show that are open.

    Args:
        mount: the file system.
    """

    __slots__ = ("_by_inode", "_mount", "_zeros")

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._by_inode: dict[int, Backing] = {}  # without those that show zeros
        self._zeros = 0  # the backing id of these, 0 until one is needed

    def share(self, nodeid: int, fd: int) -> int:
        """Have an inode that is not open show a file; return its backing id.

        ``hold`` or ``drop`` must follow.

        Raises:
            OSError: the kernel does not take it.
        """
        number = self._mount.register(fd)
        self._by_inode[nodeid] = Backing(number)
        return number

    def beside(self, nodeid: int) -> int:
        """Return the backing id for a client whose pages are its own.

        Raises:
            OSError: the kernel does not take it, or there is no descriptor left.
        """
        backing = self._by_inode.get(nodeid)
        if backing is not None:
            return backing.number
        if not self._zeros:
            fd = make_zeros()
            try:
                self._zeros = self._mount.register(fd)
            finally:
                os.close(fd)  # the kernel has it
        return self._zeros

    def hold(self, nodeid: int, euid: int) -> None:
        """A client with that effective user has opened an inode.

        Differs: where one that is not the first has nothing yet it sees what the first was sent.
        So it must be the same user, or root.

        Raises:
            OSError: ESTALE, it is not.
        """
        backing = self._by_inode.get(nodeid)
        if backing is None:
            return
        if not backing.holders:
            backing.euid = euid
        elif euid not in {0, backing.euid}:
            raise OSError(ESTALE, os.strerror(ESTALE))
        backing.holders += 1

    def let_go(self, nodeid: int, arena: MemfdArena) -> None:
        """A client of an inode is gone, and with it what was in these pages."""
        backing = self._by_inode.get(nodeid)
        if backing is not None:
            backing.holders -= 1
            if not backing.holders:
                self.drop(nodeid)
            elif not arena.is_beside:
                arena.empty()

    def drop(self, nodeid: int) -> None:
        """An inode shows nothing of its own any more."""
        self._mount.unregister(self._by_inode.pop(nodeid).number)
