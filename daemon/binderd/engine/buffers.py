# SPDX-License-Identifier: Apache-2.0
"""Buffers: the pieces of a process' receive area that transactions are delivered in.

``RangeAllocator`` hands out ranges of a fixed space, best fit, and knows nothing of binder.
``BufferArea`` puts the driver's accounting on top: addresses in the receiver, the one-way half
(B3). Neither ever looks at the bytes: the receiver can write to its own pages.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from errno import EINVAL, ENOSPC
from typing import TYPE_CHECKING

from binderd.engine.errors import BinderFailure
from binderwire.binder_abi import BR_FAILED_REPLY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderd.engine.node import Node
    from binderd.engine.ports import Mapping
    from binderd.engine.transaction import Transaction

_SIZE_MAX = (1 << 64) - 1

# What translated objects hold: (strong?, handle or node).
Held = list[tuple[bool, "int | Node"]]


class RangeAllocator:
    """Best-fit allocation of ranges in ``[0, capacity)``.

    The smallest free range that suffices is split from its low end; neighbours merge when freed.
    Of several equally small ranges the lowest is taken.
    """

    __slots__ = ("_by_size", "_end_of", "_start_of", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._by_size: list[tuple[int, int]] = []  # (size, start), sorted
        self._end_of: dict[int, int] = {}  # free range: start -> end
        self._start_of: dict[int, int] = {}  # free range: end -> start
        if capacity:
            self._add(0, capacity)

    def allocate(self, size: int) -> int | None:
        """Return the start of ``size`` (> 0) units, None if no free range is large enough."""
        index = bisect_left(self._by_size, (size, -1))
        if index == len(self._by_size):
            return None
        found, start = self._by_size.pop(index)
        end = self._end_of.pop(start)
        del self._start_of[end]
        if found > size:
            self._add(start + size, end)
        return start

    def free(self, start: int, size: int) -> None:
        """Give back a range exactly as it was allocated."""
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

    def free_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield each free range as (start, size), in no particular order."""
        for size, start in self._by_size:
            yield start, size

    def _add(self, start: int, end: int) -> None:
        self._end_of[start] = end
        self._start_of[end] = start
        insort(self._by_size, (end - start, start))

    def _remove(self, start: int, end: int) -> None:
        del self._end_of[start]
        del self._start_of[end]
        del self._by_size[bisect_left(self._by_size, (end - start, start))]


class Buffer:
    """One allocated piece; holds references until it is freed."""

    __slots__ = (
        "address",
        "allow_user_free",
        "data_size",
        "held",
        "offset",
        "offsets_size",
        "one_way",
        "size",
        "target_node",
        "transaction",
    )

    def __init__(
        self, address: int, offset: int, size: int, data_size: int, offsets_size: int, one_way: bool
    ) -> None:
        self.address = address  # in the receiver
        self.offset = offset  # bytes from the start of the mapping
        self.size = size  # bytes accounted, a multiple of 8
        self.data_size = data_size
        self.offsets_size = offsets_size
        self.one_way = one_way  # does it count against the one-way half?
        self.allow_user_free = False  # was it delivered and not freed yet? (B5)
        self.transaction: Transaction | None = None
        self.target_node: Node | None = None  # None: a reply
        # Kept here because the receiver could change the objects in its pages.
        self.held: Held | None = None


class BufferArea:
    """A process' receive area: its buffers and what is left.

    Args:
        mapping: where the receiver sees the area.
        count_max: how many buffers there may be at once.
    """

    __slots__ = ("_address", "_count_max", "_ranges", "buffers", "free_one_way", "size")

    def __init__(self, mapping: Mapping, count_max: int) -> None:
        self._address = mapping.address
        self._count_max = count_max
        self._ranges = RangeAllocator(mapping.size & ~7)
        self.size = mapping.size
        self.free_one_way = mapping.size // 2  # bytes that one-way calls may still take
        self.buffers: dict[int, Buffer] = {}  # by address

    def allocate(
        self, data_size: int, offsets_size: int, extra_size: int, *, one_way: bool
    ) -> Buffer:
        """Return a new buffer for the three parts, each rounded up to 8 bytes (B1, B2).

        Raises:
            BinderFailure: -EINVAL for sizes that overflow, -ENOSPC where nothing fits
                (binder_alloc_new_buf).
        """
        size = (data_size + 7 & ~7) + (offsets_size + 7 & ~7) + (extra_size + 7 & ~7) or 8
        if size > _SIZE_MAX:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        if (one_way and size > self.free_one_way) or len(self.buffers) >= self._count_max:
            raise BinderFailure(BR_FAILED_REPLY, -ENOSPC)
        offset = self._ranges.allocate(size)
        if offset is None:
            raise BinderFailure(BR_FAILED_REPLY, -ENOSPC)
        if one_way:
            self.free_one_way -= size
        buffer = Buffer(self._address + offset, offset, size, data_size, offsets_size, one_way)
        self.buffers[buffer.address] = buffer
        return buffer

    def free(self, buffer: Buffer) -> None:
        """Give the space back; whatever the buffer held was released before."""
        del self.buffers[buffer.address]
        if buffer.one_way:
            self.free_one_way += buffer.size
        self._ranges.free(buffer.offset, buffer.size)

    def free_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield each free range as (offset, size) in bytes."""
        return self._ranges.free_ranges()
