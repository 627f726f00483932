# SPDX-License-Identifier: Apache-2.0
"""Reaching the memory of real processes, including places where there is none."""

from __future__ import annotations

import mmap
import os
import signal
from typing import TYPE_CHECKING

import pytest

from binderd.injector import helper
from binderd.linux.maps import FileId
from binderd.linux.proc import process_of
from binderd.memory import client_process
from binderd.memory.memfd_arena import ARENA_SIZE, MemfdArena
from binderd.memory.process_memory import ProcessMemory
from binderd.memory.shrinker import Shrinker
from channel.helpers import ClientProcess, Disposer
from channel.rawclient import anonymous, peek, poke, protect, unmap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

PAGE = mmap.PAGESIZE
NONE = 0


@pytest.fixture
def arena() -> Iterator[MemfdArena]:
    shrinker = Shrinker(lambda: None, lambda process: None)
    space = client_process.AddressSpace(os.getpid(), os.getpid())
    arena = MemfdArena(space, FileId(0, 0, 0), shrinker)
    yield arena
    arena.close()
    space.abandon()


PROCESSES: list[client_process.ClientProcess] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    while PROCESSES:
        PROCESSES.pop().close()


def memory_of(tid: int) -> ProcessMemory:
    PROCESSES.append(client_process.ClientProcess(tid, tid))
    process = PROCESSES[-1]
    return ProcessMemory(tid, tid, process, process.space, Disposer())


@pytest.fixture
def memory() -> ProcessMemory:
    return memory_of(os.getpid())


@pytest.fixture
def place() -> Iterator[int]:
    """Three pages of which the last cannot be used."""
    address = anonymous(3 * PAGE)
    protect(address + 2 * PAGE, PAGE, NONE)
    yield address
    unmap(address, 3 * PAGE)


@pytest.fixture
def sleeper(place: int) -> Iterator[int]:
    """A forked child with the same ``place``, which does nothing."""
    poke(place, b"from before the fork")
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(1)
    poke(place, b"FROM AFTER IT")
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def shown(arena: MemfdArena, offset: int, size: int) -> bytes:
    return os.pread(arena.fd, size, offset)


# read and write


def test_read_and_write_another_process(sleeper: int, place: int) -> None:
    memory = memory_of(sleeper)
    for _ in range(3):  # the first time proves the page
        assert memory.read(place, 20) == b"from before the fork"
    for text in (b"first", b"second", b"third"):
        assert memory.write(place + 100, text)
        assert memory.read(place + 100, len(text)) == text
    assert peek(place + 100, 5) == bytes(5)


def test_read_is_short_where_memory_ends(memory: ProcessMemory, place: int) -> None:
    end = place + 2 * PAGE
    poke(end - 8, b"12345678")
    for _ in range(2):
        assert memory.read(end - 8, 8) == b"12345678"
        assert memory.read(end - 8, 9) == b"12345678"
        assert memory.read(end - 8, 100000) == b"12345678"
        assert memory.read(end, 1) == b""
        assert memory.read(end - 8, 0) == b""
    assert len(memory.read(place, 2 * PAGE)) == 2 * PAGE


def test_nothing_is_read_and_written_anywhere(memory: ProcessMemory, place: int) -> None:
    """Also before anything is known of the process, and at an address that nothing has."""
    for address in (0, place, 0):
        assert memory.read(address, 0) == b""
        assert memory.write(address, b"")


def test_write_fails_where_memory_ends(memory: ProcessMemory, place: int) -> None:
    end = place + 2 * PAGE
    for _ in range(2):
        assert memory.write(end - 4, b"1234")
        assert not memory.write(end - 4, b"12345")
        assert not memory.write(end, b"1")


def test_page_protections_count(memory: ProcessMemory, place: int) -> None:
    protect(place, PAGE, mmap.PROT_READ)
    assert memory.read(place, 4) == bytes(4)
    assert not memory.write(place, b"abcd")
    assert not memory.write(place + PAGE - 2, b"abcd")
    assert memory.write(place + PAGE, b"abcd"), "the next page is writable"
    assert not memory.write(place + PAGE - 2, b"abcd"), "and proves nothing about this one"
    assert memory.read(place + 2 * PAGE, 4) == b""


