# SPDX-License-Identifier: Apache-2.0
"""The same clients on two backends at once, step by step: whatever they see must be the same.

Decisions come from ``pick(n)``, as in ``crowd``.  What differs by nature is made comparable first:
addresses become offsets into the receiver's mapping, process ids become places in the list of
members.

Rules: nothing is done whose outcome a real scheduler may decide.  So at most one thread of a member
waits for calls at a time; any number may wait for replies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from binderwire.binder_abi import (
    BC_TRANSACTION,
    BINDER_SET_CONTEXT_MGR,
    BR_ACQUIRE,
    BR_DEAD_BINDER,
    BR_INCREFS,
    BR_REPLY,
    BR_TRANSACTION,
    TF_ONE_WAY,
)
from support import bc

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.playbook import Outcome, PendingRead, Proc, Thread, World
    from support.transcript import Received

MEMBERS_MAX = 4
HANDS_MAX = 3
SIZE = 4096  # bytes of receive area
READ_SIZES = (0, 64, 80, 256, 256, 256)
POINTERS = (0x1000, 0x2000)
HANDLES = (0, 0, 1, 1, 2, 3)


def _awaits_reply(command: bc.Command) -> bool:
    """Whether it is a call, behind which a thread takes no work of its process (Q5)."""
    if not isinstance(command, bc.Parcel) or command.word != BC_TRANSACTION:
        return False
    return not command.fields["flags"] & TF_ONE_WAY


class Hand:
    """A thread on both sides."""

    def __init__(self, member: Member, threads: tuple[Thread, Thread]) -> None:
        self.member = member
        self.threads = threads
        self.pending: tuple[PendingRead, PendingRead] | None = None
        self.awaits_reply = False


class Member:
    """An open file on both sides, and what its client knows."""

    def __init__(self, number: int, procs: tuple[Proc, Proc]) -> None:
        self.number = number
        self.procs = procs
        self.hands: list[Hand] = []
        self.buffers: list[tuple[int, int]] = []
        self.news: list[bytes] = []

    @property
    def has_waiter(self) -> bool:
        """Whether a thread may be waiting for calls."""
        return any(hand.pending is not None and not hand.awaits_reply for hand in self.hands)


class Duel:
    """Two worlds side by side."""

    def __init__(self, worlds: tuple[World, World], pick: Callable[[int], int]) -> None:
        self.worlds = worlds
        self.pick = pick
        self.members: list[Member] = []
        self.pids: list[dict[int, int]] = [{0: 0}, {0: 0}]
        self.opened = 0
        self.history: list[str] = []
        self.seen = 0  # items that were compared

    # Steps

    def start(self) -> None:
        """Begin with a few members, so that something happens."""
        for step in (self.join, self.join, self.join, *[self.hire] * 6):
            step()

    def step(self) -> None:
        steps = [self.join, self.hire, self.hire, self.signal, self.leave, self.poll, self.die]
        steps += [self.act] * 14
        steps[self.pick(len(steps))]()
        self.settle()

    def join(self) -> None:
        if len(self.members) >= MEMBERS_MAX:
            return
        nonblocking = self.pick(5) == 0
        self.opened += 1
        self.note(f"open {self.opened} nonblocking={nonblocking}")
        procs = tuple(world.open(size=SIZE, nonblocking=nonblocking) for world in self.worlds)
        for pids, proc in zip(self.pids, procs, strict=True):
            pids[proc.pid] = self.opened
        self.members.append(Member(self.opened, (procs[0], procs[1])))

    def hire(self) -> None:
        member = self._one(self.members)
        if member is None or len(member.hands) >= HANDS_MAX:
            return
        self.note(f"thread of {member.number}")
        threads = (member.procs[0].thread(), member.procs[1].thread())
        member.hands.append(Hand(member, threads))
        if self.pick(3):
            results = [t.ioctl(BINDER_SET_CONTEXT_MGR, bytes(4))[0] for t in threads]
            self.compare("manager", results[0], results[1])

    def act(self) -> None:
        hand = self._one([h for m in self.members for h in m.hands if h.pending is None])
        if hand is None:
            return
        commands = [self._command(hand) for _ in range(self.pick(4))]
        size = 0 if hand.member.has_waiter else READ_SIZES[self.pick(len(READ_SIZES))]
        calls = [command for command in commands if _awaits_reply(command(0))]
        if not size and calls:
            size, commands = 256, calls[:1]
        self.note(f"{self._name(hand)} reads {size}: {[str(command(0)) for command in commands]}")
        hand.awaits_reply = hand.member.has_waiter
        hand.pending = (
            hand.threads[0].start(*(command(0) for command in commands), read=size),
            hand.threads[1].start(*(command(1) for command in commands), read=size),
        )

    def signal(self) -> None:
        hand = self._one([h for m in self.members for h in m.hands if h.pending is not None])
        if hand is not None and hand.pending is not None:
            self.note(f"signal {self._name(hand)}")
            for thread in hand.threads:
                thread.signal()
            self._take(hand)

    def leave(self) -> None:
        hand = self._one([h for m in self.members for h in m.hands if h.pending is None])
        if hand is not None:
            self.note(f"exit of {self._name(hand)}")
            for thread in hand.threads:
                thread.exit()

    def poll(self) -> None:
        hand = self._one([h for m in self.members for h in m.hands if h.pending is None])
        if hand is not None:
            self.note(f"poll of {self._name(hand)}")
            self.compare("poll", hand.threads[0].poll(), hand.threads[1].poll())

    def die(self) -> None:
        if len(self.members) > 1 and self.pick(2):
            member = self.members.pop(self.pick(len(self.members)))
            self.note(f"kill {member.number}")
            for proc in member.procs:
                proc.kill()

    def settle(self) -> None:
        """Compare which reads sleep, and what the others brought."""
        for member in self.members:
            for hand in member.hands:
                if hand.pending is not None:
                    parked = [pending.parked for pending in hand.pending]
                    self.compare(f"{self._name(hand)} asleep", parked[0], parked[1])
                    if not parked[0]:
                        self._take(hand)

    # Comparing

    def note(self, text: str) -> None:
        self.history.append(text)

    def compare(self, what: str, first: object, second: object) -> None:
        self.note(f"   {what}: {first}")
        if first != second:
            names = [world.name for world in self.worlds]
            told = "\n".join(self.history[-60:])
            raise AssertionError(f"{told}\n{what}: {names[0]} {first}, {names[1]} {second}")

    def _take(self, hand: Hand) -> None:
        assert hand.pending is not None
        outcomes = [pending.result() for pending in hand.pending]
        hand.pending, hand.awaits_reply = None, False
        views = [self._view(side, outcome) for side, outcome in enumerate(outcomes)]
        self.compare(self._name(hand), views[0], views[1])
        for first, second in zip(outcomes[0].items, outcomes[1].items, strict=True):
            self._learn(hand.member, first, second)

    def _view(self, side: int, outcome: Outcome) -> list[Any]:
        """Return what the client sees, without what only this side can know."""
        start = outcome.proc.mapping[0]
        view: list[Any] = [outcome.errno, outcome.write_consumed, outcome.read_consumed]
        for item in outcome.items:
            fields = item.fields._asdict() if item.fields else {}
            if item.word in (BR_TRANSACTION, BR_REPLY):
                fields["sender_pid"] = self.pids[side][item.sender_pid]
                fields["buffer"] -= start
                fields["offsets"] -= start
                fields["data"] = item.data
                fields["offset_list"] = item.offset_list
            view.append((item.name, fields))
        self.seen += len(outcome.items)
        return view

    def _learn(self, member: Member, first: Received, second: Received) -> None:
        if first.word in (BR_TRANSACTION, BR_REPLY):
            member.buffers.append((first.buffer, second.buffer))
        elif first.word == BR_INCREFS:
            member.news.append(bc.increfs_done(first.ptr, first.cookie))
        elif first.word == BR_ACQUIRE:
            member.news.append(bc.acquire_done(first.ptr, first.cookie))
        elif first.word == BR_DEAD_BINDER:
            member.news.append(bc.dead_binder_done(first.value))

    # Choosing

    def _one(self, choices: list[Any]) -> Any:  # noqa: ANN401
        return choices[self.pick(len(choices))] if choices else None

    def _name(self, hand: Hand) -> str:
        return f"{hand.member.number}.{hand.member.hands.index(hand)}"

    def _command(self, hand: Hand) -> Callable[[int], bc.Command]:
        """Return a command that takes its addresses from the given side, 0 or 1."""
        member, pick = hand.member, self.pick
        number = HANDLES[pick(len(HANDLES))]
        kind = pick(16)
        if kind < 4 and member.buffers:
            buffer = member.buffers.pop(pick(len(member.buffers)))
            return lambda side: bc.free(buffer[side])
        if kind < 7 and member.news:
            news = member.news.pop(pick(len(member.news)))
            return lambda _: news
        if kind < 10:
            call = bc.call(number, self._payload(), code=pick(100), flags=TF_ONE_WAY * pick(2))
            return lambda _: call
        if kind < 13:
            reply = bc.reply(self._payload(), code=pick(100))
            return lambda _: reply
        plain = [
            bc.enter_looper(),
            bc.acquire(number),
            bc.increfs(number),
            bc.release(number),
            bc.decrefs(number),
            bc.request_death(number, pick(3)),
            bc.clear_death(number, pick(3)),
        ][pick(7)]
        return lambda _: plain

    def _payload(self) -> bc.Payload:
        parts = [b"x" * (1, 8, 900)[self.pick(3)]]
        parts[0] += bytes(-len(parts[0]) % 4)
        for _ in range(self.pick(3)):
            ptr, handle = POINTERS[self.pick(2)], HANDLES[self.pick(len(HANDLES))]
            cookie = 0 if self.pick(20) == 0 else ptr
            makers = [
                bc.binder(ptr, cookie),
                bc.weak_binder(ptr, cookie),
                bc.handle(handle, cookie=9, flags=self.pick(256)),
                bc.weak_handle(handle),
            ]
            parts.append(makers[self.pick(len(makers))])
        return bc.payload(*parts)
