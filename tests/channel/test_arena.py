# SPDX-License-Identifier: Apache-2.0
"""Receive arenas: finding the client's mapping, giving pages back, nobody resizing them."""

from __future__ import annotations

import errno
import mmap
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from binderd.engine.ports import Mapping, NoAnswer
from binderd.linux import maps as linux_maps
from binderd.linux.maps import Area, FileId, Long, find_first, is_mapped, parse_areas
from binderd.memory.client_process import AddressSpace
from binderd.memory.memfd_arena import ARENA_SIZE, MemfdArena
from binderd.memory.shrinker import Shrinker
from channel.helpers import FakeEngine, FakeProcess
from channel.rawclient import anonymous, map_file, peek, protect, unmap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = mmap.PAGESIZE


class Front:
    """A file that stands for the device file: its mapping is what ``locate`` looks for."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(self.fd, 2 * ARENA_SIZE)
        status = os.fstat(self.fd)
        self.id = FileId(os.major(status.st_dev), os.minor(status.st_dev), status.st_ino)
        self.areas: list[tuple[int, int]] = []

    def map(self, size: int, offset: int = 0) -> int:
        address = map_file(self.fd, size, offset)
        self.areas.append((address, size))
        return address

    def unmap(self, address: int, size: int) -> None:
        """Unmap a part of an area, for good: what comes to lie there later is not ours."""
        unmap(address, size)
        (area,) = [one for one in self.areas if one[0] <= address < sum(one)]
        self.areas.remove(area)
        pieces = (area[0], address - area[0]), (address + size, sum(area) - address - size)
        self.areas.extend(piece for piece in pieces if piece[1])

    def close(self) -> None:
        for address, size in self.areas:
            unmap(address, size)
        os.close(self.fd)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    front = Front(tmp_path / "front")
    yield front
    front.close()


class Watcher:
    """Notes what an ``Shrinker`` reports."""

    def __init__(self) -> None:
        self.wakes = 0
        self.unmapped: list[object] = []
        self.shrinker = Shrinker(self._wake, self.unmapped.append)

    def _wake(self) -> None:
        self.wakes += 1


def adopt(arena: MemfdArena) -> FakeProcess:
    """Have the engine know of an arena."""
    process = FakeProcess(None)
    arena.engine, arena.open_file = FakeEngine(), process
    return process


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def arena(front: Front, watcher: Watcher) -> Iterator[MemfdArena]:
    space = AddressSpace(os.getpid(), os.getpid())
    arena = MemfdArena(space, front.id, watcher.shrinker)
    yield arena
    if arena.fd >= 0:
        arena.close()
    space.abandon()


@pytest.fixture
def maps() -> Iterator[int]:
    with open("/proc/self/maps", "rb") as maps:
        yield maps.fileno()


# locate


@pytest.fixture(params=["query", "text"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to read a process' mappings."""
    if request.param == "text":

        def refuse(*_: object) -> int:
            raise OSError(errno.ENOTTY, "before Linux 6.11")

        monkeypatch.setattr(linux_maps.fcntl, "ioctl", refuse)
    return request.param


@pytest.mark.usefixtures("way")
def test_locate_finds_the_mapping(front: Front, arena: MemfdArena, maps: int) -> None:
    assert find_first(maps, [front.id]) is None
    address = front.map(64 * PAGE)
    assert arena.locate() == Mapping(address, 64 * PAGE)


@pytest.mark.usefixtures("way")
def test_a_split_mapping_counts_as_one(front: Front, arena: MemfdArena, maps: int) -> None:
    address = front.map(64 * PAGE)
    protect(address + 8 * PAGE, PAGE, 0)
    protect(address + 63 * PAGE, PAGE, 0)
    assert find_first(maps, [front.id]) == (0, Area(address, address + 64 * PAGE, 0))
    front.unmap(address + 32 * PAGE, PAGE)
    assert arena.locate() == Mapping(address, 32 * PAGE)


