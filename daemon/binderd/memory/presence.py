# SPDX-License-Identifier: Apache-2.0
"""Which pages of a client are present, so that an access to them cannot block the daemon.

A read of a page that is in the client's page table takes no page fault. A page that is not there
may have to come from a file system of the client's own, from a network, from the handler of its
page faults (userfaultfd) or from a disk. A worker process waits for such a page
(``remote_access.py``), not the daemon. /proc/PID/pagemap shows which pages are in the table, for
anonymous memory, files and shared memory alike.

A write takes more: the first write to each page of a shared mapping of a file is announced to the
file system (page_mkwrite), and one to a page that userfaultfd write-protects to its handler.

What pagemap has shown is believed for half a second (``Generation``), in which usual clients unmap
nothing of what they use. A client that takes pages away in just that time blocks the daemon once:
see ``Trust``.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

from binderd.linux.maps import mapping_at
from binderd.linux.proc import open_in, place_of
from binderd.linux.statx import memory_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.linux.maps import Seen

_PAGE: Final = mmap.PAGESIZE
_PAGE_BITS: Final = _PAGE.bit_length() - 1
_ENTRY: Final = 8  # bytes of a page in pagemap
_AHEAD: Final = 8  # pages to look at on both sides of those that are asked for
_RANGES_MAX: Final = 8192  # of one process
_STANDINGS_MAX: Final = 4096
_ADDRESS_END: Final = 1 << 56  # above there is nothing of a client's

# The highest byte of an entry.
_PRESENT: Final = 0x80
_OF_FILE: Final = 0x20  # or shared memory
_PROTECTED: Final = 0x02  # by userfaultfd
_READABLE: Final = bytes(number for number in range(256) if number & _PRESENT)
_WRITABLE: Final = bytes(number for number in _READABLE if not number & (_OF_FILE | _PROTECTED))
_WRITABLE_FILE: Final = bytes(number for number in _READABLE if not number & _PROTECTED)


class Generation:
    """For how long what was seen is believed: until ``advance``.

    ``wake`` is called when something was seen, and ``advance`` must be called some time after that.
    """

    __slots__ = ("is_used", "number", "wake")

    def __init__(self) -> None:
        self.number = 0
        self.is_used = False
        self.wake: Callable[[], None] | None = None

    def use(self) -> None:
        """Something was seen that ``advance`` must invalidate."""
        if not self.is_used:
            self.is_used = True
            if self.wake is not None:
                self.wake()

    def advance(self) -> None:
        """Nothing of what was seen is believed any more."""
        self.number += 1
        self.is_used = False


GENERATION: Final = Generation()  # the daemon's; it has one thread


class Trust:
    """Whether the daemon itself touches the memory of a user's processes.

    Once their memory has blocked it in spite of everything, it is left to workers.
    """

    __slots__ = ("is_revoked",)

    def __init__(self) -> None:
        self.is_revoked = False

    def revoke(self) -> None:
        """Their memory has blocked the daemon."""
        self.is_revoked = True
        GENERATION.advance()


_REVOKED: Final = Trust()
_REVOKED.is_revoked = True


class TrustOfPayers:
    """Which payers are trusted.

    ``trusts_users`` is whether ordinary users' memory is touched by us. Not where the kernel would
    ask us for pages of a device file that is mapped: what was seen may be wrong by the time it is
    used, and a daemon that waits for itself waits for ever, whatever is killed.
    """

    __slots__ = ("_by_payer", "trusts_users")

    def __init__(self) -> None:
        self._by_payer: dict[int, Trust] = {}
        self.trusts_users = True

    def of(self, payer: int) -> Trust:
        """Return whether a payer is trusted; each of root's processes has a trust of its own."""
        if not payer:
            return Trust()
        if not self.trusts_users:
            return _REVOKED
        trust = self._by_payer.get(payer)
        if trust is None:
            if len(self._by_payer) >= _STANDINGS_MAX:
                self._forget_some()
            trust = self._by_payer[payer] = Trust()
        return trust

    def _forget_some(self) -> None:
        """Users come and go; those whose trust is revoked stay known as long as there is room."""
        for payer, trust in list(self._by_payer.items()):
            if not trust.is_revoked:
                del self._by_payer[payer]
        if len(self._by_payer) >= _STANDINGS_MAX:
            del self._by_payer[next(iter(self._by_payer))]


class _Ranges:
    """Disjoint ranges of addresses, and which of them was of use last."""

    __slots__ = ("_ends", "_starts", "end", "start")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.start = self.end = 0  # the latest

    def have(self, start: int, end: int) -> bool:
        """Return whether all from ``start`` to ``end`` is in one of them."""
        if self.start <= start and end <= self.end:
            return True
        index = bisect_right(self._starts, start) - 1
        if index < 0 or end > self._ends[index]:
            return False
        self.start, self.end = self._starts[index], self._ends[index]
        return True

    def add(self, start: int, end: int) -> None:
        """Add a range, which may touch others."""
        if len(self._starts) >= _RANGES_MAX:
            self.clear()
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def clear(self) -> None:
        """Forget all of them."""
        self._starts.clear()
        self._ends.clear()
        self.start = self.end = 0


