# SPDX-License-Identifier: Apache-2.0
"""Ends of files and threads, flushes and freezes that go step by step, with others in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from binderd.engine.release import Release
from binderwire.binder_abi import (
    BR_DEAD_BINDER,
    BR_DEAD_REPLY,
    BR_FROZEN_BINDER,
    BR_NOOP,
    BR_TRANSACTION_COMPLETE,
    TF_ONE_WAY,
)
from support import bc
from support.scenes import Scene, freezer, get_call, manager_and_client, take
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.engine_world import EngineWorld

PTRS = [0x1000, 0x2000, 0x3000]


@pytest.fixture
def scene(world: EngineWorld) -> Scene:
    """A client that holds nodes of a manager and is told of their deaths and freezes."""
    scene = manager_and_client(world)
    for ptr in PTRS:
        number = take(scene, ptr)
        scene.client.write(bc.request_death(number, ptr), bc.request_freeze_notice(number, ptr))
        assert_br(scene.client.read(), BR_NOOP, BR_FROZEN_BINDER)
        scene.client.write(bc.freeze_notice_done(ptr))
    return scene


def pause_always(world: EngineWorld) -> None:
    world.engine.set_pace(lambda: True)
    world.lets_pause = True


def test_a_release_tells_of_one_node_after_the_other(world: EngineWorld, scene: Scene) -> None:
    pause_always(world)
    scene.manager.kill()
    told = []
    while len(told) < len(PTRS):
        if scene.client.file.process.todo:
            items = scene.client.read().items
            told += [item.value for item in items if item.word == BR_DEAD_BINDER]
            assert len(told) == len(PTRS) or world.engine.paused
        else:
            world.go_on()
    assert told == PTRS, "the driver's order: the lowest address first"


def test_who_is_being_released_is_dead_to_everybody(world: EngineWorld, scene: Scene) -> None:
    pause_always(world)
    scene.manager.kill()
    [release] = [found for found in world.engine.paused.values() if isinstance(found, Release)]
    assert len(release.process.nodes) >= len(PTRS)
    for number in (1, 2, 3):
        assert_br(scene.client.write_read(bc.call(number)), BR_NOOP, BR_DEAD_REPLY)
        assert_br(
            scene.client.write_read(bc.call(number, flags=TF_ONE_WAY)), BR_NOOP, BR_DEAD_REPLY
        )
    assert_br(scene.client.write_read(bc.call(0)), BR_NOOP, BR_DEAD_REPLY)
    state = world.engine.take_state()
    assert scene.manager.pid not in [process.pid for process in state.processes]
    assert len(state.dead_nodes) == len(PTRS)
    asking = world.open().seasoned()
    assert asking.freeze(scene.manager.pid) != 0


def test_a_new_manager_need_not_wait_for_the_release(world: EngineWorld, scene: Scene) -> None:
    pause_always(world)
    scene.manager.kill()
    assert world.engine.paused
    world.open().become_manager()


def test_a_reply_to_who_is_being_released(world: EngineWorld, scene: Scene) -> None:
    """The caller's file is gone, its thread is not seen to yet."""
    file, caller = scene.client.file, scene.client.proc.thread()  # the last to be seen to
    caller.read()
    started = caller.start(bc.call(0))
    call = get_call(scene.server)
    pause_always(world)
    file.released = True
    world.engine.release(file.process)
    assert file.process.threads
    world.drain()
    assert not started.parked
    answered = scene.server.start(bc.reply())
    while world.engine.paused:
        world.go_on()
    assert_br(answered.result(), BR_NOOP, BR_TRANSACTION_COMPLETE)
    scene.server.write(bc.free(call.buffer))


def test_what_a_thread_has_not_read_is_withdrawn_step_by_step(
    world: EngineWorld, scene: Scene
) -> None:
    one_way = bc.call(1, flags=TF_ONE_WAY)
    scene.client.write(one_way, one_way, one_way)
    pause_always(world)
    process, tid = scene.client.file.process, scene.client.tid
    scene.client.exit()
    assert tid not in process.threads
    assert process.withdrawal is not None
    scene.client.exit()  # it is a new thread, which has nothing
    scene.client.proc.kill()
    while world.engine.paused:
        world.go_on()


def test_a_freeze_tells_of_one_node_after_the_other(world: EngineWorld, scene: Scene) -> None:
    hand = freezer(world)
    pause_always(world)
    started = hand.start_freeze(scene.manager.pid)
    assert scene.manager.file.process.is_frozen
    told = []
    while len(told) < len(PTRS):
        if scene.client.file.process.todo:
            items = scene.client.read().items
            told += [item.cookie for item in items if item.word == BR_FROZEN_BINDER]
        else:
            assert started.parked
            hand.signal()  # is not looked at
            world.go_on()
    assert told == PTRS
    while world.engine.paused:
        world.go_on()
    assert started.wait()[0] == 0


def test_a_process_that_ends_while_its_freeze_is_told(world: EngineWorld, scene: Scene) -> None:
    hand = freezer(world)
    pause_always(world)
    started = hand.start_freeze(scene.manager.pid)
    scene.manager.kill()
    while world.engine.paused:
        world.go_on()
    assert started.wait()[0] == 0
    seen = []
    while scene.client.file.process.todo:
        seen += [item.word for item in scene.client.read().items]
    assert seen.count(BR_DEAD_BINDER) == len(PTRS)


def test_a_flush_wakes_one_thread_after_the_other(world: EngineWorld, scene: Scene) -> None:
    reads = [scene.client.proc.thread() for _ in range(3)]
    started = []
    for thread in reads:
        thread.read()
        started.append(thread.start())
    assert all(read.parked for read in started)
    pause_always(world)
    world.engine.flush(scene.client.file.process)
    world.drain()
    seen = [sum(not read.parked for read in started)]
    while world.engine.paused:
        world.go_on()
        seen.append(sum(not read.parked for read in started))
    assert seen[-1] == 3
    assert {1, 2} <= set(seen), "all at once"
    for read in started:
        assert_br(read.result(), BR_NOOP)
