# SPDX-License-Identifier: Apache-2.0
"""A BINDER_WRITE_READ that stops between two commands goes on as if nothing had happened."""

from __future__ import annotations

from errno import EBUSY, EINTR, EINVAL
from typing import TYPE_CHECKING

import pytest

from binderd.engine.limits import Limits
from binderd.engine.ports import NotYet
from binderwire.binder_abi import (
    BINDER_THREAD_EXIT,
    BINDER_WRITE_READ,
    BR_DEAD_REPLY,
    BR_NOOP,
    BR_REPLY,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    FLAT_BINDER_FLAG_ACCEPTS_FDS,
    TF_ONE_WAY,
    binder_transaction_data,
)
from support import bc
from support.engine_world import EngineWorld
from support.fakes import FakeFetch
from support.pausing import go_on, pausing_scene
from support.scenes import Scene, get_call, manager_and_client, take
from support.transcript import assert_br

if TYPE_CHECKING:
    from binderd.engine.process import Process
    from support.engine_world import EngineThread
    from support.playbook import PendingRead

CALL_SIZE = 4 + binder_transaction_data.size  # bytes in a stream
BAD_WORD = b"\xff\xff\xff\xff"


@pytest.fixture
def scene(world: EngineWorld) -> Scene:
    return pausing_scene(world)


def ticket_of(world: EngineWorld) -> int:
    [ticket] = world.engine.paused
    return ticket


def process_of(thread: EngineThread) -> Process:
    return thread.file.process


def test_a_pause_comes_after_each_command_but_the_last(world: EngineWorld, scene: Scene) -> None:
    started = scene.client.start(*[bc.increfs(0)] * 5, read=0)
    assert started.parked
    assert go_on(world) == 4
    outcome = started.result()
    assert (outcome.errno, outcome.write_consumed) == (0, 5 * len(bc.increfs(0)))


def test_one_command_never_pauses(world: EngineWorld, scene: Scene) -> None:
    assert not scene.client.start(bc.increfs(0), read=0).parked
    assert not world.pauses


def test_others_are_served_in_the_pause(world: EngineWorld, scene: Scene) -> None:
    number = take_now(world, scene)
    server, client = scene
    one_way = bc.call(number, bc.payload(b"12345678"), flags=TF_ONE_WAY)
    started = client.start(one_way, one_way, one_way, read=0)
    assert get_call(server).data == b"12345678"
    calling = world.open().seasoned().start(bc.call(0))
    get_call(server)
    server.write(bc.reply())
    assert_br(calling.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)
    assert started.parked
    go_on(world)
    assert started.result().write_consumed == 3 * CALL_SIZE
    assert_br(client.read(), BR_NOOP, *[BR_TRANSACTION_COMPLETE] * 3)


def take_now(world: EngineWorld, scene: Scene) -> int:
    """Let the client take a node of the manager without any pause."""
    world.lets_pause = False
    number = take(scene, 0x1000)
    world.lets_pause = True
    return number


def test_a_signal_does_not_keep_commands_from_being_taken(world: EngineWorld, scene: Scene) -> None:
    commands = [bc.enter_looper()] * 3
    started = scene.client.start(*commands)
    scene.client.signal()
    assert started.parked, "the driver looks for signals when it has to sleep, not before"
    go_on(world)
    outcome = started.result()
    assert (outcome.errno, outcome.write_consumed) == (EINTR, sum(map(len, commands)))


def test_a_signal_does_not_keep_from_reading_what_is_there(
    world: EngineWorld, scene: Scene
) -> None:
    number = take_now(world, scene)
    started = scene.client.start(
        bc.enter_looper(), bc.call(number, flags=TF_ONE_WAY), bc.enter_looper()
    )
    scene.client.signal()
    go_on(world)
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE)


def test_a_flush_ends_the_read_that_follows(world: EngineWorld, scene: Scene) -> None:
    started = scene.client.start(bc.enter_looper(), bc.enter_looper())
    world.engine.flush(process_of(scene.client))
    world.drain()
    assert started.parked
    go_on(world)
    assert_br(started.result(), BR_NOOP)


def test_a_bad_command_behind_a_pause_ends_it_where_it_is(world: EngineWorld, scene: Scene) -> None:
    started = scene.client.start(bc.increfs(0), bc.increfs(0), BAD_WORD, bc.increfs(0))
    go_on(world)
    outcome = started.result()
    assert (outcome.errno, outcome.write_consumed) == (EINVAL, 2 * len(bc.increfs(0)))
    assert outcome.read_consumed == 0


