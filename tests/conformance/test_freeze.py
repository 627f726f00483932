# SPDX-License-Identifier: Apache-2.0
"""Freezing processes, and what callers see of it (E3, F1-F4)."""

from __future__ import annotations

from errno import EAGAIN, EINTR, EINVAL
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BINDER_GET_FROZEN_INFO,
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_FROZEN_REPLY,
    BR_NOOP,
    BR_REPLY,
    BR_TRANSACTION_COMPLETE,
    BR_TRANSACTION_PENDING_FROZEN,
    binder_frozen_status_info,
)
from support import bc
from support.playbook import GUEST_UID, MAPPING_SIZE, SPARE_ADDRESS, statements
from support.scenes import (
    LONG,
    Scene,
    answer,
    freezer,
    frozen_scene,
    get_call,
    get_reply,
    give,
    manager_and_client,
    pass_on,
    round_trip,
)
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import World

GUESTS = f"user{GUEST_UID}"  # their device
NO_PID = 0x3FFF_FFF0
SHORT = 80  # milliseconds

FROZEN = (BR_NOOP, BR_FROZEN_REPLY)
PENDING = (BR_NOOP, BR_TRANSACTION_PENDING_FROZEN)
SENT = (BR_NOOP, BR_TRANSACTION_COMPLETE)


def is_frozen(scene: Scene) -> bool:
    """Whether the manager refuses a call; one that it takes is answered."""
    started = scene.client.start(bc.call(0))
    if started.parked:
        answer(scene.server, get_call(scene.server))
        scene.client.write(bc.free(get_reply(started).buffer))
        return False
    assert_br(started.result(), *FROZEN)
    return True


# E3, F1


@statements("E3", "BINDER_FREEZE", "BR_FROZEN_REPLY")
def test_a_call_to_the_frozen_is_refused(world: World) -> None:
    scene, hand = frozen_scene(world)
    sleeping = scene.server.start()
    assert_br(scene.client.write_read(bc.call(0, b"cold")), *FROZEN)
    assert scene.client.extended_error()[1:] == (BR_FROZEN_REPLY, 0)
    assert sleeping.parked
    hand.thaw(scene.manager.pid)
    started = scene.client.start(bc.call(0, b"warm"))
    call = sleeping.result().items[-1]
    assert (call.data, call.buffer) == (b"warm", scene.manager.mapping[0])
    answer(scene.server, call)
    get_reply(started)


@statements("E3", "E2")
def test_a_call_that_cannot_be_sent_fails_for_its_own_reason(world: World) -> None:
    scene, _ = frozen_scene(world)
    bad = [
        bc.call(0, bc.payload(bc.handle(77))),
        bc.call(0, data_size=8, buffer=SPARE_ADDRESS),
        bc.call(0, data_size=2 * MAPPING_SIZE),
        bc.call(77),
    ]
    for command in bad:
        assert_br(scene.client.write_read(command), BR_NOOP, BR_FAILED_REPLY)
    assert hand_info(scene) == (0, 0)


def hand_info(scene: Scene) -> tuple[int, int]:
    return scene.client.frozen_info(scene.manager.pid)


@statements("E3", "B9", "N5")
def test_a_refused_call_leaves_no_trace(world: World) -> None:
    scene = manager_and_client(world)
    known = give(scene, 0x1000, 5)
    assert scene.client.freeze(scene.manager.pid) == 0
    objects = [bc.binder(0x1000, 5), bc.binder(0x2000), bc.weak_binder(0x3000)]
    assert_br(scene.client.write_read(bc.call(0, bc.payload(*objects))), *FROZEN)
    assert scene.client.poll() == 0
    scene.client.thaw(scene.manager.pid)
    assert give(scene, 0x2000, 6) == known + 1
    round_trip(scene, bytes(MAPPING_SIZE))


