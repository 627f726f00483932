# SPDX-License-Identifier: Apache-2.0
"""When a sender of one-way calls is told that it sends too many (B4)."""

from __future__ import annotations

from errno import EINTR
from typing import TYPE_CHECKING

from binderwire.binder_abi import (
    BINDER_ENABLE_ONEWAY_SPAM_DETECTION,
    BR_NOOP,
    BR_ONEWAY_SPAM_SUSPECT,
    BR_TRANSACTION_COMPLETE,
    BR_TRANSACTION_PENDING_FROZEN,
    u32_value,
)
from support import bc
from support.playbook import MAPPING_SIZE, statements
from support.scenes import LONG, freezer, get_call, manager_and_client, take
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Proc, Thread, World
    from support.scenes import Scene

HALF = MAPPING_SIZE // 2  # bytes that one-way calls may take
# With as much in use, less than a tenth of the area is left for one-way calls.
LOW = HALF - MAPPING_SIZE // 10 + 8 & ~7
QUARTER = MAPPING_SIZE // 4  # bytes that one process may hold of it
TENTHS = 16 << 10  # bytes; the tenth part of an area that can be divided by 10
BUFFERS = 50  # that one process may hold of it


def detect(proc: Proc, enable: int = 1) -> None:
    argument = u32_value.build(value=enable)
    assert proc.seasoned().ioctl(BINDER_ENABLE_ONEWAY_SPAM_DETECTION, argument)[0] == 0


def watched(world: World) -> Scene:
    """A manager that reads nothing, and a client that wants to know."""
    scene = manager_and_client(world)
    detect(scene.client.proc)
    return scene


def suspects(sender: Thread, size: int = 8, count: int = 1) -> list[int]:
    """Send so many one-ways of this size; return which of them, from 1 on, were suspected."""
    found = []
    for number in range(1, count + 1):
        words = [item.word for item in sender.write_read(bc.oneway(0, bytes(size))).items]
        assert words in ([BR_NOOP, BR_ONEWAY_SPAM_SUSPECT], [BR_NOOP, BR_TRANSACTION_COMPLETE])
        if words[1] == BR_ONEWAY_SPAM_SUSPECT:
            found.append(number)
    return found


def fill(world: World, size: int) -> Thread:
    """Let somebody else take so much of the one-way space, in one piece."""
    other = world.open().seasoned()
    assert suspects(other, size) == []
    return other


@statements("B4", "BR_ONEWAY_SPAM_SUSPECT", "BINDER_ENABLE_ONEWAY_SPAM_DETECTION")
def test_who_holds_more_than_50_buffers_is_told_once(world: World) -> None:
    scene = watched(world)
    fill(world, LOW)
    assert suspects(scene.client, count=BUFFERS + 1) == []
    assert suspects(scene.client, count=10) == [1]


@statements("B4")
def test_who_holds_more_than_a_quarter_is_told_once(world: World) -> None:
    scene = watched(world)
    fill(world, LOW - QUARTER)
    assert suspects(scene.client, QUARTER) == []
    assert suspects(scene.client) == []
    assert suspects(scene.client, count=5) == [1]


@statements("B4")
def test_a_tenth_of_the_area_is_enough_for_peace(world: World) -> None:
    manager = world.open(size=TENTHS * 10)
    manager.become_manager()
    client = world.open().seasoned()
    detect(client.proc)
    assert suspects(client, TENTHS * 4 - 8) == []
    assert suspects(client) == [], "a tenth is left"
    assert suspects(client, count=2) == [1]


@statements("B4")
def test_what_one_process_holds_through_all_its_files_counts(world: World) -> None:
    scene = watched(world)
    fill(world, LOW)
    second = scene.client.proc.open_again()
    detect(second)
    assert suspects(scene.client, count=BUFFERS // 2) == []
    assert suspects(second.seasoned(), count=BUFFERS // 2 + 1) == []
    assert suspects(second.seasoned()) == [1]


@statements("B4")
def test_what_others_hold_does_not_count(world: World) -> None:
    scene = watched(world)
    fill(world, LOW)
    for _ in range(2):
        sender = world.open()
        detect(sender)
        assert suspects(sender.seasoned(), count=BUFFERS - 10) == []
    assert suspects(scene.client, count=BUFFERS // 2) == []


@statements("B4", "Q2")
def test_calls_that_wait_for_a_reply_do_not_count(world: World) -> None:
    scene = watched(world)
    fill(world, LOW)
    for _ in range(BUFFERS + 10):
        scene.client.proc.seasoned().write(bc.call(0))
    assert suspects(scene.client, count=3) == []


@statements("B4")
def test_a_suspect_is_delivered_all_the_same(world: World) -> None:
    scene = watched(world)
    number = take(scene, 0x1000)
    fill(world, LOW)
    assert suspects(scene.client, count=BUFFERS + 1) == []
    outcome = scene.client.write_read(bc.oneway(number, b"spam"))
    assert_br(outcome, BR_NOOP, BR_ONEWAY_SPAM_SUSPECT)
    get_call(scene.server, data_size=LOW)
    get_call(scene.server, data=b"spam")


@statements("B4")
def test_after_recovery_who_floods_again_is_told_again(world: World) -> None:
    scene = watched(world)
    other = fill(world, LOW)
    assert suspects(scene.client, count=BUFFERS + 5) == [BUFFERS + 2]
    scene.server.write(bc.free(get_call(scene.server, data_size=LOW).buffer))
    assert suspects(scene.client) == []
    assert suspects(other, LOW) == []
    assert suspects(scene.client, count=3) == [1]


@statements("B4")
def test_without_recovery_at_a_call_nobody_is_told_again(world: World) -> None:
    scene = watched(world)
    other = fill(world, LOW)
    assert suspects(scene.client, count=BUFFERS + 2) == [BUFFERS + 2]
    scene.server.write(bc.free(get_call(scene.server, data_size=LOW).buffer))
    assert suspects(other, LOW) == []
    assert suspects(scene.client, count=3) == []


@statements("B4", "BINDER_ENABLE_ONEWAY_SPAM_DETECTION")
def test_only_who_asked_is_told(world: World) -> None:
    scene = manager_and_client(world)
    detect(scene.manager)
    fill(world, LOW)
    assert suspects(scene.client, count=BUFFERS + 5) == []


@statements("B4", "BINDER_ENABLE_ONEWAY_SPAM_DETECTION")
def test_what_is_wanted_when_it_is_read_counts(world: World) -> None:
    scene = manager_and_client(world)
    fill(world, LOW)
    assert suspects(scene.client, count=BUFFERS + 1) == []
    scene.client.write(bc.oneway(0))
    detect(scene.client.proc, 0xFFFF_FF00)
    assert_br(scene.client.read(), BR_NOOP, BR_ONEWAY_SPAM_SUSPECT)
    detect(scene.client.proc, 0)
    assert suspects(scene.client, count=3) == []


@statements("B4", "F3")
def test_the_frozen_are_not_spammed(world: World) -> None:
    scene = watched(world)
    fill(world, LOW)
    assert suspects(scene.client, count=BUFFERS + 1) == []
    hand = freezer(world)
    waiting = hand.start_freeze(scene.manager.pid, timeout_ms=LONG)
    assert waiting.parked
    outcome = scene.client.write_read(bc.oneway(0))
    assert_br(outcome, BR_NOOP, BR_TRANSACTION_PENDING_FROZEN)
    hand.signal()
    assert waiting.wait()[0] == EINTR
