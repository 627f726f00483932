# SPDX-License-Identifier: Apache-2.0
"""The engine's ports over byte arrays: an address space, a receive area, a client.

The fakes are strict: they refuse what the real ports could not do, so that a scenario that passes
here has also shown that the engine keeps to the contract of ``binderd.engine.ports``.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from binderclient.testing.ports import spread
from binderd.engine.ports import GONE, REFUSED, SENT, STOPPING, Mapping, NoAnswer, NotYet, Room
from support.playbook import GUEST_UID, GUEST_USERS, NO_UID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from binderd.engine.ports import Client, File, ReceiverArena
    from support.engine_world import Program

MAPPING_SIZE_MAX = 4 << 20
ROOM_MIN = 76  # bytes of a read buffer that are free when a transaction is taken


class Region:
    """One mapped range of an address space."""

    __slots__ = ("address", "octets", "writable")

    def __init__(self, address: int, octets: bytearray, *, writable: bool) -> None:
        self.address = address
        self.octets = octets
        self.writable = writable


class Description:
    """An open file, which any number of descriptors may stand for."""

    def __init__(self, *, usable: bool = True, nonblocking: bool = False) -> None:
        self.usable = usable  # no O_PATH
        self.nonblocking = nonblocking


class FakeFile:
    """An open file taken from a sender; implements ``File``."""

    def __init__(self, description: Description) -> None:
        self.description = description
        self.times_closed = 0

    def close(self) -> None:
        self.times_closed += 1


class FakeMemory:
    """An address space, and the descriptors that go with it."""

    def __init__(self) -> None:
        self.regions: list[Region] = []
        self.descriptors = {number: Description() for number in range(3)}
        self.close_on_exec: set[int] = set()
        self.number_end = 1 << 16  # RLIMIT_NOFILE
        self.taken: list[FakeFile] = []  # what the engine was given

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
        child.descriptors = dict(self.descriptors)
        child.close_on_exec = set(self.close_on_exec)
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

    def lowest_number(self) -> int:
        return next(number for number in range(1 << 16) if number not in self.descriptors)

    def open_file(self, description: Description) -> int:
        fd = self.lowest_number()
        self.descriptors[fd] = description
        return fd

    def close_file(self, fd: int) -> None:
        self.descriptors.pop(fd, None)
        self.close_on_exec.discard(fd)

    def run_out(self) -> None:
        """Make the lowest free number the first that is not allowed."""
        self.number_end = self.lowest_number()

    def receive(self, files: Sequence[FakeFile]) -> list[int] | None:
        """Give each file the lowest free number; None and nothing if one can have none."""
        numbers: list[int] = []
        for file in files:
            assert not file.times_closed, "a file that was let go of already"
            number = self.lowest_number()
            if number >= self.number_end:
                for taken in numbers:
                    self.close_file(taken)
                return None
            self.descriptors[number] = file.description
            self.close_on_exec.add(number)
            numbers.append(number)
        return numbers

    def file(self, fd: int) -> FakeFile | None:
        description = self.descriptors.get(fd)
        if description is None or not description.usable:
            return None
        self.taken.append(FakeFile(description))
        return self.taken[-1]

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
        position = 0
        for start, hole_size in holes:
            assert position <= start, "holes overlap or go backwards"
            assert start + hole_size <= size, "a hole sticks out"
            position = start + hole_size
        kept = spread(octets, holes, arena, offset)
        return kept if len(octets) == size else None


class FakeThread:
    """One thread of an address space; implements ``ClientMemory``.

    Args:
        area: of the file that it uses, None if it is not of the process that has opened that.
    """

    def __init__(self, memory: FakeMemory, pid: int, nice: int, area: FakeArena | None) -> None:
        self.pid = pid
        self.area = area
        self.read = self.read_commands = memory.read
        self.write = memory.write
        self.copy = memory.copy
        self.scatter = memory.scatter
        self.file = memory.file
        self._nice = nice

    def missing(self, ranges: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        assert all(size > 0 for _, size in ranges)
        return ()

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        assert all(size > 0 for _, size in ranges)

    def is_there(self) -> bool:
        """It has a request open, so it is."""
        return True

    def be_present(self) -> None:
        """It has a request open, so it is."""

    def forget(self) -> None:
        pass

    def entered(self) -> None:
        pass

    @property
    def is_openers(self) -> bool:
        return self.area is not None

    @property
    def sees_area(self) -> bool:
        return self.area is not None and self.area.alive

    def nice(self) -> int:
        return self._nice

    def set_nice(self, nice: int) -> None:
        assert -20 <= nice <= 19
        self._nice = nice


class FakeFetch:
    """A fetch; a test says when it is over."""

    ticket = 0

    def begin(self, ticket: int) -> bool:
        self.ticket = ticket
        return True


class FakeArena:
    """The receive area of one open file; implements ``ReceiverArena``."""

    is_private = False  # see ``make_private``

    def __init__(self, memory: FakeMemory, address: int) -> None:
        self._memory = memory
        self._mapping: Mapping | None = None
        self.address = address
        self.octets = bytearray()
        self.times_touched = 0
        self.alive = True  # is the program still there that opened the file?
        self.times_asked = 0
        self.answers = True  # or is there no descriptor left to ask with?

    def map(self, size: int) -> None:
        """The client calls mmap."""
        self.octets = bytearray(min(size, MAPPING_SIZE_MAX))
        self._memory.map(self.address, self.octets, writable=False)
        self._mapping = Mapping(self.address, len(self.octets))

    def unmap(self) -> None:
        """The client calls munmap."""
        self._memory.unmap(self.address)
        self._mapping = None

    def lose(self) -> None:
        """The client runs another program."""
        self.unmap()
        self.alive = False

    def locate(self) -> Mapping | None:
        self._ask()
        return self._mapping

    def is_alive(self) -> bool:
        self._ask()
        return self.alive

    def _ask(self) -> None:
        self.times_asked += 1
        if not self.answers:
            raise NoAnswer

    def make_private(self, *outcomes: str) -> None:
        """From now on the client sees what is brought to it, and no more.

        Args:
            outcomes: of the next attempts to bring something: late (a fetch, which brings it),
                never (one that does not), refused or unknown; then all goes well.
        """
        self.is_private = True
        self.staged = bytearray(len(self.octets))
        self.outcomes = list(outcomes)
        self.fetches: list[FakeFetch] = []

    def write(self, offset: int, data: bytes | bytearray) -> None:
        assert 0 <= offset <= len(self.octets) - len(data), "written outside of the receive area"
        target = self.staged if self.is_private else self.octets
        target[offset : offset + len(data)] = data

    def receive_at(self, offset: int, size: int) -> int:
        assert 0 <= offset <= len(self.octets) - size, "received outside of the receive area"
        target = self.staged if self.is_private else self.octets
        return ctypes.addressof(ctypes.c_char.from_buffer(target, offset))

    def bring(self, offset: int, size: int) -> bool:
        assert self.is_private, "it is there already"
        outcome = self.outcomes.pop(0) if self.outcomes else ""
        if outcome == "unknown":
            raise NoAnswer
        if outcome in ("late", "never"):
            self.outcomes.insert(0, "" if outcome == "late" else "refused")
            self.fetches.append(FakeFetch())
            raise NotYet(self.fetches[-1])
        if not outcome:
            self.octets[offset : offset + size] = self.staged[offset : offset + size]
        return not outcome

    def forget(self, offset: int) -> None:
        assert self.is_private, "nothing was brought"

    def touched(self) -> None:
        self.times_touched += 1

    def allocated_bytes(self) -> int:
        return 0  # where the bytes are is no page of anybody's


class FakeClient:
    """The outside half of one open file; implements ``Client``.

    Args:
        program: the opener.
        thread_of: the thread of a thread id whose request is open right now.
        install: what ``install`` and ``close_descriptors`` do: with files, with descriptors.
    """

    def __init__(
        self,
        program: Program,
        arena: FakeArena,
        thread_of: Callable[[int], FakeThread],
        install: Callable[[int, int, list[FakeFile], list[int], Room], int],
    ) -> None:
        self._install = install
        self.arena: ReceiverArena = arena
        self.program = program
        self.nice = program.nice
        self.payer = self.euid = program.uid
        self.is_foreign = program.is_guest
        self._thread_of = thread_of

    def forget_thread(self, tid: int) -> None:
        pass

    def pid_of(self, sender: Client) -> int:
        assert isinstance(sender, FakeClient)
        assert self.program.is_guest, "asked only of a foreign client"
        return sender.program.own_pid if sender.program.is_guest else 0

    def uid_of(self, uid: int) -> int:
        assert self.program.is_guest, "asked only of a foreign client"
        inside = uid - GUEST_UID
        return inside if 0 <= inside < GUEST_USERS else NO_UID

    def user(self) -> int:
        return self.program.uid if self.program.alive else GONE

    def shares_opener(self, other: Client) -> bool:
        assert isinstance(other, FakeClient)
        return other.program is self.program

    def security_context(self) -> bytes | None:
        context = self.program.context
        return None if context is None else context + b"\0"

    def memory(self, tid: int) -> FakeThread:
        return self._thread_of(tid)

    def install(self, tid: int, number: int, files: Sequence[File], room: Room) -> int:
        assert files
        assert room.size >= ROOM_MIN, "less room than the driver leaves (R2)"
        known = [file for file in files if isinstance(file, FakeFile)]
        assert len(known) == len(files)
        return self._begin(tid, number, known, [], room)

    def close_descriptors(self, tid: int, number: int, numbers: Sequence[int]) -> int:
        assert numbers
        return self._begin(tid, number, [], list(numbers), Room(0, 0))

    def _begin(
        self, tid: int, number: int, files: list[FakeFile], closes: list[int], room: Room
    ) -> int:
        started = self._install(tid, number, files, closes, room)
        assert started in {REFUSED, STOPPING, SENT}
        return started

    def cancel_install(self, number: int) -> None:
        pass
