# SPDX-License-Identifier: Apache-2.0
"""Buffers: the pieces of a process' receive area that transactions are delivered in.

``RangeAllocator`` hands out ranges of a fixed space, best fit, and knows nothing of binder.
``BufferArea`` puts the driver's accounting on top: addresses in the receiver, the one-way half
(B3). Neither ever looks at the bytes: the receiver can write to its own pages.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from errno import EINVAL, ENOSPC
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from binderd.engine.errors import BinderFailure
from binderd.engine.payload import Sizes, capacity_of, context_at, size_of
from binderd.engine.ports import File  # noqa: TC001 - compiled, FdFixup is made with it
from binderd.engine.spam import Flood
from binderd.engine.work import Work
from binderwire.binder_abi import BR_FAILED_REPLY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from binderd.engine.node import Node
    from binderd.engine.owner import Owner, Reader
    from binderd.engine.ports import Mapping

_SIZE_MAX: Final = (1 << 64) - 1

# What translated objects hold: (strong?, handle or node).
Held = list[tuple[bool, "int | Node"]]


class FdFixup(NamedTuple):
    """A file in a payload, on its way from the sender to the receiver."""

    offset: int  # where in the buffer its number belongs
    file: File
    in_array: bool  # does freeing the buffer close it? (O9)


_NO_FILES: Final[list[FdFixup]] = []  # shared by all buffers without files; never appended to
_NO_NUMBERS: Final[list[int]] = []
_pack_number: Final = Struct("=i").pack


class RangeAllocator:
    """Best-fit allocation of ranges in ``[0, capacity)``.

    The smallest free range that suffices is split from its low end; neighbours merge when freed.
    Of several equally small ranges the lowest is taken. Differs: in the driver the shape of a tree
    decides, so that no client can tell which to expect.

    What is free depends on what is allocated and on nothing else. So who gives back the latest
    range, and asks for as much again, gets the same one: that is what a call does after the other,
    and takes no look. Until then it is only said to be free (``_has_idle``).
    """

    __slots__ = (
        "_by_size",
        "_end_of",
        "_has_idle",
        "_latest",
        "_latest_size",
        "_start_of",
        "capacity",
    )

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._latest = -1  # the start of what was allocated last, if nothing was given back since
        self._latest_size = 0
        self._has_idle = False  # was that given back, and is not in the tables?
        self._by_size: list[tuple[int, int]] = []  # (size, start), sorted
        self._end_of: dict[int, int] = {}  # free range: start -> end
        self._start_of: dict[int, int] = {}  # free range: end -> start
        if capacity:
            self._add(0, capacity)

    def allocate(self, size: int) -> int | None:
        """Return the start of ``size`` (> 0) units, None if no free range is large enough."""
        if self._has_idle:
            if size == self._latest_size:
                self._has_idle = False
                return self._latest
            self._settle()
        start = self._allocate(size)
        self._latest = -1 if start is None else start
        self._latest_size = size
        return start

    def free(self, start: int, size: int) -> None:
        """Give back a range exactly as it was allocated."""
        if self._has_idle:
            self._settle()
        if start == self._latest:
            self._has_idle = True
        else:
            self._latest = -1
            self._free(start, size)

    def free_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield each free range as (start, size), in no particular order."""
        if self._has_idle:
            self._settle()
        for size, start in self._by_size:
            yield start, size

    def _settle(self) -> None:
        """Put what was given back into the tables."""
        start, self._latest, self._has_idle = self._latest, -1, False
        self._free(start, self._latest_size)

    def _allocate(self, size: int) -> int | None:
        index = bisect_left(self._by_size, (size, -1))
        if index == len(self._by_size):
            return None
        found, start = self._by_size.pop(index)
        end = self._end_of.pop(start)
        del self._start_of[end]
        if found > size:
            self._add(start + size, end)
        return start

    def _free(self, start: int, size: int) -> None:
        end = start + size
        assert start not in self._end_of, "range freed twice"
        after = self._end_of.get(end)
        if after is not None:
            self._remove(end, after)
            end = after
        before = self._start_of.get(start)
        if before is not None:
            self._remove(before, start)
            start = before
        self._add(start, end)

    def _add(self, start: int, end: int) -> None:
        self._end_of[start] = end
        self._start_of[end] = start
        insort(self._by_size, (end - start, start))

    def _remove(self, start: int, end: int) -> None:
        del self._end_of[start]
        del self._start_of[end]
        del self._by_size[bisect_left(self._by_size, (end - start, start))]


