# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: users, then processes, by the time that they have taken."""

from __future__ import annotations

import errno
from collections import Counter
from itertools import cycle

from binderd.fuse.turns import (
    ACTIVE_NS,
    GRACE_NS,
    LONG_NS,
    PAUSE_FACTOR,
    PAUSE_MAX_NS,
    QUANTUM_NS,
    TOO_LONG_NS,
    Job,
    Turns,
)
from binderwire import fuse_abi as abi
from binderwire.binder_abi import BINDER_WRITE_READ, binder_write_read
from channel.helpers import request
from channel.session_world import World, ioctl_request, open_request

USUAL_NS = 20_000
ARGUMENT = bytes(binder_write_read.size)


class Work(Job):
    """Something that takes time, and may be all that its client asks for or go on for ever."""

    def __init__(self, room: Room, user: int, process: int, takes_ns: int, *, again: bool) -> None:
        super().__init__(0)
        self.room = room
        self.user = user
        self.process = process
        self.takes_ns = takes_ns
        self.again = again

    def run(self) -> None:
        room = self.room
        room.now += self.takes_ns
        room.worked += self.takes_ns
        room.ran.append((self.user, self.process))
        if self.again:
            room.ask(self)


class Room:
    """Users who ask for work, and the time that it takes."""

    def __init__(self) -> None:
        self.now = 10 * ACTIVE_NS
        self.worked = 0
        self.turns = Turns(lambda: self.now, lambda: self.worked)
        self.ran: list[tuple[int, int]] = []

    def ask(self, work: Work) -> None:
        account = self.turns.of_payer(work.user)
        self.turns.put(account, work.process, work)

    def serve(self, user: int, takes_ns: int = USUAL_NS, worked_ns: int | None = None) -> None:
        """Serve a request at once, as it was read."""
        self.turns.begin()
        self.turns.payer = self.turns.of_payer(user)
        self.now += takes_ns
        self.worked += takes_ns if worked_ns is None else worked_ns
        self.turns.charge()

    def go_on(self, until: int) -> None:
        """Give turns until a time."""
        while self.now < until:
            if self.turns.run_next(self.turns.begin()):
                self.turns.charge()
            else:
                assert self.turns.delay() > 0
                self.now += min(self.turns.delay(), until - self.now)

    def waits(self, user: int) -> bool:
        return self.turns.of_payer(user).waits


def test_who_is_alone_never_waits() -> None:
    room = Room()
    for _ in range(1000):
        room.serve(1)
        room.serve(1, 2 * TOO_LONG_NS)
        assert not room.waits(1)


