# SPDX-License-Identifier: Apache-2.0
"""One-way calls to the frozen: they wait, and newer ones may take their place (F3, F4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BR_NOOP,
    BR_OK,
    BR_TRANSACTION,
    BR_TRANSACTION_PENDING_FROZEN,
    TF_CLEAR_BUF,
    TF_UPDATE_TXN,
)
from support import bc
from support.playbook import MAPPING_SIZE, statements
from support.scenes import (
    LONG,
    freezer,
    frozen_scene,
    get_call,
    give,
    manager_and_client,
    round_trip,
    take,
)
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Thread, World

PENDING = (BR_NOOP, BR_TRANSACTION_PENDING_FROZEN)


@statements("F3", "BR_TRANSACTION_PENDING_FROZEN", "BINDER_GET_FROZEN_INFO")
def test_a_oneway_to_the_frozen_is_queued_and_the_sender_is_told(world: World) -> None:
    scene, hand = frozen_scene(world)
    assert_br(scene.client.write_read(bc.oneway(0, b"first")), *PENDING)
    assert_br(scene.client.write_read(bc.oneway(0, b"second")), *PENDING)
    assert scene.client.extended_error()[1:] == (BR_OK, 0)
    assert hand.frozen_info(scene.manager.pid) == (2, 1)
    hand.thaw(scene.manager.pid)
    first = get_call(scene.server, data=b"first")
    scene.server.write(bc.free(first.buffer))
    get_call(scene.server, data=b"second")


@statements("F3")
def test_a_thread_that_still_runs_gets_oneways_at_once(world: World) -> None:
    scene, _ = frozen_scene(world)
    sleeping = scene.server.start()
    assert_br(scene.client.write_read(bc.oneway(0, b"runs")), *PENDING)
    assert_br(sleeping.result(), BR_NOOP, (BR_TRANSACTION, {"data": b"runs"}))
    assert scene.client.frozen_info(scene.manager.pid) == (0, 1)


def update(data: bytes, **fields: int) -> bc.Parcel:
    flags = fields.pop("flags", TF_UPDATE_TXN)
    return bc.oneway(fields.pop("target", 0), data, flags=flags, **fields)


def queued(server: Thread) -> list[bytes]:
    """Read all oneways that wait; return their data."""
    found = []
    while server.poll():
        call = get_call(server)
        found.append(call.data)
        server.write(bc.free(call.buffer))
    return found


@statements("F4")
def test_an_update_replaces_the_one_that_waits(world: World) -> None:
    scene, hand = frozen_scene(world)
    for data in (b"running", b"outdated", b"current"):
        assert_br(scene.client.write_read(update(data)), *PENDING)
    hand.thaw(scene.manager.pid)
    assert queued(scene.server) == [b"running", b"current"]
    round_trip(scene, bytes(MAPPING_SIZE))


@statements("F4")
def test_an_update_takes_its_place_at_the_end(world: World) -> None:
    scene, hand = frozen_scene(world)
    commands = [update(b"a"), update(b"b"), bc.oneway(0, b"c"), update(b"B")]
    for command in commands:
        assert_br(scene.client.write_read(command), *PENDING)
    hand.thaw(scene.manager.pid)
    assert queued(scene.server) == [b"a", b"c", b"B"]


OTHERS = {
    "another code": {"code": 9},
    "other flags": {"flags": TF_UPDATE_TXN | TF_CLEAR_BUF},
    "no update": {"flags": 0},
}


@statements("F4")
@pytest.mark.parametrize("fields", OTHERS.values(), ids=OTHERS)
def test_only_the_like_is_replaced(world: World, fields: dict[str, int]) -> None:
    scene, hand = frozen_scene(world)
    for command in (update(b"a"), update(b"b", **fields), update(b"c")):
        assert_br(scene.client.write_read(command), *PENDING)
    hand.thaw(scene.manager.pid)
    assert queued(scene.server) == [b"a", b"b", b"c"]


@statements("F4")
def test_an_update_does_not_replace_what_others_sent(world: World) -> None:
    scene, hand = frozen_scene(world)
    other = world.open().seasoned()
    sibling = scene.client.proc.open_again().seasoned()
    for sender, data in ((other, b"a"), (other, b"b"), (scene.client, b"c"), (sibling, b"d")):
        assert_br(sender.write_read(update(data)), *PENDING)
    hand.thaw(scene.manager.pid)
    assert queued(scene.server) == [b"a", b"b", b"d"]


@statements("F4", "Q7")
def test_an_update_does_not_replace_what_another_node_gets(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    hand = freezer(world)
    assert hand.freeze(scene.manager.pid) == 0
    for target, data in ((0, b"a"), (0, b"b"), (number, b"c"), (number, b"d"), (number, b"e")):
        assert_br(scene.client.write_read(update(data, target=target)), *PENDING)
    hand.thaw(scene.manager.pid)
    assert sorted(queued(scene.server)) == [b"a", b"b", b"c", b"e"]


@statements("F4")
def test_without_frost_nothing_is_replaced(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(update(b"a"), update(b"b"), update(b"c"))
    assert queued(scene.server) == [b"a", b"b", b"c"]


@statements("F4")
def test_what_waited_before_the_frost_can_be_replaced_during_it(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(update(b"a"), update(b"b"))
    waiting = freezer(world).start_freeze(scene.manager.pid, timeout_ms=LONG)
    assert waiting.parked
    scene.client.write(update(b"c"))
    assert queued(scene.server) == [b"a", b"c"]
    assert waiting.wait()[0] == 0


@statements("F4", "N9", "B9")
def test_what_is_replaced_lets_go_of_what_it_held(world: World) -> None:
    scene, hand = frozen_scene(world)
    assert_br(scene.client.write_read(update(b"a")), *PENDING)
    content = bc.payload(bc.binder(0x1000))
    flags = TF_UPDATE_TXN
    scene.client.write(bc.oneway(0, content, flags=flags), bc.oneway(0, b"c", flags=flags))
    assert_br(
        scene.client.read(),
        BR_NOOP,
        BR_TRANSACTION_PENDING_FROZEN,
        BR_TRANSACTION_PENDING_FROZEN,
    )
    hand.thaw(scene.manager.pid)
    assert queued(scene.server) == [b"a", b"c"]
    assert scene.client.poll() == 0
    assert give(scene, 0x2000) == 1