@pytest.mark.parametrize(
    "address", [0, 1, 1 << 47, (1 << 63) - 1, 1 << 63, 0xFFFFFFFFFF600000, (1 << 64) - 1]
)
@pytest.mark.parametrize("size", [1, 48, 100000])
def test_addresses_that_cannot_be(
    memory: ProcessMemory, arena: MemfdArena, address: int, size: int
) -> None:
    assert memory.read(address, size) == b""
    assert not memory.write(address, bytes(size))
    assert not memory.copy(address, size, arena, 0)
    assert memory.scatter(address, size, arena, 0, [(0, 1)]) is None


def test_memory_that_is_unmapped_meanwhile(memory: ProcessMemory) -> None:
    address = anonymous(PAGE)
    assert memory.read(address, 4) == bytes(4)
    assert memory.write(address, b"1234")
    unmap(address, PAGE)
    assert memory.read(address, 4) == b""
    assert not memory.write(address, b"1234")


def test_large_pieces(memory: ProcessMemory) -> None:
    address = anonymous(1 << 20)
    data = os.urandom(1 << 20)
    assert memory.write(address, data)
    assert memory.write(address, data)
    assert memory.read(address, 1 << 20) == data
    unmap(address, 1 << 20)


def test_threads_of_other_processes_are_reached_the_honest_way(sleeper: int, place: int) -> None:
    memory = ProcessMemory(sleeper, sleeper, None, None, Disposer())
    for text in (b"1st", b"2nd", b"3rd"):
        assert memory.write(place, text)
        assert memory.read(place, 3) == text
    assert (memory.is_openers, memory.sees_area, memory._read_end) == (False, False, -1)


def test_without_a_descriptor_it_still_works(place: int, no_descriptors: Callable[[], Any]) -> None:
    poke(place, b"text")
    memory = memory_of(os.getpid())
    assert memory._opener is not None
    memory._opener.space.memory, kept = -1, memory._opener.space.memory
    with no_descriptors():
        for _ in range(3):
            assert memory.read(place, 4) == b"text"
            assert memory.write(place, b"text")
    memory._opener.space.memory = kept
    for _ in range(2):
        assert memory.read(place, 4) == b"text"
        assert memory.sees_area, "and is asked for again"


def test_a_process_that_is_gone(place: int, arena: MemfdArena) -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    memory = memory_of(pid)
    assert memory.read(place, 4) == bytes(4)
    assert memory.write(place, bytes(4))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert memory.read(place, 4) == b""
    assert not memory.write(place, bytes(4))
    assert not memory.copy(place, 4, arena, 0)


def test_an_exec_brings_new_memory(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "address = anonymous(PAGE); poke(address, b'old text'); say(address); wait_for_line()\n"
        "os.execv(sys.executable, [sys.executable, '-c', '''from rawclient import *\n"
        "address = anonymous(PAGE); poke(address, b'new text'); say(address); wait_for_line()'''])"
    )
    process = ClientProcess(tmp_path, code)
    try:
        address = int(process.line())
        memory = memory_of(process.process.pid)
        assert [memory.read(address, 8) for _ in range(2)] == [b"old text"] * 2
        process.tell()
        address = int(process.line())
        # As if both programs had their buffer in the same place.
        assert memory.sees_area
        memory._read_start, memory._read_end = address, address + PAGE
        memory._write_start, memory._write_end = address, address + PAGE
        memory.is_settled = False
        assert memory.write(address + 8, b"!")
        assert not memory.sees_area
        assert memory._read_end < 0, "nothing is proven of the new program"
        assert [memory.read(address, 9) for _ in range(3)] == [b"new text!"] * 3
    finally:
        process.clean_up()


# copy and scatter


def test_copy_arrives(sleeper: int, place: int, arena: MemfdArena) -> None:
    memory = memory_of(sleeper)
    assert memory.copy(place, 20, arena, 8)
    assert shown(arena, 0, 30) == bytes(8) + b"from before the fork" + bytes(2)
    assert memory.copy(place, 0, arena, 0)
    assert memory.copy(place, 2 * PAGE, arena, ARENA_SIZE - 2 * PAGE)


class Recording:
    """An area of another kind: it notes where bytes go, and passes them on."""

    def __init__(self, arena: MemfdArena) -> None:
        self._arena = arena
        self.noted: list[tuple[int, int]] = []  # (offset, bytes)

    def __getattr__(self, name: str) -> object:
        return getattr(self._arena, name)

    def receive_at(self, offset: int, size: int) -> int:
        self.noted.append((offset, size))
        return self._arena.receive_at(offset, size)


