# SPDX-License-Identifier: Apache-2.0
"""A lane's memory, and that of its thread beside it (the port ``LaneMemory``).

The client has made the memory, a memfd that it has sealed against shrinking, and both have it
mapped. It may write to it while we read, and may give its pages back: then we see zeros. It cannot
take it away.

A thread that asks through its lane is not in the kernel. It could run another program by now, or be
dead, and its number somebody else's. So while it has not entered nothing is done by that number:
what lies in the lane is ours to read, all else raises ``NotYet``.

Nothing here may know what is asked.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from errno import EBADF, EINVAL, ENFILE, ENOMEM, EOPNOTSUPP
from typing import TYPE_CHECKING, Final

from binderd.device.opener import LaneMemory
from binderd.device.slot import Slot
from binderd.engine.ports import Fetch, NoAnswer, NotYet
from binderd.linux import memory_map, pidfd, proc
from binderd.memory.files import TakenFile, take_file
from binderd.memory.process_memory import ProcessMemory, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binderd.engine.ports import ReceiverArena
    from binderd.memory.files import Disposal
    from binderd.memory.thread_watch import Watched

_F_GET_SEALS: Final = 1034
_F_SEAL_SHRINK: Final = 2
_WRITABLE: Final = mmap.PROT_READ | mmap.PROT_WRITE


class _Entry(Fetch):
    """The fetch that is over when the thread has entered."""

    __slots__ = ("_slot",)

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def begin(self, ticket: int) -> bool:
        """Wait for that; ``Engine.fetched`` follows."""
        self._slot.waits = ticket
        return True


class MappedLane(LaneMemory):
    """The memory of a thread that has a lane.

    Args:
        inner: the thread's, which may be used while it is in the kernel.
        here: where the lane's memory is, in our address space; owned from now on.
        size: bytes of it.
        address: where the thread has it.
        watched: tells whether the thread is alive.
    """

    __slots__ = (
        "_address",
        "_entry",
        "_here",
        "_octets",
        "_size",
        "_watched",
        "inner",
        "is_openers",
        "is_settled",
        "pid",
        "sees_area",
        "slot",
    )

    def __init__(
        self, inner: ProcessMemory, here: int, size: int, address: int, watched: Watched
    ) -> None:
        self._watched: Watched = watched
        self.inner: ProcessMemory = inner
        self._here: int = here
        self._octets: memoryview = memoryview((ctypes.c_char * size).from_address(here)).cast("B")
        self._size: int = size
        self._address: int = address
        self.slot: Slot = Slot(self._octets, address)
        self._entry: _Entry = _Entry(self.slot)
        self.pid: int = inner.pid
        self.is_openers: bool = inner.is_openers
        # So it was when the thread was last in the kernel.
        self.sees_area: bool = inner.sees_area
        self.is_settled: bool = False

    def _own(self) -> ProcessMemory:
        """Return the thread's own memory, which may be used as it is in the kernel.

        Raises:
            NotYet: it is not.
        """
        self.be_present()
        inner = self.inner
        if not self.is_settled:
            inner.entered()
            self.is_settled = True
        return inner

    def entered(self) -> None:
        """The thread was in user space, or is there still."""
        self.is_settled = False

    def runs_as(self, uid: int) -> bool:
        """Return whether the thread is alive, and has that user as the file system sees it."""
        if self._watched.pidfd < 0:
            return False
        try:
            user = pidfd.user_of(self._watched.pidfd)
            if user < 0:  # before Linux 6.13; this is the effective user
                user = proc.user_of(self._watched.tid)
        except OSError:
            return False
        return user == uid

    def is_there(self) -> bool:
        """Return whether the thread is certain to be alive."""
        fd = self._watched.pidfd
        if self.slot.is_entered or fd < 0:
            return self.slot.is_entered
        try:
            return pidfd.user_of(fd) >= 0 or not pidfd.has_ended(fd)
        except OSError:
            return False

    def be_present(self) -> None:
        """Return if the thread is in the kernel; see ``ClientMemory``."""
        if not self.slot.is_entered:
            raise NotYet(self._entry)

    def read(self, address: int, size: int) -> bytes:
        """Return up to ``size`` bytes; fewer where the readable memory ends."""
        start = address - self._address
        if 0 <= start <= self._size - size:
            return bytes(self._octets[start : start + size])
        if not size:
            return b""
        data = self._own().read(address, size)
        self.sees_area = self.inner.sees_area
        return data

    def read_commands(self, address: int, size: int) -> bytes:
        """Return the same; they are in the lane as a rule."""
        return self.read(address, size)

    def write(self, address: int, data: bytes) -> bool:
        """Store all of ``data``; False if any byte could not be stored (EFAULT)."""
        start, size = address - self._address, len(data)
        if 0 <= start <= self._size - size:
            self._octets[start : start + size] = data
            return True
        is_stored = self._own().write(address, data)
        self.sees_area = self.inner.sees_area
        return is_stored

    def copy(self, address: int, size: int, arena: ReceiverArena, offset: int) -> bool:
        """Copy ``size`` bytes into ``arena`` at ``offset``."""
        start = address - self._address
        if 0 <= start <= self._size - size:
            arena.write(offset, bytes(self._octets[start : start + size]))
            return True
        return self._own().copy(address, size, arena, offset)

    def scatter(
        self,
        address: int,
        size: int,
        arena: ReceiverArena,
        offset: int,
        holes: Sequence[tuple[int, int]],
    ) -> list[bytes] | None:
        """Copy like ``copy``, but keep the bytes of ``holes`` away from the receiver."""
        start = address - self._address
        if 0 <= start <= self._size - size:
            octets = bytes(self._octets[start : start + size])
            return spread(octets, size, holes, arena, offset)
        return self._own().scatter(address, size, arena, offset, holes)

    def missing(self, ranges: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        """Return those of these ranges, (address, bytes), that cannot be read at once."""
        elsewhere = [piece for piece in ranges if not self.slot.has(*piece)]
        return elsewhere if not self.slot.is_entered else self.inner.missing(elsewhere)

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Raise NotYet unless all of these ranges, (address, bytes), can be read at once."""
        elsewhere = [piece for piece in ranges if not self.slot.has(*piece)]
        if elsewhere:
            self._own().expect(elsewhere)

    def forget(self) -> None:
        """The request is through for which something was fetched."""
        self.inner.forget()

    def file(self, fd: int) -> TakenFile | None:
        """Return the open file that the thread has under ``fd``."""
        return self._own().file(fd)

    def nice(self) -> int:
        """Return the thread's nice value."""
        return self.inner.nice()

    def set_nice(self, nice: int) -> None:
        """Give the thread a nice value, as far as its own limits allow."""
        if self.is_there():
            self.inner.set_nice(nice)

    def close(self) -> None:
        """The lane ends: from now on it is all the thread's own memory."""
        if self._here:
            self.slot.close()
            self._octets.release()
            here, self._here = self._here, 0
            size, self._size = self._size, -1
            memory_map.unmap(here, size)
        self.slot.is_over = True


