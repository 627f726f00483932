# SPDX-License-Identifier: Apache-2.0
"""Many clients of one engine doing whatever clients may do, in an order that is not theirs.

Every decision comes from one function, ``pick(n)``, which returns a number below ``n``: a seeded
generator makes a simulation of it, a property test makes it shrink.  After each step the engine's
invariants are checked, and each letter that arrives is compared with what was sent: it must be the
right one, at the right address, and come once.

A *member* is an open file with its threads.  Some members are *rogue*: they also drop references
that are not theirs, so what they receive is not looked at closely.
"""

from __future__ import annotations

from errno import EAGAIN, EINTR, EINVAL
from typing import TYPE_CHECKING, Any, NamedTuple

from binderd.engine.node import Node
from binderwire.binder_abi import (
    BC_REPLY,
    BC_REPLY_SG,
    BINDER_BUFFER_FLAG_HAS_PARENT,
    BINDER_ENABLE_ONEWAY_SPAM_DETECTION,
    BINDER_SET_CONTEXT_MGR_EXT,
    BINDER_TYPE_PTR,
    BR_ACQUIRE,
    BR_DEAD_BINDER,
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_FROZEN_BINDER,
    BR_FROZEN_REPLY,
    BR_INCREFS,
    BR_ONEWAY_SPAM_SUSPECT,
    BR_REPLY,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    BR_TRANSACTION_PENDING_FROZEN,
    COMMANDS,
    FLAT_BINDER_FLAG_ACCEPTS_FDS,
    TF_ACCEPT_FDS,
    TF_CLEAR_BUF,
    TF_ONE_WAY,
    TF_UPDATE_TXN,
    flat_binder_object,
)
from support import bc
from support.crowd_members import Hand, Member, RecordedWorld

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.engine.process import Process
    from support.playbook import Outcome
    from support.transcript import Received

MEMBERS_MAX = 6
HANDS_MAX = 4
SIZES = (512, 1024, 8192, 65536)  # bytes of receive area: small, so that they fill up
READ_SIZES = (0, 79, 80, 140, 256, 256, 256, 4096)
POINTERS = (0x1000, 0x2000, 0x3000)
ERRORS = (BR_DEAD_REPLY, BR_FAILED_REPLY, BR_FROZEN_REPLY)
SENT = (BR_TRANSACTION_COMPLETE, BR_TRANSACTION_PENDING_FROZEN, BR_ONEWAY_SPAM_SUSPECT)
REPLIES = (BC_REPLY, BC_REPLY_SG)
FLAGS = (0, 0, 0, TF_CLEAR_BUF, TF_ACCEPT_FDS, TF_UPDATE_TXN)
WITH_PIECES = 3  # one payload of so many has pieces of memory
PIECE = b"a piece of memory with a letter in it..."  # whose first bytes are the letter's number


# A node, or (owner, ptr) of one that may not exist yet; None: not known when it was written.
Meaning = Node | tuple["Process", int] | None


class Letter(NamedTuple):
    """A payload that was sent; its number is its first eight bytes."""

    code: int
    target: Meaning  # of the called node; None also for a reply
    objects: list[Meaning]  # of each flat object in it
    pieces: int  # of memory beside it, each but the first with a pointer to it in the first