def test_who_is_ahead_waits_until_all_is_done() -> None:
    room = Room()
    room.serve(2)
    for _ in range(QUANTUM_NS // USUAL_NS):
        assert not room.waits(1)
        room.serve(1)
    room.serve(1)
    assert room.waits(1)
    assert not room.waits(2)
    room.turns.rest()
    assert not room.waits(1)


def test_users_share_alike_however_many_processes_they_have() -> None:
    room = Room()
    for process in range(100):
        room.ask(Work(room, 1, process, USUAL_NS, again=True))
    room.ask(Work(room, 2, 7, USUAL_NS, again=True))
    room.ask(Work(room, 3, 8, 5 * USUAL_NS, again=True))
    room.go_on(room.now + 3000 * USUAL_NS)
    runs = Counter(user for user, _ in room.ran)
    assert abs(runs[1] - runs[2]) <= 10
    assert abs(runs[1] - 5 * runs[3]) <= 10
    processes = Counter(process for user, process in room.ran if user == 1)
    assert max(processes.values()) - min(processes.values()) <= 1, "one user's take turns as well"


def test_one_process_goes_on_in_order() -> None:
    room = Room()
    order: list[int] = []

    class Numbered(Job):
        def __init__(self, number: int) -> None:
            super().__init__(0)
            self.number = number

        def run(self) -> None:
            order.append(self.number)

    for number, process in zip(range(30), cycle([1, 2, 3]), strict=False):
        room.turns.put(room.turns.of_payer(1), process, Numbered(number))
    while room.turns.run_next(room.turns.begin()):
        room.turns.charge()
    assert order == list(range(30))
    assert (room.turns.waiting, room.turns.bytes) == (0, 0)


def test_something_long_is_paid_for_while_others_are_active() -> None:
    room = Room()
    room.serve(2)
    room.serve(1, LONG_NS + 1)
    assert room.waits(1)
    room.ask(Work(room, 1, 1, USUAL_NS, again=False))
    assert room.turns.delay() == 2 * (LONG_NS + 1)
    assert not room.turns.run_next(room.turns.begin())
    room.now += room.turns.delay()
    assert room.turns.run_next(room.turns.begin())
    room.turns.charge()
    assert not room.waits(1)
    room.now += ACTIVE_NS
    room.serve(1, LONG_NS + 1)
    assert not room.waits(1), "nobody else is active"


def test_what_cannot_be_stopped_costs_a_hundred_times_its_length() -> None:
    room = Room()
    room.serve(2)
    long = TOO_LONG_NS + LONG_NS
    start, pieces = room.now, 40
    for _ in range(pieces):
        room.serve(2)
        room.ask(Work(room, 1, 1, long, again=False))
        while not room.turns.run_next(room.turns.begin()):
            room.now += room.turns.delay()
            room.serve(2)
        room.turns.charge()
    owed = PAUSE_FACTOR * pieces * long
    assert owed - GRACE_NS - PAUSE_FACTOR * long <= room.now - start <= owed


def test_who_owes_is_not_forgotten_for_having_nothing_open() -> None:
    room = Room()
    room.serve(2)
    room.serve(1, 2 * TOO_LONG_NS)
    room.now += 2 * TOO_LONG_NS
    assert not room.turns.run_next(room.turns.begin())
    assert not room.waits(1)
    room.turns.rest()
    debtor = room.turns.of_payer(1)
    for user in range(3, 10_000):
        room.turns.of_payer(user)
    assert room.turns.of_payer(1) is debtor
    room.now += GRACE_NS
    room.turns.begin()
    for user in range(10_000, 30_000):
        room.turns.of_payer(user)
    assert room.turns.of_payer(1) is not debtor


def test_no_pause_is_endless() -> None:
    room = Room()
    for _ in range(3):
        room.serve(2)
        room.serve(1, ACTIVE_NS // 2)
        room.ask(Work(room, 1, 1, USUAL_NS, again=False))
        assert room.turns.delay() == PAUSE_MAX_NS
        room.now += PAUSE_MAX_NS
        assert room.turns.run_next(room.turns.begin())
        room.turns.charge()


def test_what_rarely_takes_long_is_not_held_against_anybody() -> None:
    """Usual requests, one of which takes too long each half second, as on a busy machine."""
    room = Room()
    for _ in range(100):
        room.serve(2)
        room.serve(1, 2 * TOO_LONG_NS)
        room.ask(Work(room, 1, 1, USUAL_NS, again=False))
        assert room.turns.delay() == 2 * TOO_LONG_NS
        room.now += room.turns.delay()
        assert room.turns.run_next(room.turns.begin())
        room.turns.charge()
        room.now += 500_000_000


def test_to_be_preempted_is_nobodys_fault() -> None:
    room = Room()
    room.serve(2)
    room.serve(1, 50 * TOO_LONG_NS, worked_ns=USUAL_NS)
    room.ask(Work(room, 1, 1, USUAL_NS, again=False))
    assert room.turns.delay() == 2 * TOO_LONG_NS


def test_others_see_little_of_one_who_asks_for_long_things() -> None:
    """A user's calls, one every millisecond, beside another's that take 20 ms each."""
    room = Room()
    room.serve(2)
    for process in range(64):
        room.ask(Work(room, 1, process, 20_000_000, again=True))
    late = []
    start = room.now
    for number in range(2000):
        due = start + number * 1_000_000
        if room.now < due:
            room.go_on(due)
        began = max(due, room.now)
        room.serve(2)
        late.append(began - due)
        if room.now > due + 1_000_000:
            start = room.now - number * 1_000_000  # who waits for an answer asks for nothing else
    assert sum(ns > 1_000_000 for ns in late) < len(late) / 100
    assert any(user == 1 for user, _ in room.ran), "the other goes on as well"


def test_those_who_owe_nothing_are_forgotten() -> None:
    room = Room()
    for user in range(20_000):
        room.serve(user)
        room.turns.rest()
    assert len(room.turns._accounts[0]) < 10_000


# Requests


class Busy(World):
    """A world in which the user of the open file waits, and another is active."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 10 * ACTIVE_NS
        self.handle = self.open()
        self.act(user=1, takes_ns=USUAL_NS)
        self.act(user=1000, takes_ns=LONG_NS + 1)
        assert self.turns.of_payer(1000).waits

    def act(self, user: int, takes_ns: int) -> None:
        self.turns.begin()
        self.turns.payer = self.turns.of_payer(user)
        self.clock += takes_ns
        self.turns.charge()

    def take_turns(self) -> list[tuple[int, int, bytes]]:
        """Let pass the time that all need; return what is answered."""
        self.clock += self.turns.delay()
        while self.turns.run_next(self.turns.begin()):
            self.turns.charge()
        return self.collect()


def test_a_request_waits_for_its_turn() -> None:
    world = Busy()
    assert world.send(ioctl_request(world.handle, BINDER_WRITE_READ, ARGUMENT, 48)) == []
    assert "ioctl" not in [call[0] for call in world.engine.calls]
    [(unique, error, _)] = world.take_turns()
    assert (unique, error) == (2, 0)
    assert [call[0] for call in world.engine.calls].count("ioctl") == 1
    assert world.turns.waiting == 0


def test_an_interruption_stays_behind_its_request() -> None:
    world = Busy()
    world.engine.parks = True
    assert world.send(ioctl_request(world.handle, BINDER_WRITE_READ, ARGUMENT, 48)) == []
    interruption = request(abi.FUSE_INTERRUPT, abi.fuse_interrupt_in.pack(2), unique=3)
    assert world.send(interruption) == []
    assert world.send(interruption) == [], "the kernel may say so twice"
    world.take_turns()
    calls = [call[0] for call in world.engine.calls if call[0] in ("ioctl", "interrupt")]
    assert calls == ["ioctl", "interrupt"]


def test_a_release_is_answered_at_once_and_done_behind_what_came_before() -> None:
    world = Busy()
    other = world.send(ioctl_request(world.handle, BINDER_WRITE_READ, ARGUMENT, 48))
    release = request(abi.FUSE_RELEASE, abi.fuse_release_in.build(fh=world.handle), unique=5)
    assert (other, world.send(release)) == ([], [(5, 0, b"")])
    assert len(world.files) == 1
    [(unique, _, _)] = world.take_turns()
    assert (unique, len(world.files)) == (2, 0)
    calls = [call[0] for call in world.engine.calls if call[0] in ("ioctl", "release")]
    assert calls == ["ioctl", "release"]
    assert world.opener.clients[0].is_closed


def test_looking_for_a_name_does_not_wait_for_what_its_user_pays() -> None:
    """The kernel holds locks meanwhile that others wait for."""
    world = Busy()
    nodeid = world.lookup(tid=8)
    assert world.send(open_request(nodeid)) == [], "that does"
    assert [error for _, error, _ in world.take_turns()] == [-errno.ESTALE]


def test_there_is_a_limit_to_what_waits() -> None:
    world = Busy()
    room = 2 << 20
    world.turns.set_room(4 * room, room, 3 * room)
    answers: list[tuple[int, int, bytes]] = []
    sent = 0
    while not answers:
        sent += 1
        frame = ioctl_request(world.handle, BINDER_WRITE_READ, ARGUMENT, 48, unique=2 * sent)
        answers = world.send(frame)
        assert sent < 100_000
    assert [(unique, error) for unique, error, _ in answers] == [(2 * sent, -errno.ENOMEM)]
    assert sent > 1000
    assert world.turns.bytes <= room
    assert len(world.take_turns()) == sent - 1
    assert world.turns.bytes == 0


def test_users_who_wait_leave_room_for_others_and_root() -> None:
    turns = Turns(lambda: 0, lambda: 0)
    turns.set_room(40_000, 10_000, 30_000)
    root, *users = (turns.of_payer(number) for number in (0, *range(1001, 1006)))
    waiting = []
    for user in users:
        waiting.append(0)
        while turns.has_room(user, 488):
            turns.put(user, 1, Job(488))
            waiting[-1] += 1
    assert waiting == [10, 10, 10, 0, 0], "a quarter each, and not more than three"
    while turns.has_room(root, 488):
        turns.put(root, 1, Job(488))
    assert root.bytes == 10_000