@statements("E3", "F2")
def test_a_nested_call_to_the_frozen_is_refused_as_well(world: World) -> None:
    """While a freeze waits, its process is frozen for everybody, also for whom it calls."""
    scene = manager_and_client(world)
    number = give(scene, 0x1000)
    outer = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    incoming = world.open().seasoned()
    theirs = pass_on(Scene(scene.manager.looper(), scene.client), number, incoming)
    incoming.write(bc.call(theirs))
    waiting = freezer(world).start_freeze(scene.client.proc.pid, timeout_ms=LONG)
    assert waiting.parked
    assert_br(scene.server.write_read(bc.call(number)), *FROZEN)
    answer(scene.server, call)
    get_reply(outer)
    assert waiting.parked
    answer(scene.client, get_call(scene.client))
    assert waiting.wait()[0] == 0


@statements("E3", "E1")
def test_a_process_that_died_frozen_is_dead(world: World) -> None:
    scene, hand = frozen_scene(world)
    assert is_frozen(scene)
    pid = scene.manager.pid
    scene.manager.kill()
    assert_br(scene.client.write_read(bc.call(0)), BR_NOOP, BR_DEAD_REPLY)
    assert hand.freeze(pid) == EINVAL


@statements("E3")
def test_the_frozen_can_call_and_be_answered(world: World) -> None:
    scene = manager_and_client(world)
    assert freezer(world).freeze(scene.client.proc.pid) == 0
    round_trip(scene, b"call", b"reply")


@statements("F1", "BINDER_FREEZE", "BINDER_GET_FROZEN_INFO")
def test_a_process_without_an_open_device(world: World) -> None:
    hand = freezer(world)
    assert hand.freeze(NO_PID) == EINVAL
    assert hand.start_freeze(NO_PID, enable=0).wait()[0] == EINVAL
    argument = binder_frozen_status_info.build(pid=NO_PID)
    assert hand.ioctl(BINDER_GET_FROZEN_INFO, argument) == (EINVAL, argument)
    assert hand.freeze(0) == EINVAL


@statements("F1", "I6", "BINDER_FREEZE")
def test_all_open_files_of_a_process_are_frozen(world: World) -> None:
    scene = manager_and_client(world)
    second = scene.client.proc.open_again()
    number = give(scene, 0x1000, owner=second.looper())
    other = Scene(scene.client.proc.open_again("hwbinder").looper(), scene.client)
    other.manager.become_manager()
    far = world.open("hwbinder").seasoned()
    hand = freezer(world)
    assert hand.freeze(scene.client.proc.pid) == 0
    assert_br(far.write_read(bc.call(0)), *FROZEN)
    assert_br(scene.server.write_read(bc.call(number)), *FROZEN)
    assert hand.frozen_info(scene.client.proc.pid) == (1, 0)
    hand.thaw(scene.client.proc.pid)
    assert not is_frozen(Scene(other.server, far))
    assert hand.frozen_info(scene.client.proc.pid) == (0, 0)


@statements("F1")
def test_a_file_that_is_opened_later_is_not_frozen(world: World) -> None:
    scene, hand = frozen_scene(world)
    other = scene.manager.open_again("hwbinder")
    other.become_manager()
    assert not is_frozen(Scene(other.looper(), world.open("hwbinder").seasoned()))
    assert is_frozen(scene)
    assert hand.freeze(scene.manager.pid) == 0
    assert is_frozen(Scene(other.looper(), world.open("hwbinder").seasoned()))


@statements("F1")
@pytest.mark.parametrize("enable", [1, 2, 0xFFFF_FFFF])
def test_anything_but_0_freezes(world: World, enable: int) -> None:
    scene = manager_and_client(world)
    assert scene.client.start_freeze(scene.manager.pid, enable=enable).wait()[0] == 0
    assert is_frozen(scene)