class Delivery(Work):
    """What brings its reader a buffer: a transaction."""

    __slots__ = ("buffer",)

    def __init__(self, buffer: Buffer) -> None:
        super().__init__()
        self.buffer: Buffer | None = buffer  # None once the receiver freed it
        buffer.transaction = self


class Buffer:
    """One allocated piece; holds references until it is freed."""

    __slots__ = (
        "address",
        "allow_user_free",
        "array_numbers",
        "clear",
        "context_size",
        "data_size",
        "debug_id",
        "extra_size",
        "files",
        "files_from",
        "has_arrived",
        "held",
        "objects",
        "offset",
        "offsets_size",
        "one_way_from",
        "size",
        "spam_suspect",
        "target_node",
        "transaction",
        "wiper",
    )

    def __init__(self, address: int, offset: int, size: int, sizes: Sizes) -> None:
        self.address = address  # in the receiver
        self.offset = offset  # bytes from the start of the mapping
        self.size = size  # bytes accounted, a multiple of 8
        self.data_size, self.offsets_size, self.extra_size, self.context_size = sizes
        self.debug_id = 0  # of its transaction
        self.one_way_from: int | None = None  # the sender's process id; None: it is no one-way call
        self.spam_suspect = False  # does that sender hold too much of the one-way half? (B4)
        self.clear = False  # zero the memory when it is freed? (B6)
        self.has_arrived = False  # does the client see it, if its pages are its own?
        self.allow_user_free = False  # was it delivered and not freed yet? (B5)
        self.wiper: Reader | None = None  # the thread that is freeing it, in several steps
        self.transaction: Delivery | None = None
        self.target_node: Node | None = None  # None: a reply
        # Kept here because the receiver could change the objects in its pages.
        self.held: Held | None = None
        self.objects = 0  # how many the receiver's user is charged for
        self.files: list[FdFixup] = _NO_FILES  # not installed yet
        self.files_from: Owner | None = None
        self.array_numbers: list[int] = _NO_NUMBERS  # what the arrays brought the receiver (O9)

    @property
    def is_empty(self) -> bool:
        """Whether it has no bytes at all."""
        return not (self.data_size or self.offsets_size or self.extra_size or self.context_size)

    def is_left_to(self, thread: Reader) -> bool:
        """Whether a thread may free it, as no other one is doing that."""
        return self.wiper is None or self.wiper is thread or self.wiper.is_dead

    @property
    def context_address(self) -> int:
        """Where the sender's security context is, at the end of the extra area (B7); 0: none."""
        if not self.context_size:
            return 0
        return self.address + context_at(self.size, self.context_size)

    def hold(self, strong: bool, target: int | Node) -> None:
        """Note a reference that an object in the buffer holds."""
        assert self.held is not None
        self.held.append((strong, target))

    def hold_file(self, fixup: FdFixup, sender: Owner) -> None:
        """Take a file along."""
        if not self.files:
            self.files, self.files_from = [], sender
        self.files.append(fixup)

    def fill_in(self, numbers: Sequence[int], receiver: Owner) -> None:
        """Write the receiver's numbers of the files where they belong; they are installed."""
        arena = receiver.client.arena
        in_arrays = []
        for fixup, number in zip(self.files, numbers, strict=True):
            arena.write(self.offset + fixup.offset, _pack_number(number))
            if fixup.in_array:
                in_arrays.append(number)
        if in_arrays:
            self.array_numbers = in_arrays
        self.drop_files(receiver)

    def drop_files(self, receiver: Owner) -> None:
        """Let go of the files: they were installed, or never will be."""
        if not self.files:
            return
        count, sender = len(self.files), self.files_from
        assert sender is not None
        sender.user.files_arrived(receiver.user, count)
        receiver.hub.users.settle(sender.user)
        receiver.files_queued -= count
        receiver.hub.stats.files -= count
        for fixup in self.files:
            fixup.file.close()
        self.files, self.files_from = _NO_FILES, None


