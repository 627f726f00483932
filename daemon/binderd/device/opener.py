# SPDX-License-Identifier: Apache-2.0
"""What the device needs of the outside for an open file: a port, behind which is ``memory``.

Nothing here may know file descriptors, memory mappings or trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from binderd.device.extension import ExtensionClient
from binderd.engine.ports import Client, ClientMemory

if TYPE_CHECKING:
    from binderd.device.slot import Slot
    from binderd.engine.ports import Facade
    from binderd.engine.ports import OpenFile as EngineFile


class LaneMemory(ClientMemory, Protocol):
    """The memory of a thread that has a lane.

    While ``slot.is_entered`` is False that is the lane's alone: all else raises ``NotYet``, whose
    fetch is to wait until the thread has entered.
    """

    __slots__ = ()

    slot: Slot

    def runs_as(self, uid: int) -> bool:
        """Return whether the thread is alive, and has that user."""

    def close(self) -> None:
        """The lane ends."""


class OpenedClient(Client, ExtensionClient, Protocol):
    """The outside half of one open file: what the engine gets, and what the device needs of it."""

    __slots__ = ()

    pid: int  # the opener's process id, in the daemon's pid namespace
    backing_id: int  # what the kernel is to map for it, 0: it maps nothing of ours

    def adopt(self, engine: Facade, file: EngineFile) -> None:
        """Say what the open file is to the engine."""

    def make_lane(
        self, tid: int, uid: int, fd: int, size: int, address: int, memory: ClientMemory
    ) -> LaneMemory | int:
        """Return the memory of thread ``tid``, whose request is open, with a lane; or an errno.

        Args:
            uid: the thread's user.
            fd: the lane's memory, in the thread's table.
            size: bytes of it.
            address: where the thread has mapped them.
            memory: the thread's, so far.
        """

    def close(self) -> None:
        """Give everything back; nothing of the client may be used afterwards."""


class Opener(Protocol):
    """Makes the outside half of an open file."""

    __slots__ = ()

    def open(self, tid: int, nodeid: int, *, is_private: bool) -> OpenedClient:
        """Return the client for an OPEN by thread ``tid`` of the inode ``nodeid``.

        Args:
            is_private: do clients of that inode have pages of their own?

        Raises:
            OSError: the file cannot be opened; its errno goes to the client.
        """

    def refuse_foreign_pid(self) -> int:
        """Return the errno for an OPEN by a program outside of the daemon's pid namespace."""

    def lack_passthrough(self) -> None:
        """See ``FuseDevice.lack_passthrough``."""

    def can_back(self) -> bool:
        """Return whether the kernel takes files to be mapped; to be called once it is agreed."""

    def credentials(self, tid: int) -> tuple[int, frozenset[int]]:
        """Return the effective user of a thread that has a request open, and all its groups.

        Raises:
            OSError: they cannot be asked.
        """

    def payer(self, tid: int, uid: int) -> int:
        """Return the user that pays for a request of thread ``tid`` of the user ``uid``."""

    def is_own(self, tid: int) -> bool:
        """Return whether a thread is of the daemon, or of its helper process."""

    def note_stalls(self) -> None:
        """See whether the request that is through was kept waiting by a client."""
