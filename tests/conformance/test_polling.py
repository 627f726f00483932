# SPDX-License-Identifier: Apache-2.0
"""Who polls, and what wakes it: epoll sets, edges, leaving threads, closed descriptors (R15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderwire.binder_abi import BR_NOOP
from support import bc
from support.playbook import statements
from support.scenes import answer, get_call, manager_and_client
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import World

READABLE = (0, (1).to_bytes(4, "little"))


@statements("R15", "BINDER_THREAD_EXIT")
def test_a_thread_that_leaves_wakes_the_epoll_sets_that_it_has_filled(world: World) -> None:
    scene = manager_and_client(world)
    watch = scene.server.watch()
    fresh = scene.manager.thread()
    waiting = watch.start(fresh)
    assert waiting.parked
    scene.server.exit()
    assert waiting.wait() == READABLE  # as for any thread that the driver does not know
    assert_br(fresh.write_read(bc.enter_looper()), BR_NOOP)


@statements("R15", "BINDER_THREAD_EXIT")
def test_a_thread_that_leaves_has_nothing_to_report_to_one_that_is_known(world: World) -> None:
    scene = manager_and_client(world)
    watch = scene.server.watch()
    waiting = watch.start(scene.manager.seasoned())
    scene.server.exit()
    assert waiting.parked


@statements("R15", "I4")
def test_closing_a_copy_does_not_end_a_poll(world: World) -> None:
    if world.differs("cuse", reason="CUSE has no flush"):
        return
    scene = manager_and_client(world)
    waiting, reading = scene.server.start_poll(), scene.manager.looper().start()
    other = scene.manager.seasoned()
    child = scene.manager.fork()
    assert other.poll() == 0
    child.close()
    assert_br(reading.result(), BR_NOOP)
    assert waiting.parked
    assert other.poll() == 1


@statements("R15")
def test_each_call_is_an_edge(world: World) -> None:
    scene = manager_and_client(world)
    watch = scene.server.watch(edges=True)
    waiting = watch.start(scene.server)
    assert waiting.parked
    clients = [world.open().seasoned() for _ in range(3)]
    clients[0].write(bc.call(0))
    assert waiting.wait() == READABLE
    waiting = watch.start(scene.server)
    assert waiting.parked  # the call is still there, but no news
    clients[1].write(bc.call(0))
    assert waiting.wait() == READABLE
    answer(scene.server, get_call(scene.server))
    answer(scene.server, get_call(scene.server))
    assert scene.server.poll() == 0
    clients[2].write(bc.call(0))
    assert watch.start(scene.server).wait() == READABLE


@statements("R15", "Q10")
def test_an_error_of_one_s_own_is_an_edge(world: World) -> None:
    scene = manager_and_client(world)
    watch = scene.client.watch(edges=True)
    scene.client.write(bc.call(77))
    assert watch.start(scene.client).wait() == READABLE
