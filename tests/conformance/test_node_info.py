# SPDX-License-Identifier: Apache-2.0
"""What can be asked about nodes: by their owner, and by the context manager."""

from __future__ import annotations

from errno import EINVAL, EPERM
from typing import TYPE_CHECKING, NamedTuple

import pytest

from binderwire.binder_abi import (
    BINDER_GET_NODE_DEBUG_INFO,
    BINDER_GET_NODE_INFO_FOR_REF,
    BINDER_SET_CONTEXT_MGR_EXT,
    BINDER_TYPE_BINDER,
    BR_ACQUIRE,
    BR_INCREFS,
    BR_NOOP,
    BR_RELEASE,
    BR_REPLY,
    BR_TRANSACTION_COMPLETE,
    binder_node_debug_info,
    binder_node_info_for_ref,
    flat_binder_object,
)
from support import bc
from support.playbook import statements
from support.scenes import Scene, answer, get_call, get_reply, give, manager_and_client, pass_on
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Thread, World

LARGEST = (1 << 64) - 1


class Told(NamedTuple):
    """What an owner is told about a node."""

    ptr: int
    cookie: int
    strong: int
    weak: int


NONE = Told(0, 0, 0, 0)


def node_after(thread: Thread, ptr: int) -> Told:
    argument = binder_node_debug_info.build(ptr=ptr, cookie=77, has_strong_ref=77, has_weak_ref=77)
    errno, argument = thread.ioctl(BINDER_GET_NODE_DEBUG_INFO, argument)
    assert errno == 0
    return Told(*binder_node_debug_info.unpack(argument))


def counts(manager: Thread, handle: int) -> tuple[int, int]:
    """Return how often the node behind a handle of the manager is held: (strong, weak)."""
    argument = binder_node_info_for_ref.build(handle=handle)
    errno, argument = manager.ioctl(BINDER_GET_NODE_INFO_FOR_REF, argument)
    assert errno == 0
    info = binder_node_info_for_ref.read(argument)
    assert (info.handle, info.reserved1, info.reserved2, info.reserved3) == (handle, 0, 0, 0)
    return info.strong_count, info.weak_count


@statements("BINDER_GET_NODE_DEBUG_INFO")
def test_a_process_without_nodes(world: World) -> None:
    thread = world.open().thread()
    assert node_after(thread, 0) == NONE
    assert node_after(thread, LARGEST) == NONE


@statements("BINDER_GET_NODE_DEBUG_INFO")
def test_own_nodes_can_be_listed_in_order(world: World) -> None:
    scene = manager_and_client(world)
    for ptr, cookie in ((0x2000, 2), (LARGEST, 3), (0x1000, 1)):
        give(scene, ptr, cookie)
    found = [NONE]
    for _ in range(4):
        found.append(node_after(scene.client, found[-1].ptr))
    nodes = [Told(0x1000, 1, 1, 1), Told(0x2000, 2, 1, 1), Told(LARGEST, 3, 1, 1)]
    assert found == [NONE, *nodes, NONE]
    assert node_after(scene.client, 0xFFF).ptr == 0x1000
    assert node_after(scene.client, 0x1001).ptr == 0x2000


@statements("BINDER_GET_NODE_DEBUG_INFO", "N5")
def test_it_says_what_the_owner_has_been_told(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000, 5)
    scene.client.write(bc.oneway(0, bc.payload(bc.binder(0x2000))))
    assert node_after(scene.client, 0x1000) == Told(0x2000, 0, 0, 0)
    assert_br(scene.client.read(), BR_NOOP, BR_INCREFS, BR_ACQUIRE, BR_TRANSACTION_COMPLETE)
    assert node_after(scene.client, 0x1000) == Told(0x2000, 0, 1, 1)
    scene.server.write(bc.increfs(number), bc.release(number))
    assert node_after(scene.client, 0) == Told(0x1000, 5, 1, 1)
    assert_br(scene.client.proc.looper().read(), BR_NOOP, BR_RELEASE)
    assert node_after(scene.client, 0) == Told(0x1000, 5, 0, 1)


@statements("BINDER_GET_NODE_DEBUG_INFO", "I6", "N8")
def test_only_nodes_of_the_same_file_and_never_that_at_0(world: World) -> None:
    scene = manager_and_client(world)
    give(scene, 0x1000)
    assert node_after(scene.client.proc.open_again().seasoned(), 0) == NONE
    assert node_after(scene.server, 0) == NONE
    other = world.open("hwbinder").seasoned()
    node = flat_binder_object.build(type=BINDER_TYPE_BINDER, binder=0x3000, cookie=7)
    assert other.ioctl(BINDER_SET_CONTEXT_MGR_EXT, node)[0] == 0
    assert node_after(other, 0) == Told(0x3000, 7, 1, 1)


