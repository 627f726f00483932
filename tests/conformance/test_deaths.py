# SPDX-License-Identifier: Apache-2.0
"""Death: who is told, in which order, and what counts as dying (N11, N12, I7, I8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderwire.binder_abi import (
    BR_CLEAR_DEATH_NOTIFICATION_DONE,
    BR_DEAD_BINDER,
    BR_DEAD_REPLY,
    BR_NOOP,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
)
from support import bc
from support.passthrough import HAS_PASSTHROUGH
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
    from support.playbook import World

COOKIE = 0x7000_0000_0007
DEAD = (BR_DEAD_BINDER, {"value": COOKIE})
CLEARED = (BR_CLEAR_DEATH_NOTIFICATION_DONE, {"value": COOKIE})


def mourner(world: World) -> tuple[Scene, int]:
    """A client that has asked to be told of the death of the manager's node."""
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    scene.client.write(bc.request_death(number, COOKIE))
    return scene, number


@statements("N11")
def test_a_death_is_told_to_whoever_asked(world: World) -> None:
    scene, _ = mourner(world)
    sleeping = scene.client.proc.looper().start()
    assert sleeping.parked
    scene.manager.kill()
    assert_br(sleeping.result(), BR_NOOP, DEAD)


@statements("N11")
def test_every_handle_with_a_request_is_told(world: World) -> None:
    scene, _ = mourner(world)
    other = world.open().looper()
    theirs = take(Scene(scene.server, scene.client), 0x2000)
    started = other.start(bc.call(0))
    answer(scene.server, get_call(scene.server), bc.payload(bc.binder(0x1000)))
    reply = get_reply(started)
    other.write(bc.request_death(reply.objects[0][1], 99))
    scene.client.write(bc.request_death(theirs, 55))
    scene.manager.kill()
    told = {assert_br(scene.client.read(), BR_NOOP, BR_DEAD_BINDER)[0].value for _ in "12"}
    assert told == {COOKIE, 55}
    assert_br(other.read(), BR_NOOP, (BR_DEAD_BINDER, {"value": 99}))


