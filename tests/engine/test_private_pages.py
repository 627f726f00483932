# SPDX-License-Identifier: Apache-2.0
"""Receivers whose pages are their own: what is sent arrives when they read it, or does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_NOOP,
    BR_SPAWN_LOOPER,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    TF_CLEAR_BUF,
)
from support import bc
from support.scenes import answer, get_call, get_reply, manager_and_client, round_trip
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.engine_world import EngineWorld
    from support.fakes import FakeArena
    from support.playbook import PendingRead
    from support.scenes import Scene

SECRET = b"a secret of 24 bytes....."[:24]
FAILURES = {"refused": BR_DEAD_REPLY, "never": BR_DEAD_REPLY, "unknown": BR_FAILED_REPLY}


@pytest.fixture
def scene(world: EngineWorld) -> Scene:
    return manager_and_client(world)


def arena_of(thread: object) -> FakeArena:
    return thread.proc.file.arena


def finish(world: EngineWorld, arena: FakeArena) -> None:
    """The latest fetch is over."""
    world.engine.fetched(arena.fetches[-1].ticket)
    world.go_on()


def test_a_call_is_there_when_it_is_read_and_not_before(scene: Scene) -> None:
    arena = arena_of(scene.server)
    arena.make_private()
    started = scene.client.start(bc.call(0, SECRET))
    assert SECRET not in arena.octets
    call = get_call(scene.server, data=SECRET)
    answer(scene.server, call)
    get_reply(started)


def test_only_the_reader_waits_for_a_fetch(world: EngineWorld, scene: Scene) -> None:
    arena = arena_of(scene.server)
    arena.make_private("late")
    sent = scene.client.write_read(bc.oneway(0, SECRET))
    assert_br(sent, BR_NOOP, BR_TRANSACTION_COMPLETE)
    reading = scene.server.start()
    assert reading.parked
    assert SECRET not in arena.octets
    finish(world, arena)
    [call] = assert_br(reading.result(), BR_NOOP, (BR_TRANSACTION, {"data": SECRET}))
    scene.server.write(bc.free(call.buffer))


@pytest.mark.parametrize("outcome", FAILURES)
def test_a_call_that_cannot_be_brought_fails(
    world: EngineWorld, scene: Scene, outcome: str
) -> None:
    """A reader without such pages has none from then on; not if that could not be asked."""
    arena = arena_of(scene.server)
    arena.make_private(outcome)
    started = scene.client.start(bc.call(0, SECRET))
    reading = scene.server.start()
    if outcome == "never":
        finish(world, arena)
    word = FAILURES[outcome]
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, word)
    assert_br(reading.result(), BR_NOOP)
    assert SECRET not in arena.octets
    if outcome == "unknown":
        round_trip(scene, b"now it can")
    else:
        assert_br(scene.client.write_read(bc.call(0)), BR_NOOP, BR_DEAD_REPLY)


@pytest.mark.parametrize("outcome", FAILURES)
def test_a_reply_that_cannot_be_brought_ends_the_call(
    world: EngineWorld, scene: Scene, outcome: str
) -> None:
    arena = arena_of(scene.client)
    started: PendingRead = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    arena.make_private(outcome)
    answer(scene.server, call, SECRET)
    if outcome == "never":
        finish(world, arena)
    outcome_words = (BR_NOOP, BR_TRANSACTION_COMPLETE, FAILURES[outcome])
    assert_br(started.result(), *outcome_words)
    assert SECRET not in arena.octets


def test_what_is_to_be_wiped_is_wiped_before_it_is_free(world: EngineWorld, scene: Scene) -> None:
    arena = arena_of(scene.server)
    arena.make_private()
    scene.client.start(bc.call(0, SECRET, flags=TF_CLEAR_BUF))
    call = get_call(scene.server, data=SECRET)
    arena.outcomes.append("late")
    freeing = scene.server.start(bc.free(call.buffer), read=0)
    assert freeing.parked
    assert arena.octets[: len(SECRET)] == SECRET
    assert len(scene.manager.file.process.area.buffers) == 1
    finish(world, arena)
    assert freeing.result().errno == 0
    assert arena.octets[: len(SECRET)] == bytes(len(SECRET))
    assert not scene.manager.file.process.area.buffers


def test_a_payload_of_nothing_is_not_brought(scene: Scene) -> None:
    arena_of(scene.server).make_private("refused")
    started = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    answer(scene.server, call)
    get_reply(started)


def test_a_reader_that_goes_with_a_call_on_its_way(world: EngineWorld, scene: Scene) -> None:
    arena = arena_of(scene.server)
    arena.make_private("late")
    started = scene.client.start(bc.call(0, SECRET))
    scene.server.start()
    scene.manager.kill()  # no kernel does this before the read is answered
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
    world.engine.fetched(arena.fetches[-1].ticket)
    assert SECRET not in arena.octets


def test_what_cannot_be_wiped_is_the_end_of_the_area(world: EngineWorld, scene: Scene) -> None:
    """Who is late with that may still do it by and by, so nothing may be put there again."""
    arena = arena_of(scene.server)
    arena.make_private()
    started = scene.client.start(bc.call(0, SECRET, flags=TF_CLEAR_BUF))
    call = get_call(scene.server, data=SECRET)
    arena.outcomes.append("never")
    freeing = scene.server.start(bc.free(call.buffer), read=0)
    finish(world, arena)
    assert freeing.result().errno == 0
    scene.server.write(bc.reply())
    get_reply(started)
    assert_br(scene.client.write_read(bc.call(0, SECRET)), BR_NOOP, BR_DEAD_REPLY)


def test_who_frees_a_buffer_second_does_not_wait_for_its_wiping(
    world: EngineWorld, scene: Scene
) -> None:
    arena = arena_of(scene.server)
    arena.make_private()
    scene.client.start(bc.call(0, SECRET, flags=TF_CLEAR_BUF))
    call = get_call(scene.server, data=SECRET)
    arena.outcomes.append("late")
    freeing = scene.server.start(bc.free(call.buffer), read=0)
    arena.outcomes.clear()
    second = scene.manager.thread()
    assert second.start(bc.free(call.buffer), read=0).result().errno == 0
    area = scene.manager.file.process.area
    assert area.buffers, "it is being freed by the first"
    finish(world, arena)
    assert freeing.result().errno == 0
    assert not area.buffers


def test_a_buffer_whose_wiper_has_ended_can_be_freed(world: EngineWorld, scene: Scene) -> None:
    arena = arena_of(scene.server)
    arena.make_private()
    scene.client.start(bc.oneway(0, SECRET, flags=TF_CLEAR_BUF))
    first, second = scene.manager.thread(), scene.manager.thread()
    [call] = assert_br(first.read(), BR_NOOP, (BR_TRANSACTION, {"data": SECRET}))
    arena.outcomes.append("late")
    first.start(bc.free(call.buffer), read=0)
    arena.outcomes.clear()
    world.engine.thread_gone(scene.manager.file.process, first.tid)
    world.drain()
    assert second.start(bc.free(call.buffer), read=0).result().errno == 0
    assert not scene.manager.file.process.area.buffers


def test_one_looper_is_asked_for_though_two_calls_are_on_their_way(
    world: EngineWorld, scene: Scene
) -> None:
    """Whoever is first has asked (R11), though its call has yet to arrive."""
    arena = arena_of(scene.server)
    scene.manager.set_max_threads(1)
    arena.make_private()
    readings = []
    for looper in (scene.manager.looper(), scene.manager.looper()):
        scene.client.proc.seasoned().write(bc.call(0, SECRET))
        arena.outcomes = ["late"]
        readings.append(looper.start())
        arena.outcomes = []
    words = []
    for fetch, reading in zip(list(arena.fetches), readings, strict=True):
        world.engine.fetched(fetch.ticket)
        world.go_on()
        words += [item.word for item in reading.result().items]
    assert words == [BR_SPAWN_LOOPER, BR_TRANSACTION, BR_NOOP, BR_TRANSACTION]
    assert scene.manager.file.process.requested_threads == 1
