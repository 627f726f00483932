# SPDX-License-Identifier: Apache-2.0
"""Nodes that want to know their caller's security context (I2)."""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP
from typing import TYPE_CHECKING

from binderwire.binder_abi import (
    BR_ACQUIRE,
    BR_FAILED_REPLY,
    BR_INCREFS,
    BR_NOOP,
    BR_TRANSACTION_COMPLETE,
    BR_TRANSACTION_SEC_CTX,
    FLAT_BINDER_FLAG_TXN_SECURITY_CTX,
)
from support import bc
from support.playbook import statements
from support.scenes import (
    CONTEXT,
    Scene,
    answer,
    curious,
    get_call,
    get_reply,
    manager_and_client,
    take,
)
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Proc, Thread, World
    from support.transcript import Received

LEAD = b"leading!"


def has_contexts(world: World, scene: Scene) -> bool:
    """Whether the driver finds a context for the client; where it does not, calls fail.

    Not every security module that gives processes a context tells the driver, AppArmor does not.
    """
    sleeping = scene.server.start()
    outcome = scene.client.write_read(bc.oneway(0))
    if outcome.items[-1].word == BR_TRANSACTION_COMPLETE:
        scene.server.write(bc.free(sleeping.result().items[-1].buffer))
        return True
    assert_br(outcome, BR_NOOP, BR_FAILED_REPLY)
    assert scene.client.extended_error()[1:] in (
        (BR_FAILED_REPLY, -EOPNOTSUPP),
        (BR_FAILED_REPLY, -EINVAL),
    )
    assert sleeping.parked
    assert world.is_kernel or scene.client.proc.security_context() is None
    world.excuse("no security module gives the driver a context here")
    return False


def get_labelled_call(server: Thread, **wanted: object) -> Received:
    return assert_br(server.read(), BR_NOOP, (BR_TRANSACTION_SEC_CTX, wanted))[0]


def label(proc: Proc, call: Received) -> bytes:
    """The context that came with a call, without the NUL that may end it."""
    end = call.secctx + 256
    start, size = proc.mapping
    return proc.peek(call.secctx, min(end, start + size) - call.secctx).partition(b"\0")[0]


@statements("I2", "BR_TRANSACTION_SEC_CTX", "B7")
def test_the_context_comes_with_the_call(world: World) -> None:
    scene = curious(world)
    if not has_contexts(world, scene):
        return
    started = scene.client.start(bc.call(0, b"data", code=3))
    call = get_labelled_call(scene.server, code=3, target=0x9000, data=b"data")
    assert label(scene.manager, call) == scene.client.proc.security_context()
    assert call.secctx == call.buffer + 8
    answer(scene.server, call)
    get_reply(started)


@statements("I2", "B1", "O3")
def test_the_context_lies_behind_all_other_parts(world: World) -> None:
    scene = curious(world)
    if not has_contexts(world, scene):
        return
    piece = scene.client.proc.put(b"piece of memory!")
    content = bc.payload(LEAD, bc.ptr(piece, 16))
    scene.client.write(bc.oneway_sg(0, content, buffers_size=24))
    call = get_labelled_call(scene.server)
    assert call.extra == call.records[0].buffer
    assert scene.manager.peek(call.extra, 16) == b"piece of memory!"
    assert call.secctx == call.extra + 24
    assert label(scene.manager, call) == scene.client.proc.security_context()


@statements("I2", "O3", "E2")
def test_the_context_is_no_room_for_pieces(world: World) -> None:
    scene = curious(world)
    if not has_contexts(world, scene):
        return
    piece = scene.client.proc.put(b"piece of memory!")
    content = bc.payload(LEAD, bc.ptr(piece, 16))
    command = bc.call_sg(0, content, buffers_size=8)
    assert_br(scene.client.write_read(command), BR_NOOP, BR_FAILED_REPLY)


@statements("I2")
def test_an_empty_call_has_a_context_too(world: World) -> None:
    scene = curious(world)
    if not has_contexts(world, scene):
        return
    scene.client.write(bc.oneway(0))
    call = get_labelled_call(scene.server, data_size=0, offsets_size=0)
    assert call.secctx == call.buffer
    assert label(scene.manager, call) == scene.client.proc.security_context()


@statements("I2", "R2")
def test_the_longer_item_needs_no_more_room_than_any(world: World) -> None:
    scene = curious(world)
    if not has_contexts(world, scene):
        return
    scene.client.write(bc.oneway(0))
    assert_br(scene.server.read(79), BR_NOOP)
    assert_br(scene.server.read(80), BR_NOOP, BR_TRANSACTION_SEC_CTX)


@statements("I2")
def test_other_nodes_and_replies_have_none(world: World) -> None:
    scene = curious(world)
    if not has_contexts(world, scene):
        return
    started = scene.client.start(bc.call(0))
    call = get_labelled_call(scene.server)
    scene.server.write(bc.free(call.buffer), bc.reply(bc.payload(bc.binder(0x1000))))
    reply = get_reply(started)
    scene.client.write(bc.acquire(reply.objects[0][1]), bc.free(reply.buffer))
    scene.client.write(bc.oneway(reply.objects[0][1]))
    found = scene.server.read()
    assert_br(found, BR_NOOP, BR_INCREFS, BR_ACQUIRE, BR_TRANSACTION_COMPLETE)
    get_call(scene.server, target=0x1000)


@statements("I2", "BR_TRANSACTION_SEC_CTX")
def test_any_node_can_ask_for_it(world: World) -> None:
    scene = manager_and_client(world)
    sender = world.open(context=CONTEXT).seasoned()
    number = take(scene._replace(client=sender), 0x1000, flags=FLAT_BINDER_FLAG_TXN_SECURITY_CTX)
    outcome = sender.write_read(bc.oneway(number))
    if outcome.items[-1].word == BR_FAILED_REPLY:
        world.excuse("no security module gives the driver a context here")
        return
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_COMPLETE)
    get_labelled_call(scene.server, target=0x1000)


@statements("I2", "E2", "B9")
def test_without_a_context_the_call_fails(world: World) -> None:
    scene = curious(world, context=None)
    if scene.client.proc.security_context() is not None:
        world.excuse("a security module, or binderd itself, gives processes a context here")
        return
    assert_br(scene.client.write_read(bc.call(0)), BR_NOOP, BR_FAILED_REPLY)
    assert scene.client.extended_error()[1:] == (BR_FAILED_REPLY, -EOPNOTSUPP)
    assert scene.server.poll() == 0