def test_any_kind_of_area_takes_what_is_copied(
    memory: ProcessMemory, place: int, arena: MemfdArena
) -> None:
    recording = Recording(arena)
    poke(place, b"0123456789")
    assert memory.copy(place, 10, recording, 16)
    assert memory.scatter(place, 10, recording, 32, [(2, 3)]) == [b"234"]
    assert recording.noted == [(16, 10), (32, 10)]
    assert shown(arena, 16, 10) == b"0123456789"
    assert shown(arena, 32, 10) == b"01\0\0\x0056789"


def test_copy_fails_where_memory_ends(memory: ProcessMemory, place: int, arena: MemfdArena) -> None:
    assert memory.copy(place, 2 * PAGE, arena, 0)
    assert not memory.copy(place, 2 * PAGE + 1, arena, 0)
    assert not memory.copy(place + 2 * PAGE, 1, arena, 0)


@pytest.mark.parametrize(
    ("offset", "size"),
    [(ARENA_SIZE, 1), (ARENA_SIZE - 3, 4), (-1, 1), (0, ARENA_SIZE + 1), (4, -1)],
)
def test_nothing_is_written_outside_the_arena(
    memory: ProcessMemory, place: int, arena: MemfdArena, offset: int, size: int
) -> None:
    with pytest.raises(IndexError):
        memory.copy(place, size, arena, offset)
    with pytest.raises(IndexError):
        memory.scatter(place, size, arena, offset, [])
    if size >= 0:
        with pytest.raises(IndexError):
            arena.write(offset, bytes(size))


@pytest.mark.parametrize(
    ("size", "holes"),
    [
        (40, []),
        (40, [(0, 40)]),
        (40, [(0, 8), (32, 8)]),
        (40, [(4, 8), (12, 8)]),
        (40, [(4, 0), (4, 4), (40, 0)]),
        (0, []),
        (0, [(0, 0)]),
    ],
)
def test_scatter_keeps_the_holes_away(
    memory: ProcessMemory, place: int, arena: MemfdArena, size: int, holes: list[tuple[int, int]]
) -> None:
    data = bytes(range(1, size + 1))
    poke(place, data)
    assert memory.scatter(place, size, arena, 16, holes) == [
        data[start : start + length] for start, length in holes
    ]
    expected = bytearray(data)
    for start, length in holes:
        expected[start : start + length] = bytes(length)
    assert shown(arena, 16, size) == expected


@pytest.mark.parametrize("count", [511, 512, 513, 2000, 5000])
def test_scatter_with_more_pieces_than_one_call_takes(
    memory: ProcessMemory, arena: MemfdArena, count: int
) -> None:
    size = count * 32
    address = anonymous(size)
    data = os.urandom(size)
    poke(address, data)
    holes = [(at, 24) for at in range(8, size, 32)]
    pieces = memory.scatter(address, size, arena, 0, holes)
    assert pieces == [data[start : start + length] for start, length in holes]
    got = shown(arena, 0, size)
    assert all(got[at : at + 8] == data[at : at + 8] for at in range(0, size, 32))
    assert all(got[at : at + 24] == bytes(24) for at in range(8, size, 32))
    unmap(address, size)


def test_scatter_fails_where_memory_ends(
    memory: ProcessMemory, place: int, arena: MemfdArena
) -> None:
    assert memory.scatter(place, 2 * PAGE, arena, 0, [(2 * PAGE - 4, 4)]) == [bytes(4)]
    assert memory.scatter(place, 2 * PAGE + 1, arena, 0, [(2 * PAGE - 4, 5)]) is None
    holes = [(at, 1) for at in range(0, 3 * PAGE, 4)]
    assert memory.scatter(place, 3 * PAGE, arena, 0, holes) is None


# /proc


def test_whose_thread_is_it(sleeper: int) -> None:
    assert process_of(sleeper) == sleeper
    process = client_process.ClientProcess(os.getpid(), os.getpid())
    assert process.has(os.getpid())
    assert not process.has(sleeper)
    process.close()
    with pytest.raises(ProcessLookupError):
        process_of((1 << 31) - 1)
    with pytest.raises(ProcessLookupError):
        client_process.ClientProcess((1 << 31) - 1, (1 << 31) - 1)


def test_a_thread_that_cannot_be_asked_about_is_not_let_go(
    sleeper: int, no_descriptors: Callable[[], Any]
) -> None:
    assert not helper._is_traced(sleeper)
    with no_descriptors():
        assert helper._is_traced(sleeper)
    assert not helper._is_traced((1 << 31) - 1)
