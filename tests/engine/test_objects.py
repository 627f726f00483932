# SPDX-License-Identifier: Apache-2.0
"""Objects that are read in windows are the same as if they were read one by one, as the driver."""

from __future__ import annotations

import random
from errno import EFAULT, EINVAL
from typing import TYPE_CHECKING, NamedTuple

import pytest

from binderd.engine.buffers import Buffer
from binderd.engine.objects import Objects
from binderwire.binder_abi import BINDER_TYPE_PTR, OBJECT_SIZE_MAX, binder_buffer_object
from support.fakes import FakeArena, FakeMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA = 0x10000
AREA = 0x900000
ROOM = 4096  # for pieces, bytes
PIECE = binder_buffer_object.pack(BINDER_TYPE_PTR, 0, 0x5000, 8, 0, 0)


class Read(NamedTuple):
    """What came of the objects."""

    found: list[bytes]
    errno: int | None  # why it went no further
    moved: bytes  # what the receiver has, with zeros where objects are


class NothingThere(FakeMemory):
    """Memory of which no piece can be read at once."""

    def missing(self, ranges: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        return ranges


def one_by_one(data: bytes, size: int, starts: list[int]) -> Read:
    """Read as the driver does: up to an object, then that object, whatever comes behind it.

    Args:
        data: as far as it can be read, of ``size`` bytes.
    """
    found, moved, position = [], bytearray(size), 0
    for index, start in enumerate(starts):
        is_behind = index == 0 or start >= starts[index - 1] + 4
        if not is_behind or start > min(size, len(data)):
            return Read(found, EFAULT, bytes(moved))
        moved[position:start] = data[position:start]
        length = min(OBJECT_SIZE_MAX, size - start)
        if length < 4 or start % 4 or start + length > len(data):
            return Read(found, EINVAL, bytes(moved))
        found.append(data[start : start + length])
        position = start + length
    moved[position:size] = data[position:]
    return Read(found, EFAULT if len(data) < size else None, bytes(moved))


def in_windows(data: bytes, size: int, starts: list[int]) -> tuple[Read, Objects, int]:
    memory = NothingThere()
    memory.map(DATA, bytearray(data), writable=True)
    arena = FakeArena(FakeMemory(), AREA)
    arena.map(size + 64)
    buffer = Buffer(AREA, 0, size, (size, 8 * len(starts), ROOM, 0))
    objects, windows = Objects(buffer, DATA, tuple(starts)), 1
    while objects.read_next(memory, arena):  # type: ignore[arg-type]
        windows += 1
    errno = None if objects.fault is None else objects.fault.errno
    return Read(objects.octets, errno, bytes(arena.octets[:size])), objects, windows


def payload(number: random.Random) -> tuple[bytes, list[int]]:
    """Return data and where objects lie in it, some of them inside the one before."""
    starts, position = [], 0
    for _ in range(number.choice([0, 1, 127, 128, 129, 256, 700])):
        starts.append(position)
        position += number.choice([24, 24, 24, 32, 40, 40, 44, 64, 4, 12])
    return number.randbytes(position + number.choice([0, 4, 40, 100])), starts


def spoil(number: random.Random, data: bytes, starts: list[int]) -> bytes:
    """Do one thing wrong; return the data as far as they can be read."""
    wrong = number.randrange(6)
    if wrong == 0 and data:
        return data[: number.randrange(len(data))]
    if wrong <= 3 and starts:
        at = number.choice([number.randrange(len(starts)), min(128, len(starts) - 1)])
        starts[at] = number.choice(
            [starts[at] + 2, max(starts[at] - 24, 0), len(data), len(data) - 2, len(data) + 8, 0]
        )
    return data


def whole(objects: Objects) -> list[bytes]:
    """Return as much of each object as the largest may have, from the next ones where need be."""
    found = objects.octets
    return [
        (b"".join(found[index : index + OBJECT_SIZE_MAX // 4]) + objects.tail)[:OBJECT_SIZE_MAX]
        for index in range(len(found))
    ]


@pytest.mark.parametrize("seed", range(60))
def test_windows_change_nothing(seed: int) -> None:
    number = random.Random(seed)
    sent, starts = payload(number)
    data = spoil(number, sent, starts) if seed % 3 else sent
    wanted = one_by_one(data, len(sent), starts)
    got, objects, _ = in_windows(data, len(sent), starts)
    assert got.errno == wanted.errno
    assert whole(objects) == wanted.found
    for octets, start, end in zip(got.found[:-1], starts, starts[1:], strict=False):
        assert start + len(octets) <= end, "the next one begins there"
    if wanted.errno is None:
        assert got.moved == wanted.moved


def test_many_objects_take_several_windows() -> None:
    starts = [24 * index for index in range(8191)]
    _, objects, windows = in_windows(bytes(24 * 8191), 24 * 8191, starts)
    assert windows == 64
    assert len(objects.octets) == 8191


@pytest.mark.parametrize("readable", [True, False])
def test_pieces_are_found_as_far_as_there_is_room(readable: bool) -> None:
    count = ROOM // 8 + 100
    data = PIECE * count
    starts = [len(PIECE) * index for index in range(count)]
    _, objects, _ = in_windows(data if readable else data[:-1], len(data), starts)
    assert objects.missing == [(0x5000, 8)] * (ROOM // 8)