@statements("BINDER_GET_NODE_INFO_FOR_REF")
def test_the_manager_can_ask_how_often_a_node_is_held(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    assert counts(scene.server, number) == (1, 0)
    others = [world.open().looper() for _ in range(2)]
    theirs = [pass_on(scene, number, other) for other in others]
    assert counts(scene.server, number) == (3, 0)
    scene.server.write(bc.acquire(number), bc.increfs(number))
    assert counts(scene.server, number) == (3, 0), "each process counts once"
    others[0].write(bc.release(theirs[0]))
    assert counts(scene.server, number) == (2, 0)
    others[1].proc.kill()
    assert counts(scene.server, number) == (1, 0)


@statements("BINDER_GET_NODE_INFO_FOR_REF", "N5", "N9")
def test_buffers_and_news_that_are_not_acknowledged_count(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0, bc.payload(bc.binder(0x1000))))
    call = get_call(scene.server)
    number = call.objects[0][1]
    assert counts(scene.server, number) == (1, 0)
    scene.server.write(bc.acquire(number))
    answer(scene.server, call)
    assert started.result().items[-1].word == BR_REPLY
    assert counts(scene.server, number) == (2, 1)
    scene.client.write(bc.increfs_done(0x1000))
    assert counts(scene.server, number) == (2, 0)
    scene.client.write(bc.acquire_done(0x1000))
    assert counts(scene.server, number) == (1, 0)
    scene.server.write(bc.oneway(number), bc.oneway(number))
    assert counts(scene.server, number) == (3, 0)


@statements("BINDER_GET_NODE_INFO_FOR_REF", "N9")
def test_a_handle_that_comes_home_counts(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    scene.server.write(bc.oneway(number, bc.payload(bc.handle(number), bc.weak_handle(number))))
    assert counts(scene.server, number) == (3, 1)
    call = get_call(scene.client)
    scene.client.write(bc.free(call.buffer))
    assert counts(scene.server, number) == (1, 0)


@statements("BINDER_GET_NODE_INFO_FOR_REF")
def test_the_node_of_a_dead_process_can_still_be_asked_about(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    scene.client.proc.kill()
    assert counts(scene.server, number) == (1, 0)


FIELDS = ("strong_count", "weak_count", "reserved1", "reserved2", "reserved3")


@statements("BINDER_GET_NODE_INFO_FOR_REF")
@pytest.mark.parametrize("field", FIELDS)
def test_fields_beside_the_handle_must_be_0(world: World, field: str) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    argument = binder_node_info_for_ref.build(**{"handle": number, field: 1})
    assert scene.server.ioctl(BINDER_GET_NODE_INFO_FOR_REF, argument) == (EINVAL, argument)
    assert scene.client.ioctl(BINDER_GET_NODE_INFO_FOR_REF, argument) == (EINVAL, argument)


@statements("BINDER_GET_NODE_INFO_FOR_REF", "N3")
@pytest.mark.parametrize("handle", [0, 1, 77, 0xFFFF_FFFF])
def test_a_handle_that_is_not_strong(world: World, handle: int) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    scene.server.write(bc.increfs(number), bc.release(number))
    argument = binder_node_info_for_ref.build(handle=handle)
    assert scene.server.ioctl(BINDER_GET_NODE_INFO_FOR_REF, argument) == (EINVAL, argument)


@statements("BINDER_GET_NODE_INFO_FOR_REF")
def test_nobody_else_may_ask(world: World) -> None:
    argument = binder_node_info_for_ref.build(handle=1)
    assert world.open().seasoned().ioctl(BINDER_GET_NODE_INFO_FOR_REF, argument)[0] == EPERM
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    argument = binder_node_info_for_ref.build(handle=number)
    assert scene.client.ioctl(BINDER_GET_NODE_INFO_FOR_REF, argument)[0] == EPERM
    second = scene.manager.open_again().seasoned()
    assert second.ioctl(BINDER_GET_NODE_INFO_FOR_REF, argument)[0] == EPERM


@statements("BINDER_GET_NODE_INFO_FOR_REF", "N1")
def test_an_old_handle_0_is_like_any_other(world: World) -> None:
    """Whoever holds the dead manager and follows it can ask about it as handle 0."""
    scene = manager_and_client(world)
    scene.client.write(bc.acquire(0))
    scene.manager.kill()
    scene.client.proc.become_manager()
    assert counts(scene.client, 0) == (1, 0)
    follower = Scene(scene.client, world.open().seasoned())
    started = follower.client.start(bc.call(0))
    answer(scene.client, get_call(scene.client))
    get_reply(started)
