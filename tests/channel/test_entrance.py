# SPDX-License-Identifier: Apache-2.0
"""Opens of one device at the same time, which begin anew one after the other."""

from __future__ import annotations

import itertools
from errno import ESTALE
from typing import Final

import pytest

from binderd.fuse.directory import Directory
from binderd.fuse.entrance import (
    DOUBLED_MAX,
    HOLD_MS,
    HOLD_NS,
    LATE_NS,
    USERS_MAX,
    WAITING_MAX,
    Entrance,
    Opening,
)
from binderwire import fuse_abi as abi
from channel.helpers import request
from channel.session_world import World

FLAGS: Final = abi.fuse_open_in.pack(2, 0)


class Openers(World):
    """Threads that open devices: 100 to 199 are those of user 1, 200 to 299 those of user 2 ...

    The number of a request is that of its thread.
    """

    def come(self, *threads: int, name: bytes = b"binder") -> list[int]:
        """Have threads look a name up, then open it; return which begin anew."""
        for thread in threads:
            self.lookup(name, thread)
        common = self.lookup(name, 9)
        return self.sent_back([self.open_it(common, thread) for thread in threads])

    def open_it(self, nodeid: int, thread: int) -> list[tuple[int, int, bytes]]:
        numbers = {"unique": thread, "uid": thread // 100, "tid": thread}
        return self.send(request(abi.FUSE_OPEN, FLAGS, nodeid=nodeid, **numbers))

    def return_(self, thread: int, name: bytes = b"binder") -> list[int]:
        """Have a thread that begins anew open the device; return which others begin anew then."""
        replies = self.open_it(self.lookup(name, thread), thread)
        [error] = [error for unique, error, _ in replies if unique == thread]
        assert error == 0
        return self.sent_back([[reply for reply in replies if reply[0] != thread]])

    def sent_back(self, replies: list[list[tuple[int, int, bytes]]]) -> list[int]:
        found = [reply for some in replies for reply in some]
        assert {error for _, error, _ in found} <= {-ESTALE}
        return [unique for unique, _, _ in found]

    def pass_time(self, nanoseconds: int) -> list[int]:
        """Let the timer run out so much later; return which threads begin anew then."""
        assert self.entrance_timers.pop() == HOLD_MS
        assert not self.entrance_timers, "one timer is enough"
        self.clock += nanoseconds
        self.entrance.expire()
        return self.sent_back([self.collect()])


@pytest.fixture
def world() -> Openers:
    return Openers()


def test_who_is_alone_waits_for_nobody(world: Openers) -> None:
    for thread in (100, 101, 200):
        assert world.come(thread) == [thread]
        assert world.return_(thread) == []
    assert world.entrance_timers == []


def test_threads_begin_anew_one_after_the_other(world: Openers) -> None:
    assert world.come(100, 101, 102) == [100]
    assert world.return_(100) == [101]
    assert world.come(103) == []
    assert world.return_(101) == [102]
    assert world.return_(102) == [103]
    assert world.return_(103) == []
    assert len(world.entrance) == 0
    assert not any(opened.is_private for opened in world.opener.clients)


def test_looking_up_waits_for_nobody(world: Openers) -> None:
    world.come(100, 101)
    assert world.lookup(tid=200) == world.lookup(tid=101)


def test_devices_do_not_wait_for_each_other(world: Openers) -> None:
    assert world.come(100, 101) == [100]
    assert world.come(102, 103, name=b"hwbinder") == [102]
    assert world.return_(102, b"hwbinder") == [103]


def test_users_do_not_wait_for_one_another(world: Openers) -> None:
    assert world.come(400, 401, 402, 100, 101) == [400, 100]
    assert world.return_(100) == [101]
    assert world.return_(101) == []
    assert world.return_(400) == [401]


def test_who_does_not_come_back_is_not_waited_for(world: Openers) -> None:
    assert world.come(400, 401, 402) == [400]
    assert world.pass_time(HOLD_NS - 1) == []
    assert world.pass_time(1) == [401]
    assert world.return_(400) == [], "who is late after all makes no difference"
    assert world.return_(401) == [402]
    assert world.pass_time(HOLD_NS) == []
    assert world.entrance_timers == [], "nobody waits any more"


def test_the_more_are_late_the_longer_the_next_one_is_waited_for(world: Openers) -> None:
    assert world.come(*range(400, 420)) == [400]
    for late in range(3):
        assert world.pass_time((HOLD_NS << late) - 1) == []
        assert world.pass_time(1) == [401 + late]
    assert world.return_(401) == []
    assert world.pass_time(2 * HOLD_NS) == []
    assert world.pass_time(2 * HOLD_NS) == [404], "only two are late"
    assert world.return_(404) == [405], "but who is back is waited for no more"


def test_who_is_late_for_a_second_is_not_expected_any_more(world: Openers) -> None:
    assert world.come(*range(400, 410)) == [400]
    for late in range(DOUBLED_MAX + 1):
        assert world.pass_time(HOLD_NS << late) == [401 + late]
    for late in range(2):
        assert world.pass_time(HOLD_NS << DOUBLED_MAX) == [406 + late], "no longer than that"
    assert world.pass_time(LATE_NS) == [408]
    assert world.pass_time(HOLD_NS) == [409]


def test_who_never_comes_back_keeps_nobody_out(world: Openers) -> None:
    assert world.come(400) == [400]
    world.clock += HOLD_NS
    assert world.come(401) == [401]
    assert world.entrance_timers == []


def test_of_many_users_a_few_are_let_in_at_once(world: Openers) -> None:
    threads = [100 * user for user in range(1, 12)]
    assert world.come(*threads) == threads[:USERS_MAX]
    for index in range(USERS_MAX, len(threads)):
        assert world.return_(threads[index - 2]) == [threads[index]]


def test_users_take_turns(world: Openers) -> None:
    assert world.come(*range(100, 150)) == [100]
    assert world.come(200, 201, 300, 301, 400) == [200]
    order = [100, 101, 300, 400, 102, 301, 103, 104]
    for thread, following in itertools.pairwise(order):
        assert world.return_(thread) == [following]
    assert world.return_(200) == [201]


def test_a_signal_ends_the_wait(world: Openers) -> None:
    assert world.come(100, 101, 102) == [100]
    interruption = request(abi.FUSE_INTERRUPT, abi.fuse_interrupt_in.pack(101), unique=1)
    assert world.sent_back([world.send(interruption)]) == [101]
    assert world.return_(101) == [], "it is not the one that is waited for"
    assert world.return_(100) == [102]
    world.send(interruption)
    assert world.engine.calls[-1] == ("interrupt", 101), "it waits no more"


def test_there_is_a_limit_to_what_waits() -> None:
    device = Directory(["binder"]).find(b"binder")
    assert device is not None
    entered: list[int] = []
    entrance = Entrance(lambda: 0, lambda milliseconds: None)
    entrance.leads_to(lambda opening: entered.append(opening.tid))
    last = WAITING_MAX + 2
    for tid in range(1, last + 1):
        entrance.enter(Opening(tid, device, 5, tid, payer=1))
    assert entered == [1, last], "the last one does not wait"
    entrance.leave(device, last)
    assert len(entrance) == WAITING_MAX
    entrance.leave(device, 1)
    assert entered == [1, last, 2]


def test_a_device_that_goes_meanwhile_keeps_nobody(world: Openers) -> None:
    assert world.come(100, 101) == [100]
    assert world.answer(request(abi.FUSE_UNLINK, b"binder\0")) == (0, b"")
    assert world.pass_time(HOLD_NS) == [101]
    assert len(world.entrance) == 0


def test_devices_that_nobody_opens_any_more_are_forgotten(world: Openers) -> None:
    for number in range(1000):
        name = b"%d" % number
        assert world.directory.add(name)[0] == 0
        assert world.come(100, name=name) == [100]
        world.directory.remove(name)
        world.clock += LATE_NS
    assert len(world.entrance._doors) < 100