class Crowd:
    """All members, and one method for each thing that can happen.

    Args:
        pick: makes the decisions; may be replaced between steps.
    """

    def __init__(self, pick: Callable[[int], int]) -> None:
        self.pick = pick
        self.world = RecordedWorld()
        self.members: list[Member] = []
        self.letters: dict[int, Letter] = {}
        self.arrived: set[int] = set()
        kinds = ("calls", "replies", "errors", "deaths", "pieces", "freezes", "reports", "pending")
        self.arrivals = dict.fromkeys(kinds, 0)

    # What can happen

    def join(self) -> None:
        """A client opens the device; the first ones become context manager."""
        if len(self.members) >= MEMBERS_MAX:
            return
        size = None if self.pick(20) == 0 else SIZES[self.pick(len(SIZES))]
        proc = self.world.open(size=size, nonblocking=self.pick(8) == 0)
        member = Member(proc, mapped=size is not None, rogue=self.pick(4) == 0)
        self.members.append(member)
        self._new_hand(member)

    def hire(self) -> None:
        """A member starts a thread."""
        member = self._member()
        if member is not None and len(member.hands) < HANDS_MAX:
            self._new_hand(member)

    def act(self) -> None:
        """A thread sends some commands, and reads."""
        hand = self._idle_hand()
        if hand is None:
            return
        commands = [self._command(hand) for _ in range(1 + self.pick(2))]
        hand.commands = commands
        size = READ_SIZES[self.pick(len(READ_SIZES))]
        hand.pending = hand.thread.start(*commands, read=size)

    def call(self) -> None:
        """A thread makes a plain call and waits for the reply."""
        hand = self._idle_hand()
        if hand is not None:
            hand.commands = [self._call(hand, 0)] if hand.may_call or self.pick(16) == 0 else []
            hand.pending = hand.thread.start(*hand.commands)

    def serve(self) -> None:
        """A thread does what it should: frees, acknowledges, replies if it must, reads."""
        hand = self._idle_hand()
        if hand is None:
            return
        member = hand.member
        commands = [bc.enter_looper(), *map(bc.free, member.buffers), *member.news]
        member.buffers, member.news = [], []
        if hand.serving:
            commands.append(self._reply(hand))
        hand.commands = commands
        hand.pending = hand.thread.start(*commands)

    def keep(self) -> None:
        """A thread acquires a handle that it knows."""
        hand = self._idle_hand()
        strong = self._strong_handles(hand.member) if hand is not None else []
        if hand is not None and strong:
            number = strong[self.pick(len(strong))]
            if hand.thread.write_read(bc.acquire(number), read=0).write_consumed:
                hand.member.owned.append(number)

    def watch(self) -> None:
        """A thread asks to be told of a death."""
        hand = self._idle_hand()
        if hand is not None:
            known = sorted(hand.member.process.handles.refs) or [0]
            number = known[self.pick(len(known))]
            hand.commands = [bc.increfs(number), bc.request_death(number, self.pick(3))]
            hand.pending = hand.thread.start(*hand.commands, read=0)

    def follow(self) -> None:
        """A thread asks to be told of freezes."""
        hand = self._idle_hand()
        if hand is not None:
            known = sorted(hand.member.process.handles.refs) or [0]
            number = known[self.pick(len(known))]
            hand.commands = [bc.request_freeze_notice(number, self.pick(3))]
            hand.pending = hand.thread.start(*hand.commands, read=0)

    def freeze(self) -> None:
        """A thread freezes a member, perhaps its own, or thaws it, or looks how it is."""
        hand, member = self._idle_hand(), self._member()
        if hand is None or member is None:
            return
        frozen = [other for other in self.members if other.process.is_frozen]
        if frozen and self.pick(8) < 3:
            hand.thread.thaw(frozen[self.pick(len(frozen))].proc.pid)
        elif self.pick(3):
            timeout_ms = self.pick(2) * self.pick(100)
            hand.freezing = hand.thread.start_freeze(member.proc.pid, timeout_ms=timeout_ms)
        else:
            assert hand.thread.frozen_info(member.proc.pid)[0] < 4

    def nag(self) -> None:
        """A thread sends one-way calls to the frozen, if it knows any."""
        hand = self._idle_hand()
        if hand is None:
            return
        process = hand.member.process
        refs, manager = process.handles.refs, process.context.manager
        nodes = {handle: refs[handle].node for handle in self._strong_handles(hand.member)}
        if manager is not None:
            nodes[0] = manager
        cold = [h for h, node in nodes.items() if node.process and node.process.is_frozen]
        if cold:
            flags = TF_ONE_WAY | TF_UPDATE_TXN
            hand.commands = [self._call_to(hand, handle, flags) for handle in cold[:2]]
            hand.pending = hand.thread.start(*hand.commands)

    def wait(self) -> None:
        """Time passes until a freeze has waited long enough."""
        if self.world.timers:
            self.world.let_time_pass()

    def wonder(self) -> None:
        """A thread asks for what it can be told, or wants to know of spam."""
        hand = self._idle_hand()
        if hand is not None:
            hand.thread.extended_error()
            hand.thread.ioctl(BINDER_ENABLE_ONEWAY_SPAM_DETECTION, bytes((self.pick(2), 0, 0, 0)))

    def poll(self) -> None:
        """A thread polls until there is something."""
        hand = self._idle_hand()
        if hand is not None:
            hand.polling = hand.thread.start_poll()

    def interrupt(self) -> None:
        """A signal reaches a thread, blocked or not."""
        hands = [hand for member in self.members for hand in member.hands]
        busy = [hand for hand in hands if hand.pending or hand.freezing]
        if busy:
            busy[self.pick(len(busy))].thread.signal()

    def leave(self) -> None:
        """A thread ends, with or without BINDER_THREAD_EXIT."""
        hand = self._idle_hand()
        if hand is None:
            return
        if self.pick(2):
            hand.thread.exit()
        else:
            hand.thread.end()
        hand.member.hands.remove(hand)

    def fork(self) -> None:
        """A member forks, or a child of it closes its copy of the file."""
        member = self._member()
        if member is None:
            return
        if member.children:
            member.children.pop().kill()
        else:
            member.children.append(member.proc.fork())

    def unmap(self) -> None:
        """A member unmaps its receive area."""
        member = self._member()
        if member is not None and member.mapped and self.pick(8) == 0:
            member.mapped = False
            member.proc.munmap()

    def die(self) -> None:
        """A member is killed."""
        if len(self.members) > 1:
            self._kill(self.members.pop(self.pick(len(self.members))))

    EVENTS = (join, hire, hire, act, act, call, call, call, keep, watch, serve, serve, serve)
    UNUSUAL = (poll, interrupt, interrupt, leave, fork, freeze, freeze, nag, follow, wait, wonder)
    RARE = (unmap, die)

    def step(self) -> None:
        """Let something happen, then see to all that came of it."""
        kind = self.pick(32)
        events = self.RARE if kind == 0 else self.UNUSUAL if kind < 9 else self.EVENTS
        events[self.pick(len(events))](self)
        self.settle()

    def settle(self) -> None:
        """Take every request that has ended, and check the engine."""
        for member in self.members:
            for hand in member.hands:
                if hand.pending is not None and not hand.pending.parked:
                    pending, hand.pending = hand.pending, None
                    self._ended(hand, pending.result())
                if hand.polling is not None and not hand.polling.parked:
                    hand.polling = None
                if hand.freezing is not None and not hand.freezing.parked:
                    errno = hand.freezing.wait()[0]
                    assert errno in (0, EAGAIN, EINTR, EINVAL)
                    self.arrivals["freezes"] += errno == 0
                    hand.freezing = None
        self.world.check()

    def end(self) -> None:
        """Kill everybody; nothing may be left."""
        while self.members:
            self._kill(self.members.pop(self.pick(len(self.members))))
        self.world.close()
        self.world.assert_empty()

    # Who

    def _member(self) -> Member | None:
        return self.members[self.pick(len(self.members))] if self.members else None

    def _idle_hand(self) -> Hand | None:
        """Return some thread that is in no request; if there is none, wake one up instead."""
        hands = [hand for member in self.members for hand in member.hands if not hand.busy]
        if hands:
            return hands[self.pick(len(hands))]
        self.interrupt()
        return None

    def _new_hand(self, member: Member) -> Hand:
        """Start a thread; the first thing that it does is to try to become context manager."""
        hand = Hand(member, member.proc.thread())
        member.hands.append(hand)
        node = flat_binder_object.build(flags=FLAT_BINDER_FLAG_ACCEPTS_FDS)
        hand.thread.ioctl(BINDER_SET_CONTEXT_MGR_EXT, node)
        return hand

    def _kill(self, member: Member) -> None:
        member.proc.kill()
        for child in member.children:
            child.kill()

    # What to send

    def _command(self, hand: Hand) -> bc.Command:
        member, pick = hand.member, self.pick
        makers: list[Callable[[], bc.Command]] = [
            lambda: self._call(hand, 0 if hand.may_call and pick(2) else TF_ONE_WAY),
            lambda: self._call(hand, TF_ONE_WAY),
            lambda: self._call(hand, TF_ONE_WAY),
            lambda: self._reply(hand) if hand.serving or pick(8) == 0 else bc.enter_looper(),
            lambda: bc.free(self._take(member.buffers, 0x1234)),
            lambda: bc.increfs(self._any_handle(member)),
            lambda: self._release(member),
            lambda: member.news.pop(pick(len(member.news))) if member.news else bc.exit_looper(),
            lambda: bc.request_death(self._any_handle(member), pick(3)),
            lambda: bc.clear_death(self._any_handle(member), pick(3)),
            lambda: bc.dead_binder_done(self._take(member.dead, 99)),
            lambda: bc.clear_freeze_notice(self._any_handle(member), pick(3)),
            lambda: bc.freeze_notice_done(self._take(member.frozen, 99)),
            lambda: (bc.enter_looper(), bc.register_looper())[pick(2)],
        ]
        return makers[pick(len(makers))]()

    def _strong_handles(self, member: Member) -> list[int]:
        refs = member.process.handles.refs
        return [handle for handle in sorted(refs) if refs[handle].strong]

    def _take(self, values: list[int], otherwise: int) -> int:
        return values.pop(self.pick(len(values))) if values else otherwise

    def _any_handle(self, member: Member) -> int:
        known = sorted(member.process.handles.refs)
        if known and self.pick(8):
            return known[self.pick(len(known))]
        return member.handles[self.pick(len(member.handles))]

    def _release(self, member: Member) -> bytes:
        """Release what was acquired; a rogue member releases anything."""
        if member.rogue:
            handle = self._any_handle(member)
            return (bc.release(handle), bc.decrefs(handle))[self.pick(2)]
        return bc.release(self._take(member.owned, 999))

    def _letter(self, hand: Hand, target: Meaning) -> tuple[bc.Payload, int, int]:
        """Write a letter; return its payload, its code and the room that its pieces need."""
        number, code = len(self.letters), self.pick(1000)
        parts, meanings = [number.to_bytes(8, "little")], []
        for _ in range(self.pick(4)):
            octets, meaning = self._object(hand.member)
            parts.append(octets)
            if any(octets):
                meanings.append(meaning)
        pieces, room = [], 0
        if self.pick(WITH_PIECES) == 0:
            pieces = self._pieces(hand.member, number, index=len(meanings))
            room = len(pieces) * len(PIECE)
        parts += pieces
        if self.pick(32) == 0:
            parts.append(bc.fd(self._file(hand.member)))
        parts.append(bytes((0, 0, 4, 40, 400)[self.pick(5)]))
        if self.world.lets_pause:  # a handle may mean something else when its command is taken
            target, meanings = None, [None] * len(meanings)
        self.letters[number] = Letter(code, target, meanings, len(pieces))
        return bc.payload(*parts), code, room

    def _pieces(self, member: Member, number: int, index: int) -> list[bytes]:
        """Return pointer objects of which the first, the ``index``th object, is the root."""
        address = member.proc.put(number.to_bytes(8, "little") + PIECE[8:])
        root = bc.ptr(address, len(PIECE))
        offsets = [8, 16, 24][: self.pick(4)]
        if self.pick(16) == 0:
            offsets *= 2  # going back is refused
        children = [bc.ptr(address, len(PIECE), parent=index, parent_offset=at) for at in offsets]
        return [root, *children]

    def _file(self, member: Member) -> int:
        """Return a descriptor, mostly of an open file."""
        fd = member.proc.new_file()
        if self.pick(4) == 0:
            member.proc.close_file(fd)
        return fd

    def _object(self, member: Member) -> tuple[bytes, Meaning]:
        kind, process = self.pick(4), member.process
        if kind < 2:
            ptr = POINTERS[self.pick(len(POINTERS))]
            flags = FLAT_BINDER_FLAG_ACCEPTS_FDS if ptr == POINTERS[0] else 0
            return (bc.binder, bc.weak_binder)[kind](ptr, ptr, flags), (process, ptr)
        handle = self._any_handle(member)
        ref = process.handles.refs.get(handle)
        if ref is None and self.pick(4):
            return bytes(24), None  # not an object: its offset is left out
        if ref is not None and not ref.strong:
            kind = 3
        octets = (bc.handle, bc.weak_handle)[kind - 2](handle)
        return octets, None if ref is None else ref.node

    def _call(self, hand: Hand, flags: int) -> bc.Command:
        strong = self._strong_handles(hand.member)
        if strong and self.pick(16):
            handle = strong[self.pick(len(strong))]
        else:
            handle = self._any_handle(hand.member)
        return self._call_to(hand, handle, flags)

    def _call_to(self, hand: Hand, handle: int, flags: int) -> bc.Command:
        process = hand.member.process
        ref = process.handles.refs.get(handle)
        node = None if ref is None else ref.node
        target = process.context.manager if handle == 0 else node
        content, code, room = self._letter(hand, target)
        flags |= FLAGS[self.pick(len(FLAGS))]
        if room:
            return bc.call_sg(handle, content, buffers_size=room, code=code, flags=flags)
        return bc.call(handle, content, code=code, flags=flags)

    def _reply(self, hand: Hand) -> bc.Command:
        content, code, room = self._letter(hand, None)
        flags = FLAGS[self.pick(len(FLAGS))]
        if room:
            return bc.reply_sg(content, buffers_size=room, code=code, flags=flags)
        return bc.reply(content, code=code, flags=flags)

    # What comes back

    def _ended(self, hand: Hand, outcome: Outcome) -> None:
        self._count_taken(hand, outcome.write_consumed)
        for item in outcome.items:
            self._received(hand, item)
        assert hand.answers <= hand.acks_due + hand.calls, "answered more than was asked"

    def _count_taken(self, hand: Hand, consumed: int) -> None:
        position = 0
        for command in hand.commands:
            word = command.word if isinstance(command, bc.Parcel) else 0
            record = COMMANDS[word].payload if word else None
            position += 4 + record.size if record else len(command)  # type: ignore[arg-type]
            if position > consumed:
                break
            if isinstance(command, bc.Parcel):
                one_way = command.fields.get("flags", 0) & TF_ONE_WAY
                hand.acks_due += 1
                hand.calls += word not in REPLIES and not one_way
                hand.serving -= word in REPLIES and hand.serving > 0
        hand.commands = []

    def _received(self, hand: Hand, item: Received) -> None:
        member = hand.member
        hand.answers += item.word in (BR_REPLY, *SENT, *ERRORS)
        self.arrivals["pending"] += item.word == BR_TRANSACTION_PENDING_FROZEN
        self.arrivals["errors"] += item.word in ERRORS
        if item.word in (BR_INCREFS, BR_ACQUIRE):
            done = bc.increfs_done if item.word == BR_INCREFS else bc.acquire_done
            assert item.ptr == item.cookie or item.ptr == 0
            member.news.append(done(item.ptr, item.cookie))
        elif item.word == BR_DEAD_BINDER:
            member.dead.append(item.value)
            self.arrivals["deaths"] += 1
        elif item.word == BR_FROZEN_BINDER:
            member.frozen.append(item.cookie)
            self.arrivals["reports"] += 1
        elif item.word in (BR_TRANSACTION, BR_REPLY):
            member.buffers.append(item.buffer)
            if item.word == BR_TRANSACTION and not item.flags & TF_ONE_WAY:
                hand.serving += 1
            if member.mapped:
                self._open_letter(member, item)

    def _open_letter(self, member: Member, item: Received) -> None:
        number = int.from_bytes(item.data[:8], "little")
        letter = self.letters[number]
        assert number not in self.arrived, "a letter came twice"
        self.arrived.add(number)
        assert item.code == letter.code
        if item.word == BR_TRANSACTION:
            self.arrivals["calls"] += 1
            assert letter.target in (None, member.process.nodes[item.target])
        else:
            self.arrivals["replies"] += 1
            assert letter.target is None
        pieces = [record for record in item.records if record.type == BINDER_TYPE_PTR]
        assert len(pieces) == letter.pieces
        self._check_pieces(member, number, pieces)
        received = item.objects
        assert len(received) == len(letter.objects)
        for (kind, value, _, _), meaning in zip(received, letter.objects, strict=True):
            if "handle" in kind and value not in member.handles:
                member.handles.append(value)
            if not member.rogue and meaning is not None:
                self._check_object(member, kind, value, meaning)

    def _check_pieces(self, member: Member, number: int, pieces: list[Any]) -> None:
        """Assert that the pieces hold what they should, and the root points to the others."""
        self.arrivals["pieces"] += len(pieces)
        fixed = {piece.parent_offset: piece.buffer for piece in pieces[1:]}
        for piece in pieces:
            expected = bytearray(number.to_bytes(8, "little") + PIECE[8:])
            if not piece.flags & BINDER_BUFFER_FLAG_HAS_PARENT:
                for offset, address in fixed.items():
                    expected[offset : offset + 8] = address.to_bytes(8, "little")
            assert member.proc.peek(piece.buffer, piece.length) == expected

    def _check_object(self, member: Member, kind: str, value: int, meaning: Meaning) -> None:
        """Assert that an object means to the receiver what it meant to the sender."""
        table = member.process.handles.refs
        node = table[value].node if "handle" in kind else member.process.nodes[value]
        if isinstance(meaning, Node):
            assert node is meaning
        elif meaning is not None:
            owner, ptr = meaning
            assert node.ptr == ptr
            assert node.process is owner or (node.process is None and owner.is_dead)