@statements("N11")
def test_a_request_for_the_dead_is_answered_to_the_process(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    sleeping = scene.client.proc.looper().start()
    scene.manager.kill()
    assert sleeping.parked
    scene.client.write(bc.request_death(number, COOKIE))
    assert_br(sleeping.result(), BR_NOOP, DEAD)
    assert scene.client.start().parked


@statements("N11")
def test_clearing_is_acknowledged_to_a_looper_itself(world: World) -> None:
    scene, number = mourner(world)
    looper, idle = scene.client.proc.looper(), scene.client.proc.looper().start()
    assert_br(looper.write_read(bc.clear_death(number, COOKIE)), BR_NOOP, CLEARED)
    assert idle.parked
    scene.manager.kill()
    assert idle.parked


@statements("N11")
def test_clearing_by_another_thread_is_acknowledged_to_the_process(world: World) -> None:
    scene, number = mourner(world)
    idle = scene.client.proc.looper().start()
    scene.client.write(bc.clear_death(number, COOKIE))
    assert_br(idle.result(), BR_NOOP, CLEARED)
    assert scene.client.start().parked


@statements("N11")
def test_clearing_a_death_that_waits_to_be_read(world: World) -> None:
    scene, number = mourner(world)
    looper = scene.client.proc.looper()
    scene.manager.kill()
    looper.write(bc.clear_death(number, COOKIE))
    assert_br(looper.read(), BR_NOOP, DEAD)
    sleeping = scene.client.proc.looper().start()
    assert sleeping.parked
    assert_br(looper.write_read(bc.dead_binder_done(COOKIE)), BR_NOOP, CLEARED)
    assert sleeping.parked


@statements("N11")
def test_clearing_a_death_that_was_read(world: World) -> None:
    scene, number = mourner(world)
    scene.manager.kill()
    assert_br(scene.client.read(), BR_NOOP, DEAD)
    scene.client.write(bc.clear_death(number, COOKIE))
    sleeping = scene.client.proc.looper().start()
    assert sleeping.parked
    scene.client.write(bc.dead_binder_done(COOKIE))
    assert_br(sleeping.result(), BR_NOOP, CLEARED)


@statements(
    "N11",
    "BC_REQUEST_DEATH_NOTIFICATION",
    "BC_CLEAR_DEATH_NOTIFICATION",
    "BC_DEAD_BINDER_DONE",
    "BR_DEAD_BINDER",
    "BR_CLEAR_DEATH_NOTIFICATION_DONE",
)
def test_clearing_a_death_that_was_acknowledged(world: World) -> None:
    scene, number = mourner(world)
    scene.manager.kill()
    assert_br(scene.client.read(), BR_NOOP, DEAD)
    scene.client.write(bc.dead_binder_done(COOKIE))
    scene.client.write(bc.clear_death(number, COOKIE))
    assert_br(scene.client.read(), BR_NOOP, CLEARED)


@statements("N11", "I8")
def test_the_end_of_a_thread_is_no_death(world: World) -> None:
    scene, _ = mourner(world)
    sleeping = scene.client.proc.looper().start()
    scene.server.exit()
    scene.server.end()
    assert sleeping.parked
    round_trip(Scene(scene.manager.looper(), scene.client))


@statements("N12", "N11", "I7", "I5")
def test_everything_that_a_death_ends(world: World) -> None:
    scene, _ = mourner(world)
    served, queued = scene.client.proc.seasoned(), scene.client.proc.seasoned()
    first = served.start(bc.call(0, code=1))
    get_call(scene.server, code=1)
    second = queued.start(bc.call(0, code=2))
    idle = scene.client.proc.looper().start()
    scene.manager.kill()
    assert_br(first.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)
    assert_br(second.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)
    assert_br(idle.result(), BR_NOOP, DEAD)
    world.open().become_manager()


@statements("N12")
def test_the_dead_let_go_of_what_they_held(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    third = world.open().looper()
    pass_on(scene, number, third)
    owner = scene.client.proc.looper().start()
    scene.server.proc.kill()
    assert owner.parked
    third.proc.kill()
    names = [item.name for item in owner.result().items]
    assert names == ["BR_NOOP", "BR_RELEASE", "BR_DECREFS"]


@statements("N12", "I4")
def test_a_forked_child_keeps_the_file_open(world: World) -> None:
    scene, _ = mourner(world)
    sleeping = scene.client.proc.looper().start()
    child = scene.manager.fork()
    scene.manager.kill()
    assert sleeping.parked
    child.kill()
    assert_br(sleeping.result(), BR_NOOP, DEAD)


@statements("N12")
def test_a_closed_file_is_dead_unless_its_mapping_holds_it(world: World) -> None:
    scene, _ = mourner(world)
    sleeping = scene.client.proc.looper().start()
    scene.manager.close()
    reason = "a mapping does not hold the file: close is the end of it"
    # A kernel that maps nothing of ours maps the file, and that holds it as the driver's does.
    holds = world.name == "bare" or (world.name == "private" and not HAS_PASSTHROUGH)
    if holds or not world.differs("engine", "fuse", "cuse", reason=reason):
        assert sleeping.parked
        scene.manager.munmap()
    assert_br(sleeping.result(), BR_NOOP, DEAD)


@statements("I7", "BINDER_THREAD_EXIT")
def test_a_thread_that_exits_while_it_serves_fails_its_caller(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    get_call(scene.server)
    assert started.parked
    scene.server.exit()
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)


@statements("I7", "BINDER_THREAD_EXIT")
def test_a_thread_that_exits_with_an_unread_call_fails_its_caller(world: World) -> None:
    scene = manager_and_client(world)
    unable = scene.server.start(read=64)
    started = scene.client.start(bc.call(0))
    assert_br(unable.result(), BR_NOOP)
    assert started.parked
    scene.server.exit()
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)


@statements("I7", "BINDER_THREAD_EXIT")
def test_a_thread_that_exits_with_nested_calls_fails_only_the_innermost(world: World) -> None:
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    outer = scene.client.start(bc.call(0, code=1))
    get_call(scene.server, code=1)
    inner = scene.server.start(bc.call(number, code=2))
    wanted = (BR_TRANSACTION, {"code": 2})
    assert_br(outer.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, wanted)
    scene.client.exit()
    assert_br(inner.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)
    assert_br(scene.server.write_read(bc.reply()), BR_NOOP, BR_TRANSACTION_COMPLETE)
    round_trip(Scene(scene.server, scene.client.proc.seasoned()))


@statements("I8")
def test_a_thread_that_just_ends(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    get_call(scene.server)
    scene.server.end()
    reason = "a thread's end stands for BINDER_THREAD_EXIT, whose NULL argument never reaches us"
    if not world.differs("engine", "fuse", "cuse", reason=reason):
        assert started.parked
        scene.manager.kill()
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)