def map_lane(tid: int, fd: int, size: int, disposal: Disposal) -> int:
    """Map what thread ``tid``, whose request is open, has under ``fd`` as the memory of a lane.

    Returns:
        The address; or a negative errno: EBADF; EINVAL, it is no memfd of so many bytes that is
        sealed against shrinking and can be written to; EOPNOTSUPP, a page of it could be refused
        to us; ENFILE, ENOMEM.
    """
    try:
        if proc.counts_memory_strictly():
            return -EOPNOTSUPP
        taken = take_file(tid, fd, disposal)
    except (NoAnswer, OSError):
        return -ENFILE
    if taken is None:
        return -EBADF
    try:
        if not _is_sealed(taken.fd, size):
            return -EINVAL
        return memory_map.map_file(taken.fd, size, _WRITABLE, mmap.MAP_SHARED)
    except OSError as error:
        return -ENOMEM if error.errno == ENOMEM else -EINVAL
    finally:
        taken.close()


def _is_sealed(fd: int, size: int) -> bool:
    """Whether a file is of plain memory and keeps so many bytes whatever anybody does.

    Huge pages are not plain: there may be none left when one is touched.
    """
    seals = fcntl.fcntl(fd, _F_GET_SEALS)  # EINVAL where a file can have none
    is_plain = os.fstatvfs(fd).f_bsize == mmap.PAGESIZE
    return bool(seals & _F_SEAL_SHRINK) and is_plain and os.fstat(fd).st_size >= size
