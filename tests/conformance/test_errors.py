# SPDX-License-Identifier: Apache-2.0
"""Failures: which code, told to whom, and what is left alone (E1, E2, E4-E7)."""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BC_ACQUIRE_RESULT,
    BC_ATTEMPT_ACQUIRE,
    BINDER_TYPE_FD,
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_NOOP,
    BR_REPLY,
    BR_TRANSACTION_COMPLETE,
    COMMANDS,
    binder_fd_object,
)
from binderwire.commands import message
from support import bc
from support.playbook import MAPPING_SIZE, SPARE_ADDRESS, statements
from support.scenes import (
    Scene,
    answer,
    get_call,
    get_reply,
    give,
    manager_and_client,
    round_trip,
    take,
)
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import World

BAD_HANDLE = 77


@statements("E1")
def test_a_call_to_handle_0_without_a_manager(world: World) -> None:
    client = world.open().seasoned()
    assert_br(client.write_read(bc.call(0)), BR_NOOP, BR_DEAD_REPLY)
    assert_br(client.write_read(bc.oneway(0)), BR_NOOP, BR_DEAD_REPLY)


@statements("E1")
def test_a_call_to_a_node_whose_owner_is_dead(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    scene.client.proc.kill()
    assert_br(scene.server.write_read(bc.call(number)), BR_NOOP, BR_DEAD_REPLY)
    assert_br(scene.server.write_read(bc.oneway(number)), BR_NOOP, BR_DEAD_REPLY)


@statements("E1")
def test_a_call_to_a_process_that_mapped_nothing(world: World) -> None:
    manager = world.open(size=None)
    manager.become_manager()
    client = world.open().seasoned()
    assert_br(client.write_read(bc.call(0)), BR_NOOP, BR_DEAD_REPLY)
    assert_br(client.write_read(bc.oneway(0, b"data")), BR_NOOP, BR_DEAD_REPLY)


@statements("E1", "Q9")
def test_the_called_process_dies_before_it_read_the_call(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    scene.manager.kill()
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)


@statements("E1", "I7")
def test_the_called_process_dies_while_it_serves(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    get_call(scene.server)
    assert started.parked
    scene.manager.kill()
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)


def flat_with(type_word: int) -> bytes:
    return type_word.to_bytes(4, "little") + bytes(20)


DATA = bytes(64)
UNSENDABLE = {
    "unknown handle": bc.call(BAD_HANDLE),
    "unknown handle, oneway": bc.oneway(BAD_HANDLE),
    "more data than space": bc.call(0, data_size=MAPPING_SIZE + 8),
    "more oneway data than half the space": bc.oneway(0, data_size=MAPPING_SIZE // 2 + 8),
    "sizes that overflow": bc.call(0, data_size=(1 << 64) - 1),
    "sizes that overflow together": bc.call(0, data_size=1 << 63, offsets_size=1 << 63),
    "data that cannot be read": bc.call(0, data_size=8, buffer=SPARE_ADDRESS),
    "offsets that cannot be read": bc.call(0, DATA, offsets_size=8, offsets=SPARE_ADDRESS),
    "offsets of no multiple of 8": bc.call(0, bc.payload(DATA, at=[0]), offsets_size=4),
    "unknown object": bc.call(0, bc.payload(flat_with(0x1234), at=[0])),
    "object of zeros": bc.call(0, bc.payload(DATA, at=[0])),
    "unknown handle object": bc.call(0, bc.payload(bc.handle(BAD_HANDLE))),
    "unknown weak handle object": bc.call(0, bc.payload(bc.weak_handle(BAD_HANDLE))),
    "descriptor that is not accepted": bc.call(
        0, bc.payload(binder_fd_object.build(type=BINDER_TYPE_FD, fd=0))
    ),
}


@statements("E2", "B9")
@pytest.mark.parametrize("command", UNSENDABLE.values(), ids=UNSENDABLE)
def test_a_call_that_cannot_be_sent(world: World, command: bc.Parcel) -> None:
    scene = manager_and_client(world)
    sleeping = scene.server.start()
    assert_br(scene.client.write_read(command), BR_NOOP, BR_FAILED_REPLY)
    assert sleeping.parked
    scene.client.write(bc.oneway(0, b"after"))
    delivered = sleeping.result().items[-1]
    assert delivered.data == b"after"
    assert delivered.buffer == scene.manager.mapping[0]


@statements("E2", "N3")
def test_a_call_to_a_weak_handle(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    scene.client.write(bc.increfs(number), bc.release(number))
    assert_br(scene.client.write_read(bc.call(number)), BR_NOOP, BR_FAILED_REPLY)


@statements("E2")
def test_handle_0_from_the_manager_s_own_process(world: World) -> None:
    scene = manager_and_client(world)
    assert_br(scene.server.write_read(bc.call(0)), BR_NOOP, BR_FAILED_REPLY)
    second = scene.manager.open_again().seasoned()
    assert_br(second.write_read(bc.call(0)), BR_NOOP, BR_FAILED_REPLY)


@statements("E2", "B3")
def test_space_that_others_hold_cannot_be_had(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0, bytes(MAPPING_SIZE - 64)))
    other = world.open().seasoned()
    assert_br(other.write_read(bc.call(0, bytes(65))), BR_NOOP, BR_FAILED_REPLY)
    other.write(bc.call(0, bytes(64)))
    held = get_call(scene.server, data=bytes(MAPPING_SIZE - 64))
    answer(scene.server, held)
    answer(scene.server, get_call(scene.server, data=bytes(64)))


BAD_REPLIES = {
    "data that cannot be read": bc.reply(data_size=8, buffer=SPARE_ADDRESS),
    "more data than space": bc.reply(data_size=MAPPING_SIZE + 8),
    "unknown handle object": bc.reply(bc.payload(bc.handle(BAD_HANDLE))),
}


@statements("E4", "Q9")
@pytest.mark.parametrize("command", BAD_REPLIES.values(), ids=BAD_REPLIES)
def test_a_reply_that_fails_is_the_caller_s_to_know(world: World, command: bc.Parcel) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    get_call(scene.server)
    assert_br(scene.server.write_read(command), BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
    assert_br(scene.server.write_read(bc.reply()), BR_NOOP, BR_FAILED_REPLY)


@statements("E4", "E1")
def test_a_reply_to_a_caller_that_mapped_nothing(world: World) -> None:
    scene = manager_and_client(world)
    client = world.open(size=None).seasoned()
    started = client.start(bc.call(0))
    get_call(scene.server)
    assert_br(scene.server.write_read(bc.reply()), BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)


@statements("E4", "E2")
def test_a_reply_to_nothing(world: World) -> None:
    scene = manager_and_client(world)
    assert_br(scene.server.write_read(bc.reply()), BR_NOOP, BR_FAILED_REPLY)
    scene.client.write(bc.oneway(0))
    scene.server.write(bc.free(get_call(scene.server).buffer))
    assert_br(scene.server.write_read(bc.reply()), BR_NOOP, BR_FAILED_REPLY)


@statements("E4", "Q6")
def test_a_reply_while_waiting_for_one_s_own(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    scene.client.write(bc.call(0))
    call = get_call(scene.server)
    scene.server.write(bc.call(number))
    outcome = scene.server.write_read(bc.reply())
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
    nested = scene.client.read().items[-1]
    answer(scene.client, nested)
    assert_br(scene.server.read(), BR_NOOP, BR_REPLY)
    answer(scene.server, call)


@statements("E5")
def test_a_reply_to_a_dead_caller(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.start(bc.call(0))
    call = get_call(scene.server)
    scene.client.proc.kill()
    answer(scene.server, call)
    round_trip(Scene(scene.server, world.open().seasoned()))


@statements("E5", "E1")
def test_a_reply_to_a_caller_that_left_reaches_the_next_one_out(world: World) -> None:
    scene = manager_and_client(world)
    third = world.open().looper()
    to_third = give(scene, 0x3000, owner=third)
    outer = scene.client.start(bc.call(0))
    get_call(scene.server)
    scene.server.write(bc.call(to_third))
    call = get_call(third)
    scene.server.exit()
    assert outer.parked
    answer(third, call)
    assert_br(outer.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)


ATTEMPT_ACQUIRE = message(COMMANDS, BC_ATTEMPT_ACQUIRE)
ACQUIRE_RESULT = message(COMMANDS, BC_ACQUIRE_RESULT)


@statements("E6", "Q11", "BC_ATTEMPT_ACQUIRE", "BC_ACQUIRE_RESULT")
def test_commands_that_were_never_implemented(world: World) -> None:
    client = world.open().seasoned()
    for command in (ATTEMPT_ACQUIRE, ACQUIRE_RESULT):
        outcome = client.write_read(bc.enter_looper(), command)
        assert (outcome.errno, outcome.write_consumed) == (EINVAL, 4)


@statements("E6")
@pytest.mark.parametrize("command", [bc.acquire(0), bc.increfs(0)], ids=["acquire", "increfs"])
def test_the_manager_must_not_refer_to_itself(world: World, command: bytes) -> None:
    scene = manager_and_client(world)
    outcome = scene.server.write_read(command, read=0)
    assert (outcome.errno, outcome.write_consumed) == (EINVAL, 0)


IGNORED = {
    "acquire": bc.acquire(BAD_HANDLE),
    "increfs": bc.increfs(BAD_HANDLE),
    "release": bc.release(BAD_HANDLE),
    "decrefs": bc.decrefs(BAD_HANDLE),
    "acquire 0 without a manager": bc.acquire(0),
    "release 0": bc.release(0),
    "free": bc.free(0x1234),
    "increfs done": bc.increfs_done(0x1000),
    "acquire done": bc.acquire_done(0x1000),
    "request death": bc.request_death(BAD_HANDLE, 1),
    "clear death": bc.clear_death(BAD_HANDLE, 1),
    "dead binder done": bc.dead_binder_done(1),
}


@statements("E7")
@pytest.mark.parametrize("command", IGNORED.values(), ids=IGNORED)
def test_a_command_that_means_nothing_is_ignored(world: World, command: bytes) -> None:
    thread = world.open().seasoned()
    thread.write(command, bc.enter_looper())
    assert thread.start().parked


@statements("E7")
def test_a_decrement_too_many_is_ignored(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    scene.client.write(bc.decrefs(number), bc.decrefs(number))
    scene.client.write(bc.increfs(number), bc.release(number), bc.release(number))
    sleeping = scene.server.read()
    assert [item.name for item in sleeping.items] == ["BR_NOOP", "BR_RELEASE"]


@statements("E7", "N5")
def test_an_acknowledgement_that_does_not_fit_is_ignored(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000, 5)
    looper = scene.client.proc.looper()
    scene.client.write(bc.acquire_done(0x1000, 5), bc.increfs_done(0x1000, 5))
    scene.client.write(bc.acquire_done(0x1000, 6), bc.increfs_done(0x2000, 5))
    sleeping = looper.start()
    assert sleeping.parked
    scene.server.write(bc.release(number))
    assert [item.name for item in sleeping.result().items] == [
        "BR_NOOP",
        "BR_RELEASE",
        "BR_DECREFS",
    ]


@statements("E7", "N11")
def test_death_requests_that_do_not_fit_are_ignored(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    looper = scene.client.proc.looper()
    looper.write(bc.request_death(number, 7), bc.request_death(number, 8))
    looper.write(bc.clear_death(number, 8), bc.dead_binder_done(7))
    sleeping = looper.start()
    assert sleeping.parked
    scene.manager.kill()
    assert [item.value for item in sleeping.result().items[1:]] == [7]
    looper.write(bc.dead_binder_done(8))
    looper.write(bc.dead_binder_done(7))
    assert looper.start().parked


@statements("E7", "B5")
def test_a_buffer_is_freed_once(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0, bytes(64)))
    call = get_call(scene.server)
    scene.server.write(bc.free(call.buffer), bc.free(call.buffer), bc.free(call.buffer + 8))
    answer(scene.server, call)
    get_reply(started)
