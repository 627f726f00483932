# SPDX-License-Identifier: Apache-2.0
"""Payloads that are read along with the commands, as they are where the latest ones were.

Whether that was right or wrong, what arrives is what the sender has there.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING

import pytest

from binderd.edge.plain import AHEAD_MAX
from binderd.engine.ports import NotYet
from binderd.memory import client_process
from binderd.memory.memfd_arena import ARENA_SIZE, MemfdArena
from binderd.memory.presence import GENERATION, Presence, Trust
from binderd.memory.process_memory import ProcessMemory
from binderd.memory.shrinker import Shrinker
from channel.helpers import Disposer
from channel.rawclient import anonymous, poke, protect, unmap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderd.memory.remote_access import RemoteAccess

PAGE = mmap.PAGESIZE
NONE = 0
COMMANDS = bytes(range(80))
PAYLOAD = b"sixteen bytes..."
OTHER = b"something else.."


class NoWorkers:
    """Workers of which none is to be had (the port ``Workers``)."""

    def begin(self, access: RemoteAccess, ticket: int) -> bool:
        return False


class Sender:
    """A thread of ours that sends: its commands are in a page of their own, and stay there.

    Args:
        process: ours.
        arena: what it sends to.
    """

    def __init__(self, process: client_process.ClientProcess, arena: MemfdArena) -> None:
        pid = os.getpid()
        workers = NoWorkers()
        self.memory = ProcessMemory(pid, pid, process, process.space, Disposer(), workers)
        self.commands = anonymous(PAGE)
        self._arena = arena
        poke(self.commands, COMMANDS)

    def begin(self, commands: bytes = COMMANDS) -> bool:
        """Begin a request; return whether anything has come along with its commands."""
        self.memory.entered()
        assert self.memory.read_commands(self.commands, len(commands)) == commands
        return self.memory._has_ahead

    def copy(self, address: int, size: int) -> bytes | None:
        """Have a payload copied; return what has arrived, None if it could not be read."""
        self._arena.write(0, bytes(AHEAD_MAX))
        if not self.memory.copy(address, size, self._arena, 8):
            return None
        return os.pread(self._arena.fd, size, 8)

    def send(self, address: int, size: int) -> bytes | None:
        """Send that in a request."""
        self.begin()
        return self.copy(address, size)


@pytest.fixture
def arena() -> Iterator[MemfdArena]:
    space = client_process.AddressSpace(os.getpid(), os.getpid())
    arena = MemfdArena(space, None, Shrinker(lambda: None, lambda process: None))
    yield arena
    arena.close()
    space.abandon()


@pytest.fixture
def process() -> Iterator[client_process.ClientProcess]:
    process = client_process.ClientProcess(os.getpid(), os.getpid())
    process.presence = Presence(Trust())
    yield process
    process.close()


@pytest.fixture
def place() -> Iterator[int]:
    """Two pages with a payload at their beginning, and nothing behind them."""
    address = anonymous(3 * PAGE)
    unmap(address + 2 * PAGE, PAGE)
    poke(address, bytes(2 * PAGE))
    poke(address, PAYLOAD)
    yield address
    unmap(address, 2 * PAGE)


@pytest.fixture
def sender(
    process: client_process.ClientProcess, arena: MemfdArena, place: int
) -> Iterator[Sender]:
    """One that sends again and again what is at ``place``."""
    sender = Sender(process, arena)
    for _ in range(2):
        assert not sender.begin(), "nothing is known yet"
        assert sender.copy(place, 16) == PAYLOAD
    yield sender
    unmap(sender.commands, PAGE)


def test_what_is_where_it_always_was_comes_along(sender: Sender, place: int) -> None:
    for text in (PAYLOAD, OTHER, PAYLOAD):
        poke(place, text)
        assert sender.begin()
        poke(place, bytes(16))  # too late
        assert sender.copy(place, 16) == text


def test_each_comes_along_once(sender: Sender, place: int) -> None:
    assert sender.begin()
    poke(place, OTHER)
    assert sender.copy(place, 16) == PAYLOAD
    assert sender.copy(place, 16) == OTHER


def test_what_has_moved(sender: Sender, place: int) -> None:
    poke(place + 100, OTHER)
    assert sender.begin()
    assert sender.copy(place + 100, 16) == OTHER
    assert not sender.begin(), "it may be anywhere now"
    assert sender.copy(place, 16) == PAYLOAD
    assert not sender.begin()
    assert sender.copy(place, 16) == PAYLOAD
    assert sender.begin(), "it is where it was again"


@pytest.mark.parametrize("size", [1, 15, 17, 100, AHEAD_MAX])
def test_what_has_shrunk_or_grown(sender: Sender, place: int, size: int) -> None:
    for _ in range(3):
        assert sender.begin()
        assert sender.copy(place, size) == (PAYLOAD + bytes(size))[:size]
        assert sender.send(place, 16) == PAYLOAD


def test_large_payloads_do_not_come_along(sender: Sender, place: int) -> None:
    for _ in range(3):
        assert sender.send(place, AHEAD_MAX + 1) == PAYLOAD + bytes(AHEAD_MAX - 15)
    assert not sender.begin()


def test_a_payload_that_ends_where_memory_ends(sender: Sender, place: int) -> None:
    last = place + 2 * PAGE - 16
    poke(last, OTHER)
    for _ in range(3):
        assert sender.send(last, 16) == OTHER
    assert sender.begin()
    assert sender.copy(last, 17) is None
    assert sender.send(last, 16) == OTHER


def test_a_payload_that_is_unmapped(sender: Sender, place: int) -> None:
    extra = anonymous(PAGE)
    poke(extra, OTHER)
    for _ in range(3):
        assert sender.send(extra, 16) == OTHER
    unmap(extra, PAGE)
    for _ in range(3):
        assert sender.send(extra, 16) is None
    assert sender.send(place, 16) == PAYLOAD


def test_a_payload_that_may_not_be_read(sender: Sender, place: int) -> None:
    protect(place, PAGE, NONE)
    assert sender.send(place, 16) is None
    protect(place, PAGE, mmap.PROT_READ)
    assert sender.send(place, 16) == PAYLOAD


def test_commands_that_end_early(sender: Sender, place: int) -> None:
    """What is behind them is nobody's commands."""
    end = sender.commands + PAGE
    unmap(end - PAGE, PAGE)
    assert sender.memory.read_commands(sender.commands, len(COMMANDS)) == b""
    assert sender.copy(place, 16) == PAYLOAD
    sender.commands = anonymous(PAGE)