def test_an_error_behind_a_pause_stops_the_commands(world: EngineWorld, scene: Scene) -> None:
    started = scene.client.start(bc.increfs(0), bc.call(99), bc.increfs(0))
    go_on(world)
    assert started.result().write_consumed == len(bc.increfs(0)) + CALL_SIZE


def test_the_bound_of_an_ioctl_holds_over_all_pauses() -> None:
    length = len(bc.increfs(0))
    world = EngineWorld(Limits(write_bytes_per_ioctl=3 * length))
    thread = manager_and_client(world).client
    world.engine.set_pace(lambda: True)
    assert thread.write_read(*[bc.increfs(0)] * 8, read=0).write_consumed == 3 * length
    world.close()
    world.assert_empty()


def test_no_second_request_while_one_is_paused(world: EngineWorld, scene: Scene) -> None:
    started = scene.client.start(bc.increfs(0), bc.increfs(0), read=0)
    engine, client = world.engine, scene.client
    argument = client.argument([bc.increfs(0)], 0)
    engine.ioctl(process_of(client), client.tid, 0, BINDER_WRITE_READ, argument, 7)
    [refused] = engine.outbox
    assert (refused.ticket, refused.result) == (7, -EBUSY)
    engine.outbox.clear()
    go_on(world)
    assert started.result().errno == 0


def test_what_is_gone_does_not_go_on(world: EngineWorld, scene: Scene) -> None:
    world.engine.go_on(12345)
    assert not world.engine.outbox


# Reads


@pytest.fixture
def reading(world: EngineWorld, scene: Scene) -> PendingRead:
    """The client has sent three one-way calls, and has read of the first that it has arrived."""
    number = take_now(world, scene)
    world.lets_pause = False
    one_way = bc.call(number, flags=TF_ONE_WAY)
    scene.client.write(one_way, one_way, one_way)
    world.lets_pause = True
    return scene.client.start()


def test_a_read_pauses_after_each_thing_but_the_last(
    world: EngineWorld, reading: PendingRead
) -> None:
    assert reading.parked
    assert go_on(world) == 2
    assert_br(reading.result(), BR_NOOP, *[BR_TRANSACTION_COMPLETE] * 3)


def test_a_read_that_ends_of_itself_never_pauses(world: EngineWorld, scene: Scene) -> None:
    take_now(world, scene)
    calling = scene.client.start(bc.call(0))
    get_call(scene.server)
    scene.server.write(bc.reply())
    go_on(world)
    before = world.pauses
    assert_br(calling.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)
    assert world.pauses == before


def test_others_are_served_while_a_read_pauses(
    world: EngineWorld, scene: Scene, reading: PendingRead
) -> None:
    get_call(scene.server)
    calling = world.open().seasoned().start(bc.call(0))
    get_call(scene.server)
    scene.server.write(bc.reply())
    assert_br(calling.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)
    assert reading.parked
    go_on(world)
    assert_br(reading.result(), BR_NOOP, *[BR_TRANSACTION_COMPLETE] * 3)


def test_a_signal_does_not_end_a_read_that_has_something(
    world: EngineWorld, scene: Scene, reading: PendingRead
) -> None:
    scene.client.signal()
    assert reading.parked
    go_on(world)
    assert_br(reading.result(), BR_NOOP, *[BR_TRANSACTION_COMPLETE] * 3)


def test_a_read_that_pauses_ends_with_its_file(
    world: EngineWorld, scene: Scene, reading: PendingRead
) -> None:
    ticket, file = ticket_of(world), scene.client.file
    file.released = True
    world.engine.release(file.process)
    world.drain()
    assert reading.result().errno == EINTR
    world.engine.go_on(ticket)
    world.engine.interrupt(ticket)
    assert not world.engine.outbox
    world.check()


# The end of the thread or the file; with a kernel that keeps its word both come after the answer.


@pytest.fixture
def paused(world: EngineWorld, scene: Scene) -> PendingRead:
    """The client has sent the manager a one-way call, and is to send more."""
    number = take_now(world, scene)
    one_way = bc.call(number, flags=TF_ONE_WAY)
    return scene.client.start(one_way, one_way, one_way)


def end_once(world: EngineWorld, started: PendingRead, ticket: int) -> None:
    """Assert that the request has ended, once, with EINTR, and does not go on."""
    assert ticket not in world.engine.paused
    assert not started.parked
    outcome = started.result()
    assert (outcome.errno, outcome.write_consumed) == (EINTR, CALL_SIZE)
    world.engine.go_on(ticket)
    world.engine.interrupt(ticket)
    assert not world.engine.outbox
    world.check()