@statements("F1", "F2")
def test_thawing_always_succeeds_and_forgets(world: World) -> None:
    scene = manager_and_client(world)
    hand = freezer(world)
    hand.thaw(scene.manager.pid)
    assert hand.freeze(scene.manager.pid) == 0
    assert is_frozen(scene)
    assert_br(scene.client.write_read(bc.oneway(0)), *PENDING)
    assert hand.frozen_info(scene.manager.pid) == (3, 1)
    hand.thaw(scene.manager.pid)
    assert hand.frozen_info(scene.manager.pid) == (2, 0)
    hand.thaw(scene.manager.pid)
    get_call(scene.server)
    assert not is_frozen(scene)


@statements("F1", "F2", "BINDER_GET_FROZEN_INFO")
def test_freezing_again_begins_anew(world: World) -> None:
    scene, hand = frozen_scene(world)
    assert is_frozen(scene)
    assert hand.frozen_info(scene.manager.pid) == (1, 0)
    assert hand.freeze(scene.manager.pid) == 0
    assert hand.frozen_info(scene.manager.pid) == (0, 0)
    assert is_frozen(scene)


@statements("F1")
def test_a_process_can_freeze_itself(world: World) -> None:
    scene = manager_and_client(world)
    assert scene.server.freeze(scene.manager.pid) == 0
    assert is_frozen(scene)
    scene.server.thaw(scene.manager.pid)
    assert not is_frozen(scene)


@statements("F1", "I1")
def test_a_guest_names_processes_as_it_knows_them(world: World) -> None:
    if world.differs("kernel", reason="it takes the number as the first pid namespace has it"):
        return
    manager = world.open(GUESTS, guest=True)
    if manager.own_pid == manager.pid:
        pytest.fail("a guest is in a pid namespace of its own")
    manager.become_manager()
    hand = world.open("freezer", guest=True, size=None).seasoned()
    scene = Scene(manager.looper(), world.open(GUESTS).seasoned())
    assert hand.freeze(manager.pid) == EINVAL
    assert hand.freeze(manager.own_pid) == 0
    assert is_frozen(scene)
    assert hand.frozen_info(manager.own_pid) == (1, 0)
    freezer(world).thaw(manager.pid)
    assert not is_frozen(scene)


@statements("F1", "I1")
def test_no_process_has_the_number_0(world: World) -> None:
    scene = manager_and_client(world)
    for hand in (freezer(world), world.open(GUESTS, guest=True, size=None).seasoned()):
        assert hand.freeze(0) == EINVAL
    assert not is_frozen(scene)


@statements("F1")
def test_the_file_of_a_dead_process_is_frozen_by_nobody(world: World) -> None:
    scene, reason = manager_and_client(world), "its number may be somebody else's now"
    opener = scene.client.proc
    opener.fork()
    opener.kill()
    differs = world.differs("engine", "fuse", "cuse", reason=reason)
    assert freezer(world).freeze(opener.pid) == (EINVAL if differs else 0)


# F2


