# SPDX-License-Identifier: Apache-2.0
"""Buffers whose sender wants them wiped (B6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderwire.binder_abi import (
    BR_FAILED_REPLY,
    BR_FROZEN_REPLY,
    BR_NOOP,
    BR_TRANSACTION_COMPLETE,
    TF_CLEAR_BUF,
    TF_ONE_WAY,
)
from support import bc
from support.playbook import SPARE_ADDRESS, statements
from support.scenes import (
    answer,
    freezer,
    get_call,
    get_reply,
    give,
    manager_and_client,
    round_trip,
)
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Proc, World

SECRET = b"a secret of 24 bytes....."[:24]
LEAD = b"leading!"


def start_of(proc: Proc, size: int) -> bytes:
    """Return what is at the start of a receive area."""
    return proc.peek(proc.mapping[0], size)


@statements("B6")
def test_a_call_is_wiped_when_it_is_freed(world: World) -> None:
    scene = manager_and_client(world)
    before = world.open().seasoned().start(bc.call(0, b"stays 1!"))
    first = get_call(scene.server)
    started = scene.client.start(bc.call(0, SECRET, flags=TF_CLEAR_BUF))
    server = scene.manager.looper()
    call = get_call(server, data=SECRET, flags=TF_CLEAR_BUF)
    after = world.open().seasoned().start(bc.call(0, b"stays 2!"))
    last = get_call(scene.manager.looper())
    assert (call.buffer, last.buffer) == (first.buffer + 8, call.buffer + 24)
    server.write(bc.free(call.buffer))
    assert scene.manager.peek(call.buffer, 24) == bytes(24)
    assert (first.data, last.data) == (b"stays 1!", b"stays 2!")
    assert server.write_read(bc.reply()).errno == 0
    get_reply(started)
    assert before.parked
    assert after.parked


@statements("B6")
def test_what_is_not_to_be_wiped_is_not(world: World) -> None:
    if world.differs("fuse", "cuse", reason="free pages may go back to the system at any time"):
        return
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0, SECRET))
    answer(scene.server, get_call(scene.server))
    get_reply(started)
    assert start_of(scene.manager, 24) == SECRET


@statements("B6")
def test_a_reply_is_wiped_if_the_replier_wants_it(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    answer(scene.server, get_call(scene.server), SECRET, flags=TF_CLEAR_BUF)
    reply = get_reply(started, data=SECRET)
    scene.client.write(bc.free(reply.buffer))
    assert start_of(scene.client.proc, 24) == bytes(24)


@statements("B6")
def test_the_flag_of_a_call_is_not_about_its_reply(world: World) -> None:
    if world.differs("fuse", "cuse", reason="free pages may go back to the system at any time"):
        return
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0, SECRET, flags=TF_CLEAR_BUF))
    answer(scene.server, get_call(scene.server), SECRET)
    scene.client.write(bc.free(get_reply(started).buffer))
    assert start_of(scene.client.proc, 24) == SECRET
    assert start_of(scene.manager, 24) == bytes(24)


@statements("B6", "O3")
def test_everything_is_wiped_with_the_data(world: World) -> None:
    scene = manager_and_client(world)
    piece = scene.client.proc.put(SECRET)
    content = bc.payload(LEAD, bc.ptr(piece, 24))
    flags = TF_CLEAR_BUF | TF_ONE_WAY
    scene.client.write(bc.call_sg(0, content, buffers_size=24, flags=flags))
    call = get_call(scene.server)
    assert scene.manager.peek(call.extra, 24) == SECRET
    scene.server.write(bc.free(call.buffer))
    assert scene.manager.peek(call.buffer, call.extra + 24 - call.buffer) == bytes(80)


@statements("B6", "N9")
def test_what_the_objects_held_is_let_go_all_the_same(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    flags = TF_CLEAR_BUF | TF_ONE_WAY
    started = scene.client.start(
        bc.call(0, bc.payload(bc.binder(0x1000), bc.binder(0x2000)), flags=flags)
    )
    call = get_call(scene.server)
    assert [value for _, value, _, _ in call.objects] == [number, number + 1]
    started.result()
    scene.client.write(*(f(0x2000) for f in (bc.increfs_done, bc.acquire_done)))
    scene.server.write(bc.free(call.buffer))
    assert [item.name for item in scene.client.read().items][1:] == ["BR_RELEASE", "BR_DECREFS"]
    assert give(scene, 0x3000) == number + 1


@statements("B6", "B9")
def test_a_call_that_fails_is_wiped_too(world: World) -> None:
    scene = manager_and_client(world)
    round_trip(scene, bytes(64))
    piece = scene.client.proc.put(SECRET)
    content = bc.payload(SECRET, bc.ptr(piece, 24), bc.ptr(SPARE_ADDRESS, 8))
    command = bc.call_sg(0, content, buffers_size=32, flags=TF_CLEAR_BUF)
    assert_br(scene.client.write_read(command), BR_NOOP, BR_FAILED_REPLY)
    assert SECRET not in start_of(scene.manager, 256)


@statements("B6", "E3")
def test_a_call_that_is_refused_is_wiped_too(world: World) -> None:
    scene = manager_and_client(world)
    round_trip(scene, bytes(64))
    assert freezer(world).freeze(scene.manager.pid) == 0
    command = bc.call(0, SECRET, flags=TF_CLEAR_BUF)
    assert_br(scene.client.write_read(command), BR_NOOP, BR_FROZEN_REPLY)
    assert SECRET not in start_of(scene.manager, 64)


@statements("B6", "Q7")
def test_a_wiped_oneway_makes_room_for_the_next(world: World) -> None:
    scene = manager_and_client(world)
    for content in (SECRET, b"next"):
        outcome = scene.client.write_read(bc.oneway(0, content, flags=TF_CLEAR_BUF))
        assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE)
    first = get_call(scene.server, data=SECRET)
    scene.server.write(bc.free(first.buffer))
    assert start_of(scene.manager, 24) == bytes(24)
    get_call(scene.server, data=b"next")