def test_the_end_of_its_thread_ends_it(
    world: EngineWorld, scene: Scene, paused: PendingRead
) -> None:
    ticket = ticket_of(world)
    world.engine.thread_gone(process_of(scene.client), scene.client.tid)
    world.drain()
    end_once(world, paused, ticket)


def test_a_thread_exit_of_its_thread_ends_it(
    world: EngineWorld, scene: Scene, paused: PendingRead
) -> None:
    ticket, client = ticket_of(world), scene.client
    world.engine.ioctl(process_of(client), client.tid, 0, BINDER_THREAD_EXIT, bytes(4), 7)
    [exit_] = [done for done in world.engine.outbox if done.ticket == 7]
    assert exit_.result == 0
    world.engine.outbox.remove(exit_)
    world.drain()
    end_once(world, paused, ticket)


def test_the_release_of_its_file_ends_it(
    world: EngineWorld, scene: Scene, paused: PendingRead
) -> None:
    ticket, file = ticket_of(world), scene.client.file
    file.released = True
    world.engine.release(file.process)
    world.drain()
    end_once(world, paused, ticket)


def test_the_end_of_another_thread_leaves_it_alone(
    world: EngineWorld, scene: Scene, paused: PendingRead
) -> None:
    other = scene.client.proc.thread()
    other.read()
    other.exit()
    other.end()
    assert paused.parked
    go_on(world)
    assert_br(paused.result(), BR_NOOP, *[BR_TRANSACTION_COMPLETE] * 3)


def test_the_target_may_die_in_the_pause(world: EngineWorld, scene: Scene) -> None:
    number = take_now(world, scene)
    started = scene.client.start(bc.call(number, flags=TF_ONE_WAY), bc.call(number))
    get_call(scene.server)
    scene.manager.kill()
    go_on(world)
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)


def test_a_killed_client_takes_all_commands(world: EngineWorld, scene: Scene) -> None:
    number = take_now(world, scene)
    one_way = bc.call(number, flags=TF_ONE_WAY)
    scene.client.start(one_way, one_way, one_way)
    scene.client.proc.kill()
    world.check()
    first = get_call(scene.server)
    outcome = scene.server.start(bc.free(first.buffer))
    assert_br(outcome.result(), BR_NOOP, BR_TRANSACTION)


def test_what_was_freed_before_a_pause_is_closed_after_it(world: EngineWorld, scene: Scene) -> None:
    """The descriptors of an array are closed once, when the whole request is through (O9)."""
    world.lets_pause = False
    server, client = scene
    number = take(scene, 0x1000, flags=FLAT_BINDER_FLAG_ACCEPTS_FDS)
    sent = client.proc.new_file().to_bytes(4, "little")
    objects = [bc.ptr(client.proc.put(sent), 4), bc.fd_array(1, parent=0)]
    content = bc.payload(b"leading!", *objects)
    client.write(bc.oneway_sg(number, content, buffers_size=8))
    before = server.proc.descriptors()
    call = get_call(server)
    assert len(server.proc.descriptors()) == len(before) + 1
    world.lets_pause = True
    freeing = server.start(bc.free(call.buffer), bc.increfs(99), bc.increfs(99), read=0)
    assert len(server.proc.descriptors()) == len(before) + 1
    go_on(world)
    world.drain()
    assert freeing.result().errno == 0
    assert server.proc.descriptors() == before


def test_what_a_reader_leaves_is_not_kept_waiting_by_its_memory(world: EngineWorld) -> None:
    """Its read buffer is too small for the call, and somebody else has to write there (R14)."""
    scene = manager_and_client(world)
    fetch, first = FakeFetch(), scene.manager.thread()
    for _ in range(2):
        scene.client.write_read(bc.oneway(0))
    [call] = assert_br(first.read(), BR_NOOP, BR_TRANSACTION)
    large = scene.manager.seasoned().start()
    reader = scene.server
    small = reader.start(read=40)  # falls asleep last, so it is woken first
    write = reader._fake.write

    def late(address: int, data: bytes) -> bool:
        reader._fake.write = write
        raise NotYet(fetch)

    reader._fake.write = late
    first.write(bc.free(call.buffer))
    assert small.parked
    [call] = assert_br(large.result(), BR_NOOP, BR_TRANSACTION)
    world.engine.fetched(fetch.ticket)
    world.drain()
    assert_br(small.result(), BR_NOOP)
    first.write(bc.free(call.buffer))
