# SPDX-License-Identifier: Apache-2.0
"""Who wants to know of a freeze, and what is told when it comes and goes quickly (F5)."""

from __future__ import annotations

from errno import EAGAIN, EINVAL
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import (
    BR_CLEAR_FREEZE_NOTIFICATION_DONE,
    BR_DEAD_BINDER,
    BR_DECREFS,
    BR_FROZEN_BINDER,
    BR_NOOP,
    BR_RELEASE,
)
from support import bc
from support.playbook import statements
from support.scenes import (
    LONG,
    answer,
    freezer,
    get_call,
    get_reply,
    give,
    manager_and_client,
    pass_on,
    take,
)
from support.transcript import assert_br

if TYPE_CHECKING:
    from support.playbook import Thread, World
    from support.transcript import Expected

COOKIE = 0x7000_0000_0007
CLEARED = (BR_CLEAR_FREEZE_NOTIFICATION_DONE, {"value": COOKIE})
BAD_HANDLE = 77


def told(frozen: int, cookie: int = COOKIE) -> Expected:
    return BR_FROZEN_BINDER, {"cookie": cookie, "is_frozen": frozen, "reserved": 0}


class Watch:
    """A client that has asked to be told about a manager's node, and has read the first report."""

    def __init__(self, world: World) -> None:
        self.scene = manager_and_client(world)
        self.watcher = self.scene.client
        self.number = take(self.scene, 0x1000)
        self.hand = freezer(world)
        outcome = self.watcher.write_read(bc.request_freeze_notice(self.number, COOKIE))
        assert_br(outcome, BR_NOOP, told(0))

    def done(self) -> None:
        self.watcher.write(bc.freeze_notice_done(COOKIE))

    def freeze(self) -> None:
        assert self.hand.freeze(self.scene.manager.pid) == 0

    def thaw(self) -> None:
        self.hand.thaw(self.scene.manager.pid)

    def clear(self) -> None:
        self.watcher.write(bc.clear_freeze_notice(self.number, COOKIE))

    def hears(self, *expected: Expected) -> None:
        """Read once, and then find nothing more."""
        if expected:
            assert_br(self.watcher.read(), BR_NOOP, *expected)
        assert self.watcher.poll() == 0


@statements("F5", "BC_REQUEST_FREEZE_NOTIFICATION", "BR_FROZEN_BINDER")
def test_the_state_is_told_at_once_and_when_it_changes(world: World) -> None:
    watch = Watch(world)
    watch.hears()
    watch.done()
    sleeping = watch.watcher.start()
    assert sleeping.parked
    watch.freeze()
    assert_br(sleeping.result(), BR_NOOP, told(1))
    watch.done()
    watch.hears()
    watch.thaw()
    watch.hears(told(0))