class Presence:
    """What was seen of one process' memory in this moment.

    Args:
        trust: in the user that is charged for the process.
    """

    __slots__ = ("_generation", "_reads", "_writes", "trust")

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self._generation = GENERATION.number
        self._reads = _Ranges()
        self._writes = _Ranges()

    def may_read(self, tid: int, address: int, size: int) -> bool:
        """Return whether a read cannot block.

        Args:
            tid: a thread of the process, which has a request open.
            address: of the first byte.
            size: how many, from 1 on.
        """
        end = address + size
        if self._generation == GENERATION.number and self._reads.have(address, end):
            return True
        return self._look(tid, address, end, self._reads, _READABLE, _AHEAD)

    def knows(self, address: int, size: int) -> bool:
        """Return what ``may_read`` would, if that takes no look."""
        return self._generation == GENERATION.number and self._reads.have(address, address + size)

    def may_write(self, tid: int, address: int, size: int) -> bool:
        """Return whether a write cannot block; arguments as ``may_read``."""
        end = address + size
        if self._generation == GENERATION.number and self._writes.have(address, end):
            return True
        if self._look(tid, address, end, self._writes, _WRITABLE, _AHEAD):
            return True
        if self.trust.is_revoked or not _is_memory(tid, address, end):
            return False
        return self._look(tid, address, end, self._writes, _WRITABLE_FILE, 0)

    def forget(self) -> None:
        """Believe nothing that was seen; there is another program, perhaps."""
        self._reads.clear()
        self._writes.clear()

    def _look(
        self, tid: int, address: int, end: int, ranges: _Ranges, good: bytes, ahead: int
    ) -> bool:
        """Return whether all pages have a good entry, and remember it.

        Args:
            good: the highest bytes of good entries.
            ahead: how many neighbours may be remembered as well.
        """
        if self.trust.is_revoked:
            return False
        if self._generation != GENERATION.number:
            self._generation = GENERATION.number
            self.forget()
        GENERATION.use()
        if address < 0 or end > _ADDRESS_END:
            return True  # fails at once
        first = address >> _PAGE_BITS
        last = end + _PAGE - 1 >> _PAGE_BITS
        start = max(first - ahead, 0)
        try:
            tops = _tops(place_of(tid), start, last + ahead)
        except OSError:
            return True  # nobody is there, or we are short of descriptors: as if it had been seen
        before, within = tops[: first - start], tops[first - start : last - start]
        missing = within.lstrip(good)
        if missing or len(within) < last - first:
            # Where nothing is mapped nothing keeps us: the access ends there.
            return bool(missing) and _is_empty(tid, last - len(missing) << _PAGE_BITS)
        behind = tops[last - start :]
        lower = first - (len(before) - len(before.rstrip(good)))
        upper = last + (len(behind) - len(behind.lstrip(good)))
        ranges.add(lower << _PAGE_BITS, upper << _PAGE_BITS)
        return True


class OwnPages:
    """Which pages of a private mapping have become its process' own, as was seen in this moment.

    A write to one of them takes no page fault. To make one, the kernel reads the file.
    """

    __slots__ = ("_generation", "_ranges")

    def __init__(self) -> None:
        self._generation = GENERATION.number
        self._ranges = _Ranges()

    def have(self, place: str, address: int, size: int) -> bool:
        """Return whether all pages of a range are its own.

        Args:
            place: of the process in /proc.
            address: of the first byte.
            size: how many, from 1 on.
        """
        if self._generation != GENERATION.number:
            self._generation = GENERATION.number
            self._ranges.clear()
        end = address + size
        if self._ranges.have(address, end):
            return True
        GENERATION.use()
        first, last = address >> _PAGE_BITS, end + _PAGE - 1 >> _PAGE_BITS
        try:
            tops = _tops(place, first, last + _AHEAD)
        except OSError:
            return False
        good = len(tops) - len(tops.lstrip(_WRITABLE))
        if good < last - first:
            return False
        self._ranges.add(first << _PAGE_BITS, first + good << _PAGE_BITS)
        return True


def _tops(place: str, start: int, end: int) -> bytes:
    """Return the highest byte of what pagemap says of each page from ``start`` to ``end``."""
    fd = open_in(place, "pagemap", os.O_RDONLY)
    try:
        return os.pread(fd, (end - start) * _ENTRY, start * _ENTRY)[_ENTRY - 1 :: _ENTRY]
    finally:
        os.close(fd)


def _is_memory(tid: int, address: int, end: int) -> bool:
    """Whether what is there is written without asking a file system: private, or shared memory."""
    try:
        found = _mapping_at(tid, address)
    except OSError:
        return False
    if found is None or end > found.end:
        return False
    return not found.is_shared or found.device == memory_device()


def _is_empty(tid: int, address: int) -> bool:
    """Whether nothing is mapped at an address; not if that cannot be told."""
    try:
        return _mapping_at(tid, address) is None
    except OSError:
        return False


def _mapping_at(tid: int, address: int) -> Seen | None:
    maps = open_in(place_of(tid), "maps", os.O_RDONLY)
    try:
        return mapping_at(maps, address)
    finally:
        os.close(maps)