@statements("F2", "BINDER_GET_FROZEN_INFO")
def test_a_call_that_was_not_read_is_in_the_way(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    hand = freezer(world)
    assert hand.freeze(scene.manager.pid) == EAGAIN
    assert hand.frozen_info(scene.manager.pid) == (2, 0)
    answer(scene.server, get_call(scene.server))
    scene.client.write(bc.free(get_reply(started).buffer))
    assert hand.frozen_info(scene.manager.pid) == (0, 0)
    assert not is_frozen(scene)


@statements("F2")
def test_a_call_that_is_being_served_is_in_the_way(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    hand = freezer(world)
    assert hand.freeze(scene.manager.pid) == EAGAIN
    scene.server.write(bc.free(call.buffer))
    assert hand.freeze(scene.manager.pid) == EAGAIN
    scene.server.write(bc.reply())
    get_reply(started)
    assert hand.freeze(scene.manager.pid) == 0


@statements("F2")
@pytest.mark.parametrize("timeout_ms", [0, LONG])
def test_a_call_that_it_made_is_in_the_way_and_not_waited_for(
    world: World, timeout_ms: int
) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    hand = freezer(world)
    assert hand.freeze(scene.client.proc.pid, timeout_ms=timeout_ms) == EAGAIN
    assert hand.frozen_info(scene.client.proc.pid) == (2, 0)
    answer(scene.server, call)
    get_reply(started)
    assert hand.freeze(scene.client.proc.pid, timeout_ms=timeout_ms) == 0


@statements("F2")
def test_a_reply_that_was_not_read_is_in_the_way(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.call(0))
    answer(scene.server, get_call(scene.server))
    hand = freezer(world)
    assert hand.freeze(scene.client.proc.pid) == EAGAIN
    assert_br(scene.client.read(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_REPLY)
    assert hand.freeze(scene.client.proc.pid) == 0


@statements("F2", "Q7")
def test_oneways_are_in_the_way_until_they_are_read(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.oneway(0, code=1), bc.oneway(0, code=2))
    hand = freezer(world)
    assert hand.freeze(scene.manager.pid) == EAGAIN
    first = get_call(scene.server, code=1)
    assert hand.freeze(scene.manager.pid) == EAGAIN
    scene.server.write(bc.free(first.buffer))
    assert hand.freeze(scene.manager.pid) == EAGAIN
    get_call(scene.server, code=2)
    assert hand.freeze(scene.manager.pid) == 0


@statements("F2")
def test_a_freeze_waits_for_calls_under_way(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0, code=1))
    waiting = freezer(world).start_freeze(scene.manager.pid, timeout_ms=LONG)
    assert waiting.parked
    assert_br(world.open().seasoned().write_read(bc.call(0)), *FROZEN)
    call = get_call(scene.server, code=1)
    assert waiting.parked
    answer(scene.server, call)
    assert waiting.wait()[0] == 0
    get_reply(started)
    assert is_frozen(scene)


@statements("F2", "F3")
def test_a_freeze_waits_for_oneways_and_those_that_still_come(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.oneway(0, code=1))
    waiting = freezer(world).start_freeze(scene.manager.pid, timeout_ms=LONG)
    assert waiting.parked
    assert_br(scene.client.read(), *SENT)
    assert_br(scene.client.write_read(bc.oneway(0, code=2)), *PENDING)
    first = get_call(scene.server, code=1)
    assert waiting.parked
    scene.server.write(bc.free(first.buffer))
    assert waiting.parked
    get_call(scene.server, code=2)
    assert waiting.wait()[0] == 0
    assert hand_info(scene) == (0, 1)


@statements("F2")
def test_a_freeze_whose_time_is_up(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    hand = freezer(world)
    assert hand.freeze(scene.manager.pid, timeout_ms=SHORT) == EAGAIN
    answer(scene.server, call)
    scene.client.write(bc.free(get_reply(started).buffer))
    assert not is_frozen(scene)


@statements("F2")
def test_what_happened_during_a_freeze_in_vain_is_remembered(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    hand = freezer(world)
    waiting = hand.start_freeze(scene.manager.pid, timeout_ms=LONG)
    assert waiting.parked
    assert_br(world.open().seasoned().write_read(bc.call(0)), *FROZEN)
    assert_br(world.open().seasoned().write_read(bc.oneway(0)), *PENDING)
    hand.signal()
    assert waiting.wait()[0] == EINTR
    assert hand.frozen_info(scene.manager.pid) == (3, 1)
    assert started.parked


@statements("F2", "I7", "BINDER_THREAD_EXIT")
def test_a_thread_that_leaves_is_no_longer_in_the_way(world: World) -> None:
    """The driver notices only when the time is up, which makes no difference to the result."""
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    get_call(scene.server)
    waiting = freezer(world).start_freeze(scene.manager.pid, timeout_ms=20 * SHORT)
    scene.server.exit()
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)
    assert waiting.wait()[0] == 0
    assert is_frozen(scene)


@statements("F2")
def test_a_signal_ends_a_freeze_without_effect(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    hand = freezer(world)
    waiting = hand.start_freeze(scene.manager.pid, timeout_ms=LONG)
    assert waiting.parked
    hand.signal()
    assert waiting.wait()[0] == EINTR
    answer(scene.server, get_call(scene.server))
    scene.client.write(bc.free(get_reply(started).buffer))
    assert not is_frozen(scene)
    assert hand.freeze(scene.manager.pid) == 0


@statements("F2")
def test_who_freezes_is_killed_while_it_waits(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    hand = freezer(world)
    assert hand.start_freeze(scene.manager.pid, timeout_ms=LONG).parked
    hand.proc.kill()
    answer(scene.server, get_call(scene.server))
    scene.client.write(bc.free(get_reply(started).buffer))
    assert not is_frozen(scene)


@statements("F2", "E1", "N12")
def test_a_process_dies_while_its_freeze_waits(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    get_call(scene.server)
    hand = freezer(world)
    waiting = hand.start_freeze(scene.manager.pid, timeout_ms=20 * SHORT)
    scene.manager.kill()
    assert_br(started.result(), BR_NOOP, BR_TRANSACTION_COMPLETE, BR_DEAD_REPLY)
    assert waiting.wait()[0] == 0
    assert hand.freeze(scene.manager.pid) == EINVAL


@statements("F2", "F1")
def test_of_several_files_those_before_the_failure_stay_frozen(world: World) -> None:
    """The file that was opened last is frozen first."""
    scene = manager_and_client(world)
    other = scene.manager.open_again("hwbinder")
    other.become_manager()
    later = Scene(other.looper(), world.open("hwbinder").seasoned())
    started = scene.client.start(bc.call(0))
    hand = freezer(world)
    assert hand.freeze(scene.manager.pid) == EAGAIN
    assert is_frozen(later)
    assert hand.freeze(scene.manager.pid, timeout_ms=SHORT) == EAGAIN
    answer(scene.server, get_call(scene.server))
    scene.client.write(bc.free(get_reply(started).buffer))
    assert not is_frozen(scene)
    assert is_frozen(later)
    hand.thaw(scene.manager.pid)
    assert not is_frozen(later)


@statements("F2", "F1")
def test_several_files_are_waited_for_one_after_the_other(world: World) -> None:
    scene = manager_and_client(world)
    other = scene.manager.open_again("hwbinder")
    other.become_manager()
    later = Scene(other.looper(), world.open("hwbinder").seasoned())
    first = scene.client.start(bc.call(0))
    second = later.client.start(bc.call(0))
    waiting = freezer(world).start_freeze(scene.manager.pid, timeout_ms=LONG)
    assert waiting.parked
    assert_br(world.open("hwbinder").seasoned().write_read(bc.call(0)), *FROZEN)
    world.open().seasoned().write(bc.oneway(0, code=5))
    answer(later.server, get_call(later.server))
    assert waiting.parked
    answer(scene.server, get_call(scene.server))
    assert waiting.parked
    get_call(scene.server, code=5)
    assert waiting.wait()[0] == 0
    get_reply(first)
    get_reply(second)
    assert is_frozen(scene._replace(client=scene.client.proc.seasoned()))


@statements("F2")
def test_two_freezes_of_one_process_wait_together(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    waiting = [freezer(world).start_freeze(scene.manager.pid, timeout_ms=LONG) for _ in range(2)]
    answer(scene.server, get_call(scene.server))
    assert [freeze.wait()[0] for freeze in waiting] == [0, 0]
    get_reply(started)


@statements("F2", "I4")
def test_a_close_during_a_freeze_does_not_disturb_the_next_read(world: World) -> None:
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    hand = freezer(world)
    child = hand.proc.fork()
    waiting = hand.start_freeze(scene.manager.pid, timeout_ms=LONG)
    child.close()
    assert waiting.parked
    answer(scene.server, get_call(scene.server))
    assert waiting.wait()[0] == 0
    get_reply(started)
    assert hand.start().parked