@pytest.mark.usefixtures("way")
def test_mappings_of_no_file_count_as_well(front: Front, maps: int) -> None:
    """The kernel could skip them, but all in one go, however long that takes it."""
    pages = 200
    others = anonymous(pages * PAGE)
    for page in range(0, pages, 2):
        protect(others + page * PAGE, PAGE, mmap.PROT_READ)
    address = front.map(PAGE)  # below them
    assert find_first(maps, [front.id], 1 << 16) == (0, Area(address, address + PAGE, 0))
    with pytest.raises(Long):
        find_first(maps, [front.id._replace(inode=1)], pages)
    unmap(others, pages * PAGE)


@pytest.mark.usefixtures("way")
def test_a_mapping_that_goes_on_elsewhere_in_the_file(front: Front, maps: int) -> None:
    whole = front.map(32 * PAGE)
    # The second half shows the file from its start again.
    flags = mmap.MAP_PRIVATE | 0x10  # MAP_FIXED
    map_over(whole + 16 * PAGE, 16 * PAGE, front.fd, flags)
    assert find_first(maps, [front.id]) == (0, Area(whole, whole + 16 * PAGE, 0))


def map_over(address: int, size: int, fd: int, flags: int) -> None:
    from channel.rawclient import _libc

    assert _libc.mmap(address, size, mmap.PROT_READ, flags, fd, 0) == address


@pytest.mark.usefixtures("way")
def test_a_mapping_is_capped_as_the_driver_does(front: Front, arena: MemfdArena) -> None:
    address = front.map(2 * ARENA_SIZE)
    assert arena.locate() == Mapping(address, ARENA_SIZE)


@pytest.mark.usefixtures("way")
def test_a_file_offset_shifts_the_pages(front: Front, arena: MemfdArena) -> None:
    address = front.map(2 * ARENA_SIZE - 4 * PAGE, 4 * PAGE)
    assert arena.locate() == Mapping(address, ARENA_SIZE - 4 * PAGE)
    arena.write(1, b"text")
    assert os.pread(arena.fd, 4, 4 * PAGE + 1) == b"text"
    assert peek(arena.receive_at(1, 4), 4) == b"text"
    arena.write(ARENA_SIZE - 4 * PAGE - 1, b"e")
    with pytest.raises(IndexError):
        arena.write(ARENA_SIZE - 4 * PAGE, b"e")
    arena.trim([(0, PAGE)])
    assert os.pread(arena.fd, 4, 4 * PAGE + 1) == bytes(4)
    assert arena.locate() == Mapping(address, ARENA_SIZE - 4 * PAGE), "and it stays so"


def test_a_mapping_behind_the_end_of_the_pages(front: Front, arena: MemfdArena) -> None:
    front.map(PAGE, ARENA_SIZE)
    assert arena.locate() is None


@pytest.mark.usefixtures("way")
def test_is_mapped(front: Front, maps: int) -> None:
    address = front.map(4 * PAGE)
    assert is_mapped(maps, front.id, address)
    assert is_mapped(maps, front.id, address + 4 * PAGE - 1)
    assert not is_mapped(maps, front.id, address + 4 * PAGE)
    assert not is_mapped(maps, front.id._replace(inode=1), address)
    front.unmap(address, PAGE)
    assert not is_mapped(maps, front.id, address)


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A forked child, which does nothing."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(1)
    yield pid
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.usefixtures("way")
def test_a_process_that_is_gone(front: Front, watcher: Watcher, sleeper: int) -> None:
    space = AddressSpace(sleeper, sleeper)
    arena = MemfdArena(space, front.id, watcher.shrinker)
    assert arena.is_alive()
    os.kill(sleeper, signal.SIGKILL)
    os.waitpid(sleeper, 0)
    assert not arena.is_alive()
    assert arena.locate() is None
    process = adopt(arena)
    process.mapping = Mapping(1 << 30, PAGE)
    assert not arena.is_still_mapped()
    arena.close()
    space.abandon()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.EPERM])
