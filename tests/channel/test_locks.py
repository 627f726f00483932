# SPDX-License-Identifier: Apache-2.0
"""flock, from frame to frame: who gets a lock, who waits, and what ends a wait."""

from __future__ import annotations

from errno import EAGAIN, EINTR, EINVAL, ENOLCK

import pytest

from binderd.fuse.locks import WAITING_MAX
from binderwire import fuse_abi as abi
from channel.helpers import request
from channel.session_world import World, open_request

NOW, WAIT = abi.FUSE_SETLK, abi.FUSE_SETLKW
SHARED, ALONE, NONE = abi.F_RDLCK, abi.F_WRLCK, abi.F_UNLCK


class Opened:
    """An open file, and what it asks for."""

    def __init__(self, world: World, owner: int, name: bytes = b"binder") -> None:
        self.world = world
        self.owner = owner
        self.nodeid = world.begin_open(name)
        _, body = world.answer(open_request(self.nodeid))
        self.handle = abi.fuse_open_out.read(body).fh

    def ask(
        self, kind: int, opcode: int = NOW, unique: int = 2, flags: int = abi.FUSE_LK_FLOCK
    ) -> list[tuple[int, int, bytes]]:
        body = abi.fuse_lk_in.build(fh=self.handle, owner=self.owner, type=kind, lk_flags=flags)
        return self.world.send(request(opcode, body, unique=unique, nodeid=self.nodeid))

    def error(self, kind: int, opcode: int = NOW) -> int:
        [(_, error, _)] = self.ask(kind, opcode)
        return -error

    def release(self) -> list[tuple[int, int, bytes]]:
        flags = abi.FUSE_RELEASE_FLOCK_UNLOCK
        body = abi.fuse_release_in.pack(self.handle, 2, flags, self.owner)
        return self.world.send(request(abi.FUSE_RELEASE, body, unique=99, nodeid=self.nodeid))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def files(world: World) -> list[Opened]:
    return [Opened(world, owner) for owner in (10, 11, 12)]


def test_one_alone_or_several_together(files: list[Opened]) -> None:
    one, two, three = files
    assert [one.error(ALONE), two.error(ALONE), two.error(SHARED)] == [0, EAGAIN, EAGAIN]
    assert [one.error(SHARED), two.error(SHARED), three.error(ALONE)] == [0, 0, EAGAIN]
    assert [one.error(NONE), three.error(ALONE), two.error(NONE), three.error(ALONE)] == [
        0,
        EAGAIN,
        0,
        0,
    ]


def test_devices_have_nothing_to_do_with_each_other(world: World) -> None:
    assert Opened(world, 10).error(ALONE) == 0
    assert Opened(world, 11, b"hwbinder").error(ALONE) == 0


def test_who_cannot_change_its_lock_has_none(files: list[Opened]) -> None:
    one, two, three = files
    assert [one.error(SHARED), two.error(SHARED), one.error(ALONE)] == [0, 0, EAGAIN]
    assert two.error(NONE) == 0
    assert three.error(ALONE) == 0


def test_who_waits_gets_it_in_turn(files: list[Opened]) -> None:
    one, two, three = files
    assert one.error(ALONE) == 0
    assert two.ask(SHARED, WAIT, 20) == three.ask(SHARED, WAIT, 30) == []
    assert sorted(one.ask(NONE)) == [(2, 0, b""), (20, 0, b""), (30, 0, b"")]
    assert one.error(ALONE) == EAGAIN


def test_a_change_wakes_who_can_go_along(files: list[Opened]) -> None:
    one, two, _ = files
    assert one.error(ALONE) == 0
    assert two.ask(SHARED, WAIT, 20) == []
    assert sorted(one.ask(SHARED)) == [(2, 0, b""), (20, 0, b"")]


def test_the_end_of_the_open_file_is_the_end_of_its_lock(files: list[Opened]) -> None:
    one, two, _ = files
    assert one.error(ALONE) == 0
    assert two.ask(ALONE, WAIT, 20) == []
    assert sorted(one.release()) == [(20, 0, b""), (99, 0, b"")]
    assert sorted(two.release()) == [(99, 0, b"")]


def test_a_signal_ends_the_wait(files: list[Opened], world: World) -> None:
    one, two, three = files
    assert one.error(ALONE) == 0
    assert two.ask(ALONE, WAIT, 20) == []
    interruption = request(abi.FUSE_INTERRUPT, abi.fuse_interrupt_in.pack(20), unique=21)
    assert world.send(interruption) == [(20, -EINTR, b"")]
    assert one.error(NONE) == 0
    assert three.error(ALONE) == 0
    world.send(interruption)  # it has been answered: this is about something else
    assert world.engine.calls[-1] == ("interrupt", 20)


def test_no_more_than_so_many_wait(files: list[Opened]) -> None:
    one, two, three = files
    assert one.error(ALONE) == 0
    for unique in range(100, 100 + WAITING_MAX):
        assert two.ask(ALONE, WAIT, unique) == []
    assert three.error(ALONE, WAIT) == ENOLCK


def test_other_kinds_of_lock_are_refused(files: list[Opened]) -> None:
    assert files[0].ask(ALONE, flags=0) == [(2, -EINVAL, b"")]
    assert files[0].error(7) == EINVAL