class BufferArea:
    """A process' receive area: its buffers and what is left.

    Args:
        mapping: where the receiver sees the area.
        count_max: how many buffers there may be at once.
    """

    __slots__ = (
        "_address",
        "_count_max",
        "_flood",
        "_latest",
        "_ranges",
        "_table",
        "end_max",
        "free_one_way",
        "size",
    )

    def __init__(self, mapping: Mapping, count_max: int) -> None:
        self._address = mapping.address
        self._count_max = count_max
        self._ranges = RangeAllocator(capacity_of(mapping.size))
        self._flood: Flood = Flood(mapping.size)
        self.size = mapping.size
        self.free_one_way = mapping.size // 2  # bytes that one-way calls may still take
        self.end_max = 0  # how far buffers have reached so far, in bytes from the start
        # As for ranges: who gives back the latest one before there is another takes no table.
        self._latest: Buffer | None = None
        self._table: dict[int, Buffer] = {}  # all others, by address

    @property
    def buffers(self) -> dict[int, Buffer]:
        """All of them by address, in the order in which they were allocated."""
        if self._latest is not None:
            self._table[self._latest.address], self._latest = self._latest, None
        return self._table

    def count(self) -> int:
        """Return how many there are."""
        return len(self._table) + (self._latest is not None)

    def find(self, address: int) -> Buffer | None:
        """Return the buffer at an address."""
        latest = self._latest
        if latest is not None and latest.address == address:
            return latest
        return self._table.get(address)

    def allocate(self, sizes: Sizes, one_way_from: int | None) -> Buffer:
        """Return a new buffer for the parts, each rounded up to 8 bytes (B1, B2).

        Args:
            one_way_from: process id of the sender of a one-way call, None for anything else.

        Raises:
            BinderFailure: -EINVAL for sizes that overflow, -ENOSPC where nothing fits
                (binder_alloc_new_buf).
        """
        size = size_of(sizes)
        if size > self.size and size > _SIZE_MAX:  # compiled, the latter takes objects
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        if self.count() >= self._count_max:
            raise BinderFailure(BR_FAILED_REPLY, -ENOSPC)
        if one_way_from is not None and size > self.free_one_way:
            raise BinderFailure(BR_FAILED_REPLY, -ENOSPC)
        offset = self._ranges.allocate(size)
        if offset is None:
            raise BinderFailure(BR_FAILED_REPLY, -ENOSPC)
        if offset + size > self.end_max:
            self.end_max = offset + size
        buffer = Buffer(self._address + offset, offset, size, sizes)
        if self._latest is not None:
            self._table[self._latest.address] = self._latest
        self._latest = buffer
        if one_way_from is not None:
            buffer.one_way_from = one_way_from
            self.free_one_way -= size
            buffer.spam_suspect = self._flood.took(one_way_from, size, self.free_one_way)
        return buffer

    def free(self, buffer: Buffer) -> None:
        """Give the space back; whatever the buffer held was released before."""
        if buffer is self._latest:
            self._latest = None
        else:
            del self._table[buffer.address]
        if buffer.one_way_from is not None:
            self.free_one_way += buffer.size
            self._flood.freed(buffer.one_way_from, buffer.size)
        self._ranges.free(buffer.offset, buffer.size)

    def free_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield each free range as (offset, size) in bytes."""
        return self._ranges.free_ranges()

    def report_spam_again(self) -> None:
        """The sender never got the latest report of spam; see ``spam.py``."""
        self._flood.report_again()