def test_who_cannot_ask_knows_nothing(
    front: Front, arena: MemfdArena, watcher: Watcher, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    front.map(4 * PAGE)
    process = adopt(arena)
    process.mapping = arena.locate()

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(linux_maps.fcntl, "ioctl", refuse)
        with pytest.raises(NoAnswer):
            arena.locate()
        with pytest.raises(NoAnswer):
            arena.is_alive()
        arena.write(0, b"x")
        for _ in range(4):
            watcher.shrinker.tick()
        assert watcher.unmapped == []
    assert arena.is_alive()
    assert arena.locate() == process.mapping


def test_names_do_not_disturb_the_text(front: Front, tmp_path: Path) -> None:
    awkward = Front(tmp_path / "a b\n1-2 r--p 0 0:0 3 c")
    address = awkward.map(PAGE)
    with open("/proc/self/maps", "rb") as maps:
        areas = [area for file, area in parse_areas(maps.fileno()) if file == awkward.id]
        assert areas == [Area(address, address + PAGE, 0)]
    awkward.close()


# The pages


def test_the_pages_cannot_be_resized(arena: MemfdArena) -> None:
    for size in (0, ARENA_SIZE - PAGE, ARENA_SIZE + PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fd, size)
    with pytest.raises(PermissionError):
        os.pwrite(arena.fd, b"x", ARENA_SIZE)


def test_trim_gives_whole_free_pages_back(arena: MemfdArena) -> None:
    assert arena.allocated_bytes() == 0
    arena.write(0, b"x" * (4 * PAGE))
    assert arena.allocated_bytes() == 4 * PAGE
    arena.trim([(8, PAGE - 8), (PAGE + 1, 2 * PAGE - 2)])
    assert arena.allocated_bytes() == 4 * PAGE, "no range holds a whole page"
    arena.trim([(8, 2 * PAGE)])
    assert arena.allocated_bytes() == 3 * PAGE
    assert os.pread(arena.fd, 4 * PAGE, 0) == b"x" * PAGE + bytes(PAGE) + b"x" * (2 * PAGE)
    arena.trim([(0, ARENA_SIZE)])
    assert arena.allocated_bytes() == 0
    arena.write(0, b"again")
    assert os.pread(arena.fd, 5, 0) == b"again"


def test_a_closed_arena_takes_nothing(arena: MemfdArena) -> None:
    arena.close()
    with pytest.raises(IndexError):
        arena.write(0, b"x")
    with pytest.raises(IndexError):
        arena.receive_at(0, 0)


# Shrinker


def test_a_quiet_arena_gives_its_pages_back(arena: MemfdArena, watcher: Watcher) -> None:
    adopt(arena)
    shrinker = watcher.shrinker
    assert shrinker.is_idle
    arena.write(0, b"x")
    assert (watcher.wakes, shrinker.is_idle) == (1, False)
    shrinker.tick()
    arena.touched()
    shrinker.tick()
    assert arena.allocated_bytes() == PAGE, "something happened since the tick before"
    shrinker.tick()
    assert arena.allocated_bytes() == 0
    assert shrinker.is_idle
    arena.touched()
    assert (watcher.wakes, shrinker.is_idle) == (2, False)


def test_a_mapping_that_is_gone_is_reported(
    front: Front, arena: MemfdArena, watcher: Watcher
) -> None:
    process = adopt(arena)
    address = front.map(4 * PAGE)
    process.mapping = arena.locate()
    arena.write(0, b"x")
    for _ in range(4):
        watcher.shrinker.tick()
    assert watcher.unmapped == []
    arena.touched()
    front.unmap(address, 4 * PAGE)
    for _ in range(2):
        watcher.shrinker.tick()
    assert watcher.unmapped == [process]


def test_a_closed_arena_is_forgotten(arena: MemfdArena, watcher: Watcher) -> None:
    adopt(arena)
    arena.write(0, b"x")
    arena.close()
    assert watcher.shrinker.is_idle
    watcher.shrinker.tick()
