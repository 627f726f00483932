# SPDX-License-Identifier: Apache-2.0
"""Nodes and handles: numbers, counts, and what owners are told (N1-N10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BINDER_SET_CONTEXT_MGR_EXT,
    BINDER_TYPE_BINDER,
    BINDER_TYPE_HANDLE,
    BR_ACQUIRE,
    BR_DEAD_BINDER,
    BR_DECREFS,
    BR_FAILED_REPLY,
    BR_INCREFS,
    BR_NOOP,
    BR_RELEASE,
    BR_REPLY,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    flat_binder_object,
)
from support import bc
from support.playbook import statements
from support.scenes import (
    Scene,
    answer,
    get_call,
    get_reply,
    give,
    manager_and_client,
    pass_on,
    round_trip,
    take,
)
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Thread, World


def fails(thread: Thread, *commands: bc.Command) -> bool:
    """Whether a call fails at once; otherwise it was queued."""
    thread.write(*commands)
    sent = thread.start()
    if sent.parked:
        return False
    assert_br(sent.result(), BR_NOOP, BR_FAILED_REPLY)
    return True


@statements("N1", "N4")
def test_handles_are_the_smallest_free_numbers(world: World) -> None:
    scene = manager_and_client(world)
    assert [take(scene, ptr) for ptr in (0x1000, 0x2000, 0x3000)] == [1, 2, 3]
    scene.client.write(bc.release(2))
    assert_br(scene.server.read(), BR_NOOP, BR_RELEASE, BR_DECREFS)
    scene.client.write(bc.release(1))
    assert_br(scene.server.read(), BR_NOOP, BR_RELEASE, BR_DECREFS)
    assert [take(scene, ptr) for ptr in (0x4000, 0x5000, 0x6000)] == [1, 2, 4]


@statements("N1", "N11")
def test_handle_0_exists_once_it_is_acquired(world: World) -> None:
    scene = manager_and_client(world)
    looper = scene.client.proc.looper()
    scene.client.write(bc.request_death(0, 1), bc.acquire(0), bc.request_death(0, 2))
    sleeping = looper.start()
    assert sleeping.parked
    scene.manager.kill()
    assert_br(sleeping.result(), BR_NOOP, (BR_DEAD_BINDER, {"value": 2}))


@statements("N1", "I5")
def test_calls_to_0_reach_the_manager_of_the_day(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.acquire(0))
    scene.manager.kill()
    successor = world.open()
    successor.become_manager()
    later = Scene(successor.looper(), scene.client)
    round_trip(later)
    scene.client.write(bc.acquire(0))
    started = scene.client.start(bc.call(1))
    answer(later.server, get_call(later.server, target=0))
    get_reply(started)


@statements("N1", "N8")
def test_the_manager_s_node_in_a_payload_becomes_handle_0(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    answer(scene.server, call, bc.payload(bc.binder(0, 0)))
    replied = get_reply(started, objects=[("handle", 0, 0, 0)])
    scene.client.write(bc.free(replied.buffer))
    assert scene.server.start().parked


@statements("N2")
def test_a_node_that_is_sent_again_keeps_its_handle(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    content = bc.payload(bc.binder(0x1000), bc.weak_binder(0x1000), bc.binder(0x2000))
    started = scene.client.start(bc.call(0, content))
    call = get_call(scene.server)
    assert [value for _, value, _, _ in call.objects] == [number, number, number + 1]
    answer(scene.server, call)
    get_reply(started)


@statements("N2", "I6")
def test_handles_belong_to_the_open_file(world: World) -> None:
    scene = manager_and_client(world)
    assert [take(scene, 0x1000), take(scene, 0x2000)] == [1, 2]
    second = scene.client.proc.open_again().seasoned()
    started = second.start(bc.call(0))
    answer(scene.server, get_call(scene.server), bc.payload(bc.binder(0x2000)))
    replied = get_reply(started, objects=[("handle", 1, 0, 0)])
    assert not fails(second, bc.call(1))
    assert fails(second.proc.seasoned(), bc.call(2))
    assert replied.buffer == second.proc.mapping[0]


def take_weak(scene: Scene, ptr: int) -> int:
    """Like ``take``, but the client gets and keeps only a weak reference."""
    started = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    content = bc.payload(bc.weak_binder(ptr))
    outcome = scene.server.write_read(bc.free(call.buffer), bc.reply(content))
    assert_br(outcome, BR_NOOP, BR_INCREFS, BR_TRANSACTION_COMPLETE)
    scene.server.write(bc.increfs_done(ptr))
    replied = get_reply(started)
    kind, number, _, _ = replied.objects[0]
    assert kind == "weak handle"
    scene.client.write(bc.increfs(number), bc.free(replied.buffer))
    return number


@statements("N3", "N5")
def test_a_weak_handle_cannot_be_made_strong(world: World) -> None:
    scene = manager_and_client(world)
    number = take_weak(scene, 0x1000)
    scene.client.write(bc.acquire(number), bc.release(number))
    assert fails(scene.client, bc.call(number))
    assert fails(scene.client, bc.oneway(number))
    assert fails(scene.client, bc.call(0, bc.payload(bc.handle(number))))
    assert scene.server.start().parked


@statements("N3", "N9", "N11")
def test_what_a_weak_handle_is_good_for(world: World) -> None:
    scene = manager_and_client(world)
    number = take_weak(scene, 0x1000)
    scene.client.write(bc.request_death(number, 7))
    started = scene.client.start(bc.call(0, bc.payload(bc.weak_handle(number))))
    call = get_call(scene.server, objects=[("weak binder", 0x1000, 0, 0)])
    answer(scene.server, call)
    get_reply(started)
    scene.manager.kill()
    assert_br(scene.client.read(), BR_NOOP, (BR_DEAD_BINDER, {"value": 7}))


@statements("N4", "N11")
def test_a_dropped_handle_takes_its_death_request_along(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    sleeping = scene.client.proc.looper().start()
    scene.client.write(bc.request_death(number, 7), bc.release(number))
    assert fails(scene.client, bc.call(number))
    scene.manager.kill()
    assert sleeping.parked


@statements("N4", "BC_INCREFS", "BC_ACQUIRE", "BC_RELEASE", "BC_DECREFS")
def test_a_handle_lives_while_either_count_does(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    scene.client.write(bc.increfs(number), bc.acquire(number), bc.release(number))
    scene.client.write(bc.decrefs(number))
    assert scene.server.start().parked
    assert not fails(scene.client, bc.call(number))


@statements(
    "N5",
    "N6",
    "BC_INCREFS_DONE",
    "BC_ACQUIRE_DONE",
    "BR_INCREFS",
    "BR_ACQUIRE",
    "BR_RELEASE",
    "BR_DECREFS",
)
def test_the_owner_is_told_after_its_acknowledgements_only(world: World) -> None:
    scene = manager_and_client(world)
    owner, looper = scene.client, scene.client.proc.looper()
    started = owner.start(bc.call(0, bc.payload(bc.binder(0x1000))))
    call = get_call(scene.server)
    scene.server.write(bc.acquire(call.objects[0][1]))
    answer(scene.server, call)
    assert_br(started.result(), BR_NOOP, BR_INCREFS, BR_ACQUIRE, BR_TRANSACTION_COMPLETE, BR_REPLY)
    sleeping = looper.start()
    scene.server.write(bc.release(1))
    assert sleeping.parked
    owner.write(bc.acquire_done(0x1000))
    assert_br(sleeping.result(), BR_NOOP, (BR_RELEASE, {"ptr": 0x1000}))
    sleeping = looper.start()
    assert sleeping.parked
    owner.write(bc.increfs_done(0x1000))
    assert_br(sleeping.result(), BR_NOOP, (BR_DECREFS, {"ptr": 0x1000}))


@statements("N5")
def test_acknowledged_in_the_other_order_both_are_told_at_once(world: World) -> None:
    scene = manager_and_client(world)
    owner, looper = scene.client, scene.client.proc.looper()
    started = owner.start(bc.call(0, bc.payload(bc.binder(0x1000))))
    call = get_call(scene.server)
    scene.server.write(bc.acquire(call.objects[0][1]))
    answer(scene.server, call)
    assert started.result().items[-1].word == BR_REPLY
    scene.server.write(bc.release(1))
    sleeping = looper.start()
    owner.write(bc.increfs_done(0x1000))
    assert sleeping.parked
    owner.write(bc.acquire_done(0x1000))
    assert_br(sleeping.result(), BR_NOOP, BR_RELEASE, BR_DECREFS)


@statements("N5", "N4")
def test_strong_and_weak_are_told_apart(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000, 5)
    looper = scene.client.proc.looper()
    scene.server.write(bc.increfs(number), bc.release(number))
    assert_br(looper.read(), BR_NOOP, (BR_RELEASE, {"ptr": 0x1000, "cookie": 5}))
    scene.server.write(bc.decrefs(number))
    assert_br(looper.read(), BR_NOOP, (BR_DECREFS, {"ptr": 0x1000, "cookie": 5}))


@statements("N5")
def test_a_node_nobody_kept_was_never_heard_of(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0, bc.payload(bc.binder(0x1000))))
    answer(scene.server, get_call(scene.server))
    get_reply(started)
    assert give(scene, 0x1000, 9) == 1


@statements("N6")
def test_acquiring_is_told_to_the_sender_and_releasing_to_anybody(world: World) -> None:
    scene = manager_and_client(world)
    sleeping = scene.client.proc.looper().start()
    number = give(scene, 0x1000)
    assert sleeping.parked
    scene.server.write(bc.release(number))
    assert_br(sleeping.result(), BR_NOOP, BR_RELEASE, BR_DECREFS)


@statements("N7", "E2")
def test_a_node_that_is_sent_with_another_cookie_is_refused(world: World) -> None:
    scene = manager_and_client(world)
    give(scene, 0x1000, 5)
    assert fails(scene.client, bc.call(0, bc.payload(bc.binder(0x1000, 6))))
    assert fails(scene.client, bc.call(0, bc.payload(bc.weak_binder(0x1000, 0))))
    assert not fails(scene.client, bc.call(0, bc.payload(bc.binder(0x1000, 5))))


@statements("N8", "BINDER_SET_CONTEXT_MGR")
def test_the_manager_is_never_told_about_handle_0(world: World) -> None:
    scene = manager_and_client(world)
    sleeping = scene.server.start()
    scene.client.write(bc.increfs(0), bc.acquire(0), bc.release(0), bc.decrefs(0))
    scene.client.write(bc.acquire(0), bc.acquire(0), bc.release(0), bc.release(0))
    assert sleeping.parked
    scene.client.write(bc.oneway(0))
    assert_br(sleeping.result(), BR_NOOP, (BR_TRANSACTION, {"target": 0, "cookie": 0}))


@statements("N8", "BINDER_SET_CONTEXT_MGR_EXT")
def test_a_manager_with_a_node_of_its_own_choice(world: World) -> None:
    manager, client = world.open(), world.open().seasoned()
    server = manager.looper()
    argument = flat_binder_object.build(type=BINDER_TYPE_BINDER, binder=0x1234, cookie=0x5678)
    assert server.ioctl(BINDER_SET_CONTEXT_MGR_EXT, argument)[0] == 0
    client.write(bc.oneway(0))
    get_call(server, target=0x1234, cookie=0x5678)


@statements("N9")
def test_a_received_handle_lives_until_its_buffer_is_freed(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    content = bc.payload(bc.binder(0x1000))
    outcome = scene.server.write_read(bc.free(call.buffer), bc.reply(content))
    assert_br(outcome, BR_NOOP, BR_INCREFS, BR_ACQUIRE, BR_TRANSACTION_COMPLETE)
    scene.server.write(bc.increfs_done(0x1000), bc.acquire_done(0x1000))
    replied = get_reply(started, objects=[("handle", 1, 0, 0)])
    second = scene.client.start(bc.call(1))
    answer(scene.server, get_call(scene.server, target=0x1000))
    get_reply(second)
    scene.client.write(bc.free(replied.buffer))
    assert fails(scene.client, bc.call(1))
    assert_br(scene.server.read(), BR_NOOP, BR_RELEASE, BR_DECREFS)


@statements("N9", "N10")
def test_a_handle_that_comes_home_is_the_object_again(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000, 5)
    content = bc.payload(bc.handle(number, cookie=0xDEAD, flags=0x13))
    started = scene.client.start(bc.call(0, content))
    call = get_call(scene.server, objects=[("binder", 0x1000, 5, 0x13)])
    scene.client.proc.seasoned().write(bc.release(number))
    idle = scene.manager.looper().start()
    assert idle.parked
    scene.server.write(bc.free(call.buffer))
    assert_br(idle.result(), BR_NOOP, BR_RELEASE, BR_DECREFS)
    assert_br(scene.server.write_read(bc.reply()), BR_NOOP, BR_TRANSACTION_COMPLETE)
    get_reply(started)


@statements("N10")
@pytest.mark.parametrize("kind", ["binder", "handle"])
def test_a_translated_handle_is_clean(world: World, kind: str) -> None:
    scene = manager_and_client(world)
    receiver = world.open().looper()
    to_receiver = take(Scene(scene.server, scene.client), 0x9000)
    number = pass_on(scene, give(scene, 0x3000, owner=receiver), scene.client)
    assert number != to_receiver
    if kind == "binder":
        sent = bc.binder(0x7000_0000_1000, cookie=0xDEAD, flags=0x7F)
    else:
        sent = flat_binder_object.build(
            type=BINDER_TYPE_HANDLE, flags=0x7F, binder=0xFFFF_FFFF << 32 | to_receiver, cookie=9
        )
    scene.client.write(bc.oneway(number, bc.payload(bytes(4), sent, b"tail")))
    call = get_call(receiver, objects=[("handle", 1, 0, 0x7F)])
    assert call.data[:4] == bytes(4)
    assert call.data[-4:] == b"tail"


@statements("N10", "O1")
def test_everything_around_the_objects_arrives_as_it_was(world: World) -> None:
    scene = manager_and_client(world)
    parts = [b"1234", bc.binder(0x1000), b"", bc.weak_binder(0x2000, 3), b"567890123"]
    data, offsets = bc.payload(*parts)
    started = scene.client.start(bc.call(0, (data, offsets)))
    call = get_call(scene.server, offset_list=list(offsets), data_size=len(data))
    assert call.objects == [("handle", 1, 0, 0), ("weak handle", 2, 0, 0)]
    received = call.data
    assert (received[:4], received[52:]) == (b"1234", b"567890123")
    answer(scene.server, call)
    get_reply(started)
