# SPDX-License-Identifier: Apache-2.0
"""A command that stops between two objects of its payload goes on as if nothing had happened."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from binderd.engine.ports import NotYet
from binderd.engine.views import NUMBER_MASK
from binderwire.binder_abi import (
    BC_TRANSACTION_SG,
    BR_ACQUIRE,
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_FROZEN_REPLY,
    BR_INCREFS,
    BR_NOOP,
    BR_REPLY,
    BR_TRANSACTION_COMPLETE,
    binder_buffer_object,
    binder_transaction_data,
    binder_uintptr_t,
)
from binderwire.commands import WORD_SIZE
from support import bc
from support.fakes import FakeFetch
from support.pausing import go_on, pausing_scene
from support.scenes import Scene, get_call, get_reply
from support.transcript import assert_br

if TYPE_CHECKING:
    from binderd.engine.process import Process
    from support.engine_world import EngineThread, EngineWorld
    from support.playbook import PendingRead
    from support.transcript import Received

OBJECTS = 3
PTRS = [0x5000 + 0x10 * number for number in range(OBJECTS)]
NODES = bc.payload(*map(bc.binder, PTRS))
BAD = bc.payload(*map(bc.binder, PTRS), bc.handle(99))
NEWS = [BR_INCREFS, BR_ACQUIRE] * OBJECTS  # what the owner of new nodes is told


@pytest.fixture
def scene(world: EngineWorld) -> Scene:
    return pausing_scene(world)


def process_of(thread: EngineThread) -> Process:
    return thread.file.process


def handles_in(received: Received) -> set[int]:
    return {number for _, _, number, _ in struct.iter_unpack("=IIQQ", received.data)}


def release(world: EngineWorld, thread: EngineThread) -> None:
    """Close the file of a thread, whatever that is doing."""
    thread.file.released = True
    world.engine.release(process_of(thread))
    world.drain()
    go_on(world)


def is_empty(process: Process) -> bool:
    """Has it neither handles nor buffers?"""
    area = process.area
    return not process.handles.refs and (area is None or not area.buffers)


def test_a_call(world: EngineWorld, scene: Scene) -> None:
    calling = scene.client.start(bc.call(0, NODES))
    assert go_on(world) >= OBJECTS - 1
    call = get_call(scene.server)
    assert len(call.objects) == OBJECTS
    scene.server.write(bc.reply())
    go_on(world)
    assert_br(calling.result(), BR_NOOP, *NEWS, BR_TRANSACTION_COMPLETE, BR_REPLY)


def test_pieces_of_memory(world: EngineWorld, scene: Scene) -> None:
    client = scene.client
    places = [client.proc.put(bytes([number] * 8)) for number in range(1, OBJECTS + 1)]
    pieces = bc.payload(*(bc.ptr(place, 8) for place in places))
    client.start(bc.call_sg(0, pieces, buffers_size=8 * OBJECTS))
    assert go_on(world) == 2 * (OBJECTS - 1)
    call = get_call(scene.server)
    size = binder_buffer_object.size
    found = [
        scene.manager.peek(binder_buffer_object.unpack_from(call.data, at)[2], 8)
        for at in range(0, OBJECTS * size, size)
    ]
    assert found == [bytes([number] * 8) for number in range(1, OBJECTS + 1)]


def test_nobody_hears_of_half_a_call(world: EngineWorld, scene: Scene) -> None:
    scene.client.start(bc.call(0, NODES))
    world.go_on()
    assert scene.server.start().parked
    world.engine.interrupt(0)


def test_one_object_is_done_at_once(world: EngineWorld, scene: Scene) -> None:
    scene.client.start(bc.call(0, bc.payload(bc.binder(PTRS[0]))))
    call = get_call(scene.server)
    scene.server.start(bc.free(call.buffer), read=0)
    assert not world.engine.paused
    assert not process_of(scene.server).area.buffers  # type: ignore[union-attr]


def test_a_reply(world: EngineWorld, scene: Scene) -> None:
    calling = scene.client.start(bc.call(0))
    get_call(scene.server)
    replying = scene.server.start(bc.reply(NODES))
    go_on(world)
    assert_br(replying.result(), BR_NOOP, *NEWS, BR_TRANSACTION_COMPLETE)
    assert len(get_reply(calling).objects) == OBJECTS


def delivered(world: EngineWorld, scene: Scene) -> int:
    """The server has a buffer with several objects; returns where."""
    scene.client.start(bc.call(0, NODES))
    go_on(world)
    return int(get_call(scene.server).buffer)


def test_a_buffer_that_is_freed(world: EngineWorld, scene: Scene) -> None:
    buffer = delivered(world, scene)
    freeing = scene.server.start(bc.free(buffer), read=0)
    assert freeing.parked
    handles = process_of(scene.server).handles.refs
    assert len(handles) == OBJECTS - 1, "the first is let go of first"
    assert go_on(world) == OBJECTS - 1
    assert freeing.result().errno == 0
    assert is_empty(process_of(scene.server))


def test_a_buffer_is_freed_once(world: EngineWorld, scene: Scene) -> None:
    buffer = delivered(world, scene)
    scene.server.start(bc.free(buffer), read=0)
    again = scene.manager.thread().start(bc.free(buffer), read=0)
    assert again.result().errno == 0
    assert len(process_of(scene.server).handles.refs) == OBJECTS - 1
    go_on(world)
    assert is_empty(process_of(scene.server))


def test_commands_behind_it_come_after_it(world: EngineWorld, scene: Scene) -> None:
    buffer = delivered(world, scene)
    freeing = scene.server.start(bc.free(buffer), bc.reply(NODES), bc.enter_looper(), read=0)
    go_on(world)
    size = 3 * WORD_SIZE + binder_uintptr_t.size + binder_transaction_data.size
    assert freeing.result().write_consumed == size


def test_a_bad_object_behind_a_pause(world: EngineWorld, scene: Scene) -> None:
    calling = scene.client.start(bc.call(0, BAD))
    go_on(world)
    assert_br(calling.result(), BR_NOOP, BR_FAILED_REPLY)
    assert is_empty(process_of(scene.server))
    assert not process_of(scene.client).nodes


def test_hundreds_of_pieces_before_a_bad_object(world: EngineWorld, scene: Scene) -> None:
    """They are let go of in steps, and then the buffer, once."""
    count, client = 600, scene.client
    place = client.proc.put(bytes(8))
    pieces = bc.payload(*[bc.ptr(place, 8)] * count, bc.handle(99))
    calling = client.start(bc.call_sg(0, pieces, buffers_size=8 * count))
    assert go_on(world) > count + 3
    assert_br(calling.result(), BR_NOOP, BR_FAILED_REPLY)
    assert is_empty(process_of(scene.server))


def test_a_bad_object_of_a_reply(world: EngineWorld, scene: Scene) -> None:
    calling = scene.client.start(bc.call(0))
    get_call(scene.server)
    replying = scene.server.start(bc.reply(BAD))
    go_on(world)
    assert_br(replying.result(), BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert_br(calling.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
    assert is_empty(process_of(scene.client))


def test_what_is_begun_anew_is_one_command(world: EngineWorld, scene: Scene) -> None:
    """Memory that has to be fetched is met in the middle; nothing of the first attempt is left."""
    client = scene.client
    late, scatter = FakeFetch(), client._fake.scatter
    place = client.proc.put(b"a piece.")
    attempts = []

    def fetch(address: int, *rest: object) -> list[bytes] | None:
        if address == place and not attempts:
            attempts.append(address)
            raise NotYet(late)
        return scatter(address, *rest)

    client._fake.scatter = fetch
    content = bc.payload(bc.binder(PTRS[0]), bc.ptr(place, 8))
    process = process_of(client)
    before = process.words.commands[BC_TRANSACTION_SG & NUMBER_MASK].count
    calling = client.start(bc.call_sg(0, content, buffers_size=8))
    world.go_on()
    assert attempts
    assert calling.parked
    assert is_empty(process_of(scene.server))
    world.engine.fetched(late.ticket)
    go_on(world)
    get_call(scene.server)
    assert process.words.commands[BC_TRANSACTION_SG & NUMBER_MASK].count == before + 1


# Who ends in the pause


def test_the_receiver(world: EngineWorld, scene: Scene) -> None:
    calling = scene.client.start(bc.call(0, NODES))
    release(world, scene.server)
    go_on(world)
    assert_br(calling.result(), BR_NOOP, BR_INCREFS, BR_ACQUIRE, BR_DEAD_REPLY)


def test_the_sender(world: EngineWorld, scene: Scene) -> None:
    scene.client.start(bc.call(0, NODES))
    release(world, scene.client)
    assert is_empty(process_of(scene.server))
    world.check()


def test_the_sender_of_a_bad_object(world: EngineWorld, scene: Scene) -> None:
    scene.client.start(bc.call(0, BAD))
    for _ in range(OBJECTS):
        world.go_on()
    assert process_of(scene.client).hub.paused
    release(world, scene.client)
    assert is_empty(process_of(scene.server))


def test_the_sending_thread(world: EngineWorld, scene: Scene) -> None:
    scene.client.start(bc.call(0, NODES))
    world.engine.thread_gone(process_of(scene.client), scene.client.tid)
    world.drain()
    go_on(world)
    assert is_empty(process_of(scene.server))
    assert not process_of(scene.client).nodes


def test_who_frees(world: EngineWorld, scene: Scene) -> None:
    buffer = delivered(world, scene)
    scene.server.start(bc.free(buffer), read=0)
    world.engine.thread_gone(process_of(scene.server), scene.server.tid)
    world.drain()
    go_on(world)
    assert is_empty(process_of(scene.server))


def test_the_process_that_frees(world: EngineWorld, scene: Scene) -> None:
    buffer = delivered(world, scene)
    scene.server.start(bc.free(buffer), read=0)
    release(world, scene.server)
    assert process_of(scene.server).is_dead


def test_the_caller_of_a_reply(world: EngineWorld, scene: Scene) -> None:
    scene.client.start(bc.call(0))
    get_call(scene.server)
    replying = scene.server.start(bc.reply(NODES))
    release(world, scene.client)
    go_on(world)
    assert_br(replying.result(), BR_NOOP, BR_INCREFS, BR_ACQUIRE, BR_TRANSACTION_COMPLETE)


def test_the_calling_thread_of_a_reply(world: EngineWorld, scene: Scene) -> None:
    other = scene.client.proc.thread()
    other.read()
    other.start(bc.call(0))
    get_call(scene.server)
    replying = scene.server.start(bc.reply(NODES))
    world.engine.thread_gone(process_of(other), other.tid)
    world.drain()
    go_on(world)
    assert_br(replying.result(), BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert is_empty(process_of(scene.client))


# What else may happen in it


def test_the_receiver_freezes(world: EngineWorld, scene: Scene) -> None:
    calling = scene.client.start(bc.call(0, NODES))
    process = process_of(scene.server)
    process.is_frozen = True  # as BINDER_FREEZE does where no call is under way
    go_on(world)
    assert_br(calling.result(), BR_NOOP, BR_FROZEN_REPLY)
    assert process.received_sync
    assert is_empty(process)
    process.is_frozen = False


def test_a_signal(world: EngineWorld, scene: Scene) -> None:
    calling: PendingRead = scene.client.start(bc.call(0, NODES))
    scene.client.signal()
    assert calling.parked
    go_on(world)
    assert len(get_call(scene.server).objects) == OBJECTS


def test_two_senders_do_not_meet(world: EngineWorld, scene: Scene) -> None:
    second = world.open().seasoned()
    scene.client.start(bc.call(0, NODES))
    second.start(bc.call(0, NODES))
    go_on(world)
    first = handles_in(get_call(scene.server))
    assert_br(scene.server.write_read(bc.reply()), BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert not first & handles_in(get_call(scene.server))