@statements("F5")
def test_the_first_report_says_how_it_is(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    assert freezer(world).freeze(scene.manager.pid) == 0
    outcome = scene.client.write_read(bc.request_freeze_notice(number, COOKIE))
    assert_br(outcome, BR_NOOP, told(1))


@statements("F5", "N6")
def test_any_thread_of_the_process_may_read_it(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    sleeping = scene.client.proc.looper().start()
    scene.client.write(bc.request_freeze_notice(number, COOKIE))
    assert_br(sleeping.result(), BR_NOOP, told(0))


@statements("F5", "N3")
def test_a_weak_handle_is_enough(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    scene.client.write(bc.increfs(number), bc.release(number))
    outcome = scene.client.write_read(bc.request_freeze_notice(number, COOKIE))
    assert_br(outcome, BR_NOOP, told(0))


@statements("F5", "R4")
def test_a_report_ends_the_read_but_an_acknowledgement_does_not(world: World) -> None:
    scene = manager_and_client(world)
    numbers = [take(scene, ptr) for ptr in (0x1000, 0x2000)]
    requests = [bc.request_freeze_notice(number, number) for number in numbers]
    scene.client.write(*requests)
    for number in numbers:
        assert_br(scene.client.read(), BR_NOOP, told(0, number))
    for number in numbers:
        scene.client.write(bc.freeze_notice_done(number), bc.clear_freeze_notice(number, number))
    done = [(BR_CLEAR_FREEZE_NOTIFICATION_DONE, {"value": number}) for number in numbers]
    assert_br(scene.client.read(), BR_NOOP, *done)


@statements("F5")
def test_every_handle_with_a_request_is_told(world: World) -> None:
    scene = manager_and_client(world)
    first, second = take(scene, 0x1000), take(scene, 0x2000)
    other = world.open().looper()
    started = other.start(bc.call(0))
    answer(scene.server, get_call(scene.server), bc.payload(bc.binder(0x1000)))
    theirs = get_reply(started).objects[0][1]
    scene.client.write(bc.request_freeze_notice(second, 22), bc.request_freeze_notice(first, 11))
    assert_br(other.write_read(bc.request_freeze_notice(theirs, 33)), BR_NOOP, told(0, 33))
    assert_br(scene.client.read(), BR_NOOP, told(0, 22))
    assert_br(scene.client.read(), BR_NOOP, told(0, 11))
    scene.client.write(bc.freeze_notice_done(11), bc.freeze_notice_done(22))
    other.write(bc.freeze_notice_done(33))
    assert freezer(world).freeze(scene.manager.pid) == 0
    assert_br(scene.client.read(), BR_NOOP, told(1, 11))
    assert_br(scene.client.read(), BR_NOOP, told(1, 22))
    assert_br(other.read(), BR_NOOP, told(1, 33))


@statements("F5")
def test_changes_before_a_report_is_read_are_one_report(world: World) -> None:
    watch = Watch(world)
    watch.done()
    watch.freeze()
    watch.thaw()
    watch.freeze()
    watch.hears(told(1))


@statements("F5")
def test_the_report_that_waits_says_how_it_is_when_it_is_read(world: World) -> None:
    watch = Watch(world)
    watch.done()
    watch.freeze()
    watch.thaw()
    watch.hears(told(0))


@statements("F5", "BC_FREEZE_NOTIFICATION_DONE")
def test_a_change_while_a_report_is_in_flight_is_told_after_it(world: World) -> None:
    watch = Watch(world)
    watch.freeze()
    watch.hears()
    sleeping = watch.watcher.start(bc.freeze_notice_done(COOKIE))
    assert_br(sleeping.result(), BR_NOOP, told(1))
    watch.hears()
    watch.done()
    watch.hears()


@statements("F5")
def test_changes_while_a_report_is_in_flight_are_one_report(world: World) -> None:
    watch = Watch(world)
    for _ in range(3):
        watch.freeze()
        watch.thaw()
    watch.hears()
    watch.done()
    watch.hears(told(0))


@statements("F5")
def test_no_change_while_a_report_is_in_flight_is_no_report(world: World) -> None:
    watch = Watch(world)
    watch.thaw()
    watch.thaw()
    watch.done()
    watch.hears()


@statements("F5")
def test_the_same_state_again_is_told_again(world: World) -> None:
    watch = Watch(world)
    watch.done()
    watch.thaw()
    watch.hears(told(0))
    watch.done()
    watch.freeze()
    watch.hears(told(1))
    watch.done()
    watch.freeze()
    watch.hears(told(1))


@statements("F5", "BC_CLEAR_FREEZE_NOTIFICATION", "BR_CLEAR_FREEZE_NOTIFICATION_DONE")
def test_clearing_with_nothing_under_way(world: World) -> None:
    watch = Watch(world)
    watch.done()
    watch.clear()
    watch.hears(CLEARED)
    watch.freeze()
    watch.hears()


@statements("F5")
def test_clearing_replaces_a_report_that_was_not_read(world: World) -> None:
    watch = Watch(world)
    watch.done()
    watch.freeze()
    watch.clear()
    watch.hears(CLEARED)


@statements("F5")
def test_clearing_while_a_report_is_in_flight_is_acknowledged_after_it(world: World) -> None:
    watch = Watch(world)
    watch.freeze()
    watch.clear()
    watch.thaw()
    watch.hears()
    watch.done()
    watch.hears(CLEARED)


@statements("F5")
def test_a_cleared_request_can_be_made_again(world: World) -> None:
    watch = Watch(world)
    watch.clear()
    again = bc.request_freeze_notice(watch.number, COOKIE + 1)
    assert_br(watch.watcher.write_read(again), BR_NOOP, told(0, COOKIE + 1))
    watch.done()
    watch.hears(CLEARED)
    watch.freeze()
    watch.watcher.write(bc.freeze_notice_done(COOKIE + 1))
    watch.hears(told(1, COOKIE + 1))


@statements("F5")
def test_of_two_with_one_cookie_the_first_is_done_first(world: World) -> None:
    scene = manager_and_client(world)
    first, second = take(scene, 0x1000), take(scene, 0x2000)
    for number in (first, second):
        outcome = scene.client.write_read(bc.request_freeze_notice(number, COOKIE))
        assert_br(outcome, BR_NOOP, told(0))
    scene.client.write(bc.clear_freeze_notice(second, COOKIE))
    scene.client.write(bc.freeze_notice_done(COOKIE))
    assert scene.client.poll() == 0
    scene.client.write(bc.freeze_notice_done(COOKIE))
    assert_br(scene.client.read(), BR_NOOP, CLEARED)


@statements("F5", "F2")
def test_a_freeze_in_vain_is_not_told(world: World) -> None:
    watch = Watch(world)
    watch.done()
    started = watch.watcher.start(bc.call(0))
    assert watch.hand.freeze(watch.scene.manager.pid) == EAGAIN
    answer(watch.scene.server, get_call(watch.scene.server))
    get_reply(started)
    watch.hears()


@statements("F5", "F2")
def test_a_freeze_is_told_when_it_is_complete(world: World) -> None:
    watch = Watch(world)
    watch.done()
    other = world.open().seasoned()
    other.write(bc.call(0))
    sleeping = watch.watcher.start()
    waiting = watch.hand.start_freeze(watch.scene.manager.pid, timeout_ms=LONG)
    assert sleeping.parked
    answer(watch.scene.server, get_call(watch.scene.server))
    assert waiting.wait()[0] == 0
    assert_br(sleeping.result(), BR_NOOP, told(1))


@statements("F5", "N4")
def test_a_dropped_handle_takes_its_request_along(world: World) -> None:
    watch = Watch(world)
    watch.watcher.write(bc.release(watch.number))
    assert_br(watch.scene.server.read(), BR_NOOP, BR_RELEASE, BR_DECREFS)
    outcome = watch.watcher.write_read(bc.freeze_notice_done(COOKIE), read=0)
    assert outcome.errno == EINVAL
    watch.freeze()
    watch.hears()


@statements("F5", "N4")
def test_a_dropped_handle_takes_its_unread_report_along(world: World) -> None:
    watch = Watch(world)
    watch.done()
    watch.freeze()
    watch.watcher.write(bc.release(watch.number))
    watch.hears()


@statements("F5", "N4")
def test_an_acknowledgement_outlives_the_handle(world: World) -> None:
    watch = Watch(world)
    watch.clear()
    watch.watcher.write(bc.release(watch.number))
    watch.done()
    watch.hears(CLEARED)


@statements("F5", "N11")
def test_nothing_is_told_of_the_dead_but_their_death(world: World) -> None:
    watch = Watch(world)
    watch.done()
    watch.freeze()
    watch.watcher.write(bc.request_death(watch.number, 5))
    watch.scene.manager.kill()
    assert_br(watch.watcher.read(), BR_NOOP, told(1))
    assert_br(watch.watcher.read(), BR_NOOP, (BR_DEAD_BINDER, {"value": 5}))
    watch.done()
    watch.hears()


@statements("F5")
def test_a_request_for_the_dead_is_answered_only_when_it_is_cleared(world: World) -> None:
    scene = manager_and_client(world)
    number = take(scene, 0x1000)
    scene.manager.kill()
    scene.client.write(bc.request_freeze_notice(number, COOKIE))
    assert scene.client.poll() == 0
    scene.client.write(bc.clear_freeze_notice(number, COOKIE))
    assert_br(scene.client.read(), BR_NOOP, CLEARED)


@statements("F5", "N12")
def test_a_watcher_that_dies_leaves_nothing(world: World) -> None:
    watch = Watch(world)
    others = [take(watch.scene, ptr) for ptr in (0x2000, 0x3000, 0x4000)]
    watch.watcher.write(*(bc.request_freeze_notice(number, number) for number in others))
    assert_br(watch.watcher.read(), BR_NOOP, told(0, others[0]))
    watch.watcher.write(*(bc.clear_freeze_notice(number, number) for number in others[:2]))
    watch.clear()
    watch.watcher.proc.kill()
    watch.freeze()


def refused(thread: Thread, command: bytes) -> bool:
    """Whether a command ends the ioctl with EINVAL and is not taken."""
    outcome = thread.write_read(bc.enter_looper(), command)
    return (outcome.errno, outcome.write_consumed) == (EINVAL, 4)


BAD = {
    "request, no such handle": bc.request_freeze_notice(BAD_HANDLE, COOKIE),
    "request, handle 0 that nobody acquired": bc.request_freeze_notice(0, COOKIE),
    "clear, no such handle": bc.clear_freeze_notice(BAD_HANDLE, COOKIE),
    "done, nothing read": bc.freeze_notice_done(COOKIE),
}


@statements("F5", "E6")
@pytest.mark.parametrize("command", BAD.values(), ids=BAD)
def test_what_fits_no_handle_is_an_error(world: World, command: bytes) -> None:
    assert refused(manager_and_client(world).client, command)


@statements("F5", "E6", "Q11")
def test_what_fits_no_request_is_an_error(world: World) -> None:
    watch = Watch(world)
    other = take(watch.scene, 0x2000)
    watcher = watch.watcher
    assert refused(watcher, bc.request_freeze_notice(watch.number, COOKIE))
    assert refused(watcher, bc.request_freeze_notice(watch.number, COOKIE + 1))
    assert refused(watcher, bc.clear_freeze_notice(watch.number, COOKIE + 1))
    assert refused(watcher, bc.clear_freeze_notice(other, COOKIE))
    assert refused(watcher, bc.freeze_notice_done(COOKIE + 1))
    watch.done()
    assert refused(watcher, bc.freeze_notice_done(COOKIE))
    watch.clear()
    assert refused(watcher, bc.clear_freeze_notice(watch.number, COOKIE))
    assert refused(watcher, bc.freeze_notice_done(COOKIE))
    watch.hears(CLEARED)


@statements("F5", "N1")
def test_handle_0_can_be_watched_as_any_other(world: World) -> None:
    scene = manager_and_client(world)
    scene.client.write(bc.increfs(0))
    outcome = scene.client.write_read(bc.request_freeze_notice(0, COOKIE))
    assert_br(outcome, BR_NOOP, told(0))
    scene.client.write(bc.freeze_notice_done(COOKIE))
    assert freezer(world).freeze(scene.manager.pid) == 0
    assert_br(scene.client.read(), BR_NOOP, told(1))


@statements("F5", "I6")
def test_a_process_hears_of_itself_through_another_file(world: World) -> None:
    scene = manager_and_client(world)
    second = scene.client.proc.open_again().looper()
    number = pass_on(scene, give(scene, 0x1000), second)
    assert_br(second.write_read(bc.request_freeze_notice(number, COOKIE)), BR_NOOP, told(0))
    second.write(bc.freeze_notice_done(COOKIE))
    assert freezer(world).freeze(scene.client.proc.pid) == 0
    assert_br(second.read(), BR_NOOP, told(1))
