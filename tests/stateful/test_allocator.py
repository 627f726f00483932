# SPDX-License-Identifier: Apache-2.0
"""The allocator of receive areas against a model that looks at every cell (B1, B3)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from binderd.engine.buffers import Buffer, BufferArea, RangeAllocator
from binderd.engine.errors import BinderFailure
from binderd.engine.ports import Mapping

CAPACITY = 40
ADDRESS = 0x7000_0000_0000
BUFFERS_MAX = 7

SENDER = 100  # whose one-way calls they are


class Cells:
    """A space as a row of cells, each free or not."""

    def __init__(self, capacity: int) -> None:
        self.used = [False] * capacity

    def free_runs(self) -> list[tuple[int, int]]:
        """Return (start, size) of each run of free cells that has no free neighbour."""
        runs, position = [], 0
        for used, group in itertools.groupby(self.used):
            size = len(list(group))
            if not used:
                runs.append((position, size))
            position += size
        return runs

    def best_fit(self, size: int) -> int | None:
        """Return where the smallest sufficient run starts; the lowest of several."""
        runs = [(found, start) for start, found in self.free_runs() if found >= size]
        return min(runs)[1] if runs else None

    def mark(self, start: int, size: int, *, used: bool) -> None:
        for cell in range(start, start + size):
            assert self.used[cell] is not used
            self.used[cell] = used


class Allocator(RuleBasedStateMachine):
    """RangeAllocator beside the cells."""

    ranges = Bundle("ranges")

    def __init__(self) -> None:
        super().__init__()
        self.allocator = RangeAllocator(CAPACITY)
        self.cells = Cells(CAPACITY)

    @rule(target=ranges, size=st.integers(1, CAPACITY + 2))
    def allocate(self, size: int) -> tuple[int, int] | None:
        expected = self.cells.best_fit(size)
        assert self.allocator.allocate(size) == expected
        if expected is None:
            return None
        self.cells.mark(expected, size, used=True)
        return expected, size

    @rule(taken=consumes(ranges))
    def free(self, taken: tuple[int, int] | None) -> None:
        if taken is not None:
            self.allocator.free(*taken)
            self.cells.mark(*taken, used=False)

    @invariant()
    def same_free_ranges(self) -> None:
        assert sorted(self.allocator.free_ranges()) == self.cells.free_runs()


@given(st.lists(st.tuples(st.integers(1, CAPACITY // 3), st.integers(0, 3)), max_size=60))
def test_nobody_looks_meanwhile(steps: list[tuple[int, int]]) -> None:
    """What is given back last and asked for at once needs no look: it is the same all the same."""
    allocator, cells = RangeAllocator(CAPACITY), Cells(CAPACITY)
    taken: list[tuple[int, int]] = []
    for size, back in steps:
        if back and len(taken) >= back:
            start, length = taken.pop(-back)
            allocator.free(start, length)
            cells.mark(start, length, used=False)
        found = allocator.allocate(size)
        assert found == cells.best_fit(size)
        if found is not None:
            cells.mark(found, size, used=True)
            taken.append((found, size))
    assert sorted(allocator.free_ranges()) == cells.free_runs()


class Area(RuleBasedStateMachine):
    """BufferArea: sizes rounded up to 8, the one-way half, the limit of buffers."""

    buffers = Bundle("buffers")

    def __init__(self) -> None:
        super().__init__()
        self.area = BufferArea(Mapping(ADDRESS, CAPACITY * 8), BUFFERS_MAX)
        self.cells = Cells(CAPACITY)
        self.one_way_left = CAPACITY // 2
        self.allocated: dict[int, Buffer] = {}  # asking the area itself has it tidy up

    @rule(
        target=buffers,
        data_size=st.integers(0, 100),
        offsets_size=st.sampled_from([0, 8, 16]),
        extra_size=st.sampled_from([0, 1, 24]),
        one_way=st.booleans(),
    )
    def allocate(
        self, data_size: int, offsets_size: int, extra_size: int, *, one_way: bool
    ) -> object:
        cells = sum(-(-size // 8) for size in (data_size, offsets_size, extra_size)) or 1
        start = self.cells.best_fit(cells)
        full = len(self.allocated) == BUFFERS_MAX
        if start is None or full or (one_way and cells > self.one_way_left):
            with pytest.raises(BinderFailure):
                self.area.allocate(
                    (data_size, offsets_size, extra_size, 0), SENDER if one_way else None
                )
            return None
        buffer = self.area.allocate(
            (data_size, offsets_size, extra_size, 0), SENDER if one_way else None
        )
        assert buffer.address == ADDRESS + start * 8
        assert (buffer.size, buffer.one_way_from) == (cells * 8, SENDER if one_way else None)
        assert not buffer.allow_user_free
        self.cells.mark(start, cells, used=True)
        self.one_way_left -= cells if one_way else 0
        self.allocated[buffer.address] = buffer
        return buffer

    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        if not self.allocated:
            return
        address = data.draw(st.sampled_from(list(reversed(self.allocated))))
        buffer = self.allocated.pop(address)
        assert self.area.find(address) is buffer
        self.area.free(buffer)
        assert self.area.find(address) is None
        self.cells.mark(buffer.offset // 8, buffer.size // 8, used=False)
        self.one_way_left += buffer.size // 8 if buffer.one_way_from is not None else 0

    @rule(size=st.sampled_from([1 << 63, (1 << 64) - 1]))
    def refuse(self, size: int) -> None:
        with pytest.raises(BinderFailure):
            self.area.allocate((size, size, 0, 0), None)

    @rule()
    def look(self) -> None:
        assert list(self.area.buffers.items()) == list(self.allocated.items())

    @invariant()
    def same_free_ranges(self) -> None:
        assert self.area.count() == len(self.allocated)
        runs = [(start * 8, size * 8) for start, size in self.cells.free_runs()]
        assert sorted(self.area.free_ranges()) == runs
        assert self.area.free_one_way == self.one_way_left * 8


effort = settings(max_examples=150, stateful_step_count=60)
TestAllocator = Allocator.TestCase
TestAllocator.settings = effort
TestArea = Area.TestCase
TestArea.settings = effort