def test_few_commands_bring_nothing_along(sender: Sender) -> None:
    assert not sender.begin(COMMANDS[:12])


def test_what_came_along_is_of_that_request_only(sender: Sender, place: int) -> None:
    assert sender.begin()
    sender.memory.entered()
    poke(place, OTHER)
    assert sender.copy(place, 16) == OTHER


def test_each_thread_has_its_own(
    sender: Sender, process: client_process.ClientProcess, arena: MemfdArena, place: int
) -> None:
    another = Sender(process, arena)
    for _ in range(2):
        assert another.send(place, 16) == PAYLOAD
    assert sender.begin()
    assert another.begin()
    poke(place, OTHER)
    assert sender.copy(place, 16) is not None
    assert another.copy(place, 16) is not None
    assert sender.send(place, 16) == OTHER
    unmap(another.commands, PAGE)


def test_memory_that_is_not_there_is_not_touched(sender: Sender, place: int) -> None:
    """Its page may come from somebody who never brings it."""
    libc = ctypes.CDLL(None)
    assert libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(PAGE), mmap.MADV_DONTNEED) == 0
    GENERATION.advance()
    for _ in range(2):
        assert not sender.begin()
    assert not is_present(place)


def test_what_was_seen_is_seen_anew(sender: Sender, place: int) -> None:
    GENERATION.advance()
    assert not sender.begin()
    assert sender.copy(place, 16) == PAYLOAD
    assert sender.begin()
    sender.memory._presence.trust.revoke()
    with pytest.raises(NotYet):
        sender.begin()
    assert not sender.memory._has_ahead


def is_present(address: int) -> bool:
    """Whether a page of ours is in our page table."""
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        entry = os.pread(pagemap.fileno(), 8, address // PAGE * 8)
    return bool(entry[7] & 0x80)


def test_nothing_is_put_outside_the_arena(sender: Sender, place: int, arena: MemfdArena) -> None:
    assert sender.begin()
    for offset in (-8, ARENA_SIZE - 15):
        with pytest.raises(IndexError):
            sender.memory.copy(place, 16, arena, offset)
