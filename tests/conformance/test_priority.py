# SPDX-License-Identifier: Apache-2.0
"""Nice values: whoever serves a call does so at its caller's, within bounds (I3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BINDER_SET_CONTEXT_MGR_EXT,
    BINDER_TYPE_BINDER,
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_NOOP,
    BR_REPLY,
    BR_TRANSACTION_COMPLETE,
    flat_binder_object,
)
from support import bc
from support.playbook import GUEST_UID, SPARE_ADDRESS, statements
from support.scenes import NOBODY, Scene, answer, get_call, get_reply, give, round_trip, take
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import World

BAD_REPLY = bc.reply(data_size=8, buffer=SPARE_ADDRESS)


def scene_of(world: World, *, nice: int = 0, caller: int = 0, flags: int = 0) -> Scene:
    """A manager and a client with these nice values.

    Args:
        flags: of the manager's node; the lower 8 bits are the worst nice value to serve it at.
    """
    manager = world.open(nice=nice)
    node = flat_binder_object.build(type=BINDER_TYPE_BINDER, flags=flags)
    assert manager.seasoned().ioctl(BINDER_SET_CONTEXT_MGR_EXT, node)[0] == 0
    return Scene(manager.looper(), world.open(nice=caller).seasoned())


# (receiver, caller, worst) -> while it serves
CALLS = [
    ((0, 5, 19), 5),
    ((0, -5, 19), -5),
    ((10, 5, 19), 5),
    ((10, 5, 0), 0),
    ((10, -5, 0), -5),
    ((0, 5, 3), 3),
    ((0, 3, 3), 3),
    ((0, 2, 3), 2),
    ((-10, 7, 0), 0),
    ((19, -20, 19), -20),
    ((-20, 19, 19), 19),
    ((4, -3, 255), -3),
    ((4, 6, 255), 6),
    ((4, 6, 128), 6),
]


@statements("I3")
@pytest.mark.parametrize(("values", "expected"), CALLS)
def test_a_call_is_served_at_its_caller_s_nice_value(
    world: World, values: tuple[int, int, int], expected: int
) -> None:
    nice, caller, worst = values
    scene = scene_of(world, nice=nice, caller=caller, flags=worst)
    sleeping = scene.server.start()
    started = scene.client.start(bc.call(0))
    call = sleeping.result().items[-1]
    assert scene.server.nice == expected
    answer(scene.server, call)
    assert scene.server.nice == nice
    get_reply(started)
    assert scene.client.nice == caller


# (receiver, sender, worst) -> while it serves
ONEWAYS = [
    ((0, 5, 19), 0),
    ((0, -5, 19), 0),
    ((10, -5, 0), 0),
    ((10, 5, 3), 3),
    ((3, 5, 3), 3),
    ((-4, 5, 3), -4),
]


@statements("I3")
@pytest.mark.parametrize(("values", "expected"), ONEWAYS)
def test_a_oneway_does_not_pass_on_a_nice_value(
    world: World, values: tuple[int, int, int], expected: int
) -> None:
    nice, sender, worst = values
    scene = scene_of(world, nice=nice, caller=sender, flags=worst)
    scene.client.write(bc.oneway(0))
    get_call(scene.server)
    assert scene.server.nice == expected
    sleeping = scene.server.start()
    assert sleeping.parked
    assert scene.server.nice == nice


@statements("I3")
def test_the_nice_value_is_the_calling_thread_s(world: World) -> None:
    scene = scene_of(world, flags=19)
    other = scene.client.proc.seasoned()
    scene.client.nice = 4
    other.nice = 7
    for caller, expected in ((scene.client, 4), (other, 7)):
        started = caller.start(bc.call(0))
        call = get_call(scene.server)
        assert scene.server.nice == expected
        answer(scene.server, call)
        get_reply(started)


@statements("I3")
def test_what_a_thread_makes_of_itself_while_it_serves_is_undone(world: World) -> None:
    scene = scene_of(world, nice=2, caller=5, flags=19)
    started = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    scene.server.nice = 12
    answer(scene.server, call)
    get_reply(started)
    assert scene.server.nice == 2


@statements("I3", "Q4")
def test_nested_calls_are_undone_one_by_one(world: World) -> None:
    scene = scene_of(world, nice=1, caller=8, flags=19)
    number = give(scene, 0x1000, flags=19)
    outer = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    assert scene.server.nice == 8
    scene.server.nice = 3
    inner = scene.server.start(bc.call(number))
    nested = outer.result().items[-1]
    assert scene.client.nice == 3
    answer(scene.client, nested)
    assert scene.client.nice == 8
    get_reply(inner)
    answer(scene.server, call)
    assert scene.server.nice == 1
    assert_br(scene.client.read(), BR_NOOP, BR_REPLY)


@statements("I3")
def test_a_thread_that_waits_for_any_work_goes_back_to_where_its_file_began(world: World) -> None:
    scene = scene_of(world, nice=6, flags=19)
    assert scene.server.nice == 6
    scene.server.nice = 11
    sleeping = scene.server.start()
    assert sleeping.parked
    assert scene.server.nice == 6


@statements("I3", "R8")
def test_so_does_one_that_only_looks(world: World) -> None:
    scene = scene_of(world)
    looker = world.open(nonblocking=True, nice=4).seasoned()
    looker.nice = 9
    looker.read()
    assert looker.nice == 4
    round_trip(scene)


@statements("I3")
def test_a_thread_that_waits_for_its_own_work_stays_as_it_is(world: World) -> None:
    scene = scene_of(world, caller=4)
    started = scene.client.start(bc.call(0))
    assert started.parked
    assert scene.client.nice == 4
    scene.client.nice = 13
    answer(scene.server, get_call(scene.server))
    get_reply(started)
    assert scene.client.nice == 13


@statements("I3", "E4", "E5")
def test_a_reply_that_fails_gives_the_nice_value_back_as_well(world: World) -> None:
    scene = scene_of(world, nice=2, caller=9, flags=19)
    started = scene.client.start(bc.call(0))
    get_call(scene.server)
    assert scene.server.nice == 9
    assert_br(scene.server.write_read(BAD_REPLY), BR_NOOP, BR_TRANSACTION_COMPLETE)
    assert scene.server.nice == 2
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
    scene.client.start(bc.call(0))
    call = get_call(scene.server)
    scene.client.proc.kill()
    assert scene.server.nice == 9
    answer(scene.server, call)
    assert scene.server.nice == 2


@statements("I3", "BINDER_THREAD_EXIT")
def test_a_thread_that_leaves_keeps_what_it_has(world: World) -> None:
    scene = scene_of(world, nice=2, caller=9, flags=19)
    started = scene.client.start(bc.call(0))
    get_call(scene.server)
    scene.server.exit()
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)
    assert scene.server.nice == 9


@statements("I3", "N7")
def test_the_bound_of_a_node_is_that_of_its_first_sending(world: World) -> None:
    scene = scene_of(world, caller=9)
    number = take(scene, 0x1000, flags=5)
    started = scene.client.start(bc.call(0))
    answer(scene.server, get_call(scene.server), bc.payload(bc.binder(0x1000, flags=12)))
    get_reply(started)
    started = scene.client.start(bc.call(number))
    call = get_call(scene.server)
    assert scene.server.nice == 5
    answer(scene.server, call)
    get_reply(started)


@statements("I3")
def test_a_thread_gets_no_better_than_it_may(world: World) -> None:
    if world.differs("engine", reason="who may have which nice value is decided outside of it"):
        return
    manager = world.open(f"user{NOBODY}", uid=NOBODY, nice=5)
    manager.become_manager()
    scene = Scene(manager.looper(), world.open(f"user{NOBODY}", nice=-5).seasoned())
    started = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    assert scene.server.nice == 5
    answer(scene.server, call)
    get_reply(started)


# (limit, caller) -> while it serves; a limit of n allows nice values from 20 - n on
OWN_NICE = 5
LIMITED = [
    ((20, -5), 0),
    ((20, 0), 0),
    ((20, 3), 3),
    ((30, -5), -5),
    ((30, -15), -10),
    ((1, 5), 19),
]


@statements("I3")
@pytest.mark.parametrize(("values", "expected"), LIMITED)
def test_a_thread_gets_as_near_as_its_limit_allows(
    world: World, values: tuple[int, int], expected: int
) -> None:
    if world.differs("engine", reason="who may have which nice value is decided outside of it"):
        return
    limit, caller = values
    try:
        manager = world.open(f"user{NOBODY}", uid=NOBODY, nice=OWN_NICE, nice_limit=limit)
    except PermissionError:
        world.excuse("we may not raise RLIMIT_NICE here")
        return
    node = flat_binder_object.build(type=BINDER_TYPE_BINDER, flags=19)
    assert manager.seasoned().ioctl(BINDER_SET_CONTEXT_MGR_EXT, node)[0] == 0
    scene = Scene(manager.looper(), world.open(f"user{NOBODY}", nice=caller).seasoned())
    started = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    reason = "who has the wanted nice value already keeps it, whether it may have it or not"
    if caller == OWN_NICE and world.differs("fuse", "cuse", reason=reason):
        expected = OWN_NICE
    assert scene.server.nice == expected
    answer(scene.server, call)
    get_reply(started)


@statements("I3")
def test_a_guest_has_no_privilege_of_its_own(world: World) -> None:
    if world.differs("engine", reason="who may have which nice value is decided outside of it"):
        return
    manager = world.open(f"user{GUEST_UID}", guest=True, nice=5)
    manager.become_manager()
    scene = Scene(manager.looper(), world.open(f"user{GUEST_UID}", nice=-5).seasoned())
    started = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    assert scene.server.nice == 5
    answer(scene.server, call)
    get_reply(started)
