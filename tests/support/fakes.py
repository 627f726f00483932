# SPDX-License-Identifier: Apache-2.0
"""The engine's ports over byte arrays: an address space, a receive area, a client.

The fakes are strict: they refuse what the real ports could not do, so that a scenario that passes
here has also shown that the engine keeps to the contract of ``binderd.engine.ports``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.engine.ports import Mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from binderd.engine.ports import ReceiverArena

MAPPING_SIZE_MAX = 4 << 20


class Region:
    """One mapped range of an address space."""

    __slots__ = ("address", "octets", "writable")

    def __init__(self, address: int, octets: bytearray, *, writable: bool) -> None:
        self.address = address
        self.octets = octets
        self.writable = writable


class FakeFile:
    """An open file taken from a sender; implements ``File``."""

    def __init__(self) -> None:
        self.times_closed = 0

    def close(self) -> None:
        self.times_closed += 1


class FakeMemory:
    """An address space; implements ``ClientMemory``."""

    def __init__(self) -> None:
        self.regions: list[Region] = []
        self.nice_value = 0
        self.files: dict[int, FakeFile] = {}

    def map(self, address: int, octets: bytearray, *, writable: bool) -> None:
        self.regions.append(Region(address, octets, writable=writable))

    def unmap(self, address: int) -> None:
        self.regions = [region for region in self.regions if region.address != address]

    def fork(self) -> FakeMemory:
        """Return a copy: private writable memory is copied, the receive area stays shared."""
        child = FakeMemory()
        for region in self.regions:
            octets = bytearray(region.octets) if region.writable else region.octets
            child.map(region.address, octets, writable=region.writable)
        return child

    def _pieces(self, address: int, size: int) -> Iterator[tuple[Region, int, int]]:
        """Yield (region, offset, size) in address order, up to the first hole."""
        while size > 0:
            for region in self.regions:
                offset = address - region.address
                if 0 <= offset < len(region.octets):
                    break
            else:
                return
            piece = min(size, len(region.octets) - offset)
            yield region, offset, piece
            address, size = address + piece, size - piece

    def nice(self) -> int:
        return self.nice_value

    def set_nice(self, nice: int) -> None:
        self.nice_value = nice

    def file(self, fd: int) -> FakeFile | None:
        return self.files.get(fd)

    def read(self, address: int, size: int) -> bytes:
        pieces = self._pieces(address, size)
        return b"".join(bytes(region.octets[at : at + count]) for region, at, count in pieces)

    def write(self, address: int, data: bytes | bytearray) -> bool:
        done = 0
        for region, at, count in self._pieces(address, len(data)):
            if not region.writable:
                return False
            region.octets[at : at + count] = data[done : done + count]
            done += count
        return done == len(data)

    def copy(self, address: int, size: int, arena: ReceiverArena, offset: int) -> bool:
        octets = self.read(address, size)
        arena.write(offset, octets)
        return len(octets) == size

    def scatter(
        self,
        address: int,
        size: int,
        arena: ReceiverArena,
        offset: int,
        holes: Sequence[tuple[int, int]],
    ) -> list[bytes] | None:
        octets = self.read(address, size)
        position, kept = 0, []
        for start, hole_size in holes:
            assert position <= start, "holes overlap or go backwards"
            assert start + hole_size <= size, "a hole sticks out"
            arena.write(offset + position, octets[position:start])
            kept.append(octets[start : start + hole_size])
            position = start + hole_size
        arena.write(offset + position, octets[position:])
        return kept if len(octets) == size else None


class FakeArena:
    """The receive area of one open file; implements ``ReceiverArena``."""

    def __init__(self, memory: FakeMemory, address: int) -> None:
        self._memory = memory
        self._mapping: Mapping | None = None
        self.address = address
        self.octets = bytearray()
        self.times_touched = 0

    def map(self, size: int) -> None:
        """The client calls mmap."""
        self.octets = bytearray(min(size, MAPPING_SIZE_MAX))
        self._memory.map(self.address, self.octets, writable=False)
        self._mapping = Mapping(self.address, len(self.octets))

    def unmap(self) -> None:
        """The client calls munmap."""
        self._memory.unmap(self.address)
        self._mapping = None

    def locate(self) -> Mapping | None:
        return self._mapping

    def write(self, offset: int, data: bytes | bytearray) -> None:
        assert 0 <= offset <= len(self.octets) - len(data), "written outside of the receive area"
        self.octets[offset : offset + len(data)] = data

    def allocated_bytes(self) -> int:
        return 0

    def touched(self) -> None:
        self.times_touched += 1


class FakeClient:
    """The outside half of one open file; implements ``Client``.

    Args:
        memory_of: the memory of a thread id whose request is open right now.
    """

    def __init__(self, arena: FakeArena, memory_of: Callable[[int], FakeMemory]) -> None:
        self.arena: ReceiverArena = arena
        self.nice = 0
        self.is_foreign = False
        self.context: bytes | None = None
        self._memory_of = memory_of

    def forget_thread(self, tid: int) -> None:
        pass

    def pid_of(self, sender: object) -> int:
        raise AssertionError("asked only of a foreign client")

    def uid_of(self, uid: int) -> int:
        raise AssertionError("asked only of a foreign client")

    def security_context(self) -> bytes | None:
        return self.context

    def memory(self, tid: int) -> FakeMemory:
        return self._memory_of(tid)
