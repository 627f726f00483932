# SPDX-License-Identifier: Apache-2.0
"""What a client has many of costs it in proportion to how many there are."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

from binderd.engine.death import Death
from binderd.engine.freeze_notice import FreezeNotice
from binderd.engine.returns import Returns
from binderwire.binder_abi import (
    BINDER_GET_NODE_DEBUG_INFO,
    BINDER_WRITE_READ,
    TF_ONE_WAY,
    TF_UPDATE_TXN,
    binder_node_debug_info,
)
from support import bc
from support.engine_world import EngineWorld
from support.scenes import freezer, manager_and_client, take

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 4  # as many
SQUARE = TIMES * TIMES / 2  # times as long: it grows with the square


class Plain(EngineWorld):
    """An engine world that does not recount everything after each call."""

    def check(self) -> None:
        """Nothing: the counting would take longer than what is measured."""


def growth(make: Callable[[int], Callable[[], None]], count: int) -> float:
    """Return how many times as long something takes with so many times as many.

    The shortest of several measurements: others on the machine only ever make one longer. The
    collector is off, as it looks at everything that the whole test run has.
    """

    def seconds(count: int) -> float:
        action = make(count)
        gc.collect()
        gc.disable()
        try:
            began = time.process_time()
            action()
            return time.process_time() - began
        finally:
            gc.enable()

    few, many = zip(*((seconds(count), seconds(TIMES * count)) for _ in range(5)), strict=True)
    return min(many) / min(few)


def test_forgetting_deaths_of_one_cookie() -> None:
    def make(count: int) -> Callable[[], None]:
        process = Plain().open().seasoned().file.process
        reader = next(iter(process.threads.values()))
        deaths = [Death(process, 7) for _ in range(count)]
        for death in deaths:
            death.deliver(reader, Returns(b""))

        def forget() -> None:
            for death in deaths[count // 2 :] + deaths[: count // 2]:
                death.forget()
            assert not process.delivered_deaths

        return forget

    assert growth(make, 4000) < SQUARE


def test_acknowledging_freezes_of_one_cookie() -> None:
    def make(count: int) -> Callable[[], None]:
        process = Plain().open().seasoned().file.process
        reader = next(iter(process.threads.values()))
        notices = [FreezeNotice(process, 7) for _ in range(count)]
        for notice in notices:
            notice.deliver(reader, Returns(b""))

        def acknowledge() -> None:
            for notice in notices[count // 2 :] + notices[: count // 2]:
                notice.done(reader)
            assert not process.delivered_freezes

        return acknowledge

    assert growth(make, 4000) < SQUARE


def test_updates_that_replace_nothing() -> None:
    """As many one-way updates for a frozen process, each with a code of its own."""

    def make(count: int) -> Callable[[], None]:
        world = Plain()
        scene = manager_and_client(world)
        number = take(scene, 0x1000)
        assert freezer(world).freeze(scene.manager.pid) == 0
        flags = TF_ONE_WAY | TF_UPDATE_TXN
        updates = [bc.call(number, code=code, flags=flags) for code in range(count)]
        argument = scene.client.argument(updates, 0)

        def send() -> None:
            assert scene.client.ioctl(BINDER_WRITE_READ, argument)[0] == 0
            assert len(scene.client.file.process.todo) == 0

        return send

    assert growth(make, 1000) < SQUARE


def test_walking_through_the_nodes() -> None:
    def make(count: int) -> Callable[[], None]:
        asking = Plain().open().seasoned()
        for number in range(count):
            asking.file.process.node_for(16 * number + 16, 0, 0)

        def walk() -> None:
            ptr = seen = 0
            while True:
                argument = binder_node_debug_info.build(ptr=ptr)
                _, argument = asking.ioctl(BINDER_GET_NODE_DEBUG_INFO, argument)
                ptr = binder_node_debug_info.read(argument).ptr
                if not ptr:
                    break
                seen += 1
            assert seen == count

        return walk

    assert growth(make, 1000) < SQUARE


def test_nodes_are_not_kept_in_order(world: EngineWorld) -> None:
    """Only BINDER_GET_NODE_DEBUG_INFO wants them so.

    A new one in front of 65,000 others would move half a megabyte, 8,192 of them in one call.
    """
    process = world.open().file.process
    for ptr in (5, 3, 9):
        process.node_for(ptr, 0, 0)
    assert [process.ptr_after(ptr) for ptr in (0, 3, 5, 9)] == [3, 5, 9, None]
    process.node_for(1, 0, 0)
    assert process._sorted_ptrs is None
    assert process.ptr_after(0) == 1
    process.nodes[3].put()
    assert process._sorted_ptrs is None
    assert process.ptr_after(1) == 5
    for ptr in (1, 5, 9):
        process.nodes[ptr].put()
