# SPDX-License-Identifier: Apache-2.0
"""Lanes: BINDER_WRITE_READs that come and go through memory shared with a thread.

Theory of operation. A thread makes a lane with an ioctl, by which the kernel says who it is, and
asks through its slot from then on. While the loop looks for requests anyway (``channel/spin.py``)
it looks at the slots as well. What is found there becomes an ioctl of the engine as any other: this
is one more connection, whose answers go into slots.

The thread sleeps in the kernel, never here: an ioctl (BINDERD_ENTER) waits until what was asked is
answered. So a signal, or its death, reaches a lane as it reaches any request. What is asked by a
thread that has not entered is bounded in three ways:

- It reaches no further than the lane's memory. What takes the thread's own memory or descriptors
  waits until it has entered, as whose they are is certain then (``LaneMemory``).
- It is asked in the name of the user that the thread has, as long as that is still the same.
- It does not wait for long: when nobody looks any more it is taken back, and the thread enters.

Nothing here may know memory mappings, descriptors or trio.
"""

from __future__ import annotations

from errno import EINTR, EINVAL, ENOMEM, ENOSPC, EOPNOTSUPP
from typing import TYPE_CHECKING, Final

from binderd.device.replies import Replies
from binderd.fuse.turns import Job
from binderwire.binder_abi import binder_write_read
from binderwire.extension_abi import (
    BINDERD_AGAIN,
    BINDERD_ENTER,
    BINDERD_LANE,
    BINDERD_LANE_QUIET,
    BINDERD_LANE_SIZE_MAX,
    BINDERD_LEAVE,
    binderd_lane,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.device.open_file import OpenFile
    from binderd.device.open_files import OpenFiles
    from binderd.device.opener import LaneMemory
    from binderd.engine.ports import Charged
    from binderd.fuse.turns import Turns

LANE_IOCTLS: Final = frozenset({BINDERD_LANE, BINDERD_ENTER, BINDERD_LEAVE})

_WATCHED_MAX: Final = 64  # lanes that are looked at, each some 0.1 us
_WATCHED_OF_USER: Final = 16
_SWEEP_NS: Final = 500_000
_AGE_MAX: Final = 2  # sweeps without news
_PAGE: Final = 4096  # bytes; of the one architecture
_unpack_request = binder_write_read.unpack_from


class Lane(Job):
    """One thread's.

    Args:
        lanes: that serve it.
        file: the open file.
        tid: the thread, in the daemon's pid namespace.
        uid: its user.
        memory: its memory, that of the slot included.
        payment: ends with it.
    """

    __slots__ = (
        "account",
        "age",
        "file",
        "is_idle",
        "is_put_off",
        "is_queued",
        "is_signalled",
        "is_watched",
        "lanes",
        "memory",
        "payment",
        "process",
        "slot",
        "taken",
        "ticket",
        "tid",
        "uid",
        "unique",
    )

    def __init__(
        self,
        lanes: Lanes,
        file: OpenFile,
        tid: int,
        uid: int,
        memory: LaneMemory,
        payment: Charged,
    ) -> None:
        super().__init__(0)
        self.lanes = lanes
        self.file = file
        self.tid = tid
        self.uid = uid
        self.memory = memory
        self.slot = memory.slot
        self.payment = payment
        self.account, self.process = lanes.turns.files[file.handle]
        self.taken = self.slot.asked()  # the number of the last request that was seen
        self.ticket = 0  # the engine's, of the request that is open
        self.unique = 0  # the request of the kernel in which the thread waits for its answer
        self.age = 0  # sweeps since there was news
        self.is_watched = False  # is it looked at?
        self.is_idle = True  # is everything that was seen answered? Else it is one of these:
        self.is_queued = False  # it waits for its turn
        self.is_put_off = False  # it waits for the thread to enter, before anything is done
        self.is_signalled = False  # has a signal come since?

    def run(self) -> None:
        self.lanes.take_turn(self)


class Lanes(Replies):
    """All lanes of all open files.

    Args:
        files: the open files.
        turns: of all users.
        beat: called when a request begins.
        report_bug: called with what was done and the exception when that failed.
        is_offered: can threads have lanes?
    """

    __slots__ = (
        "_beat",
        "_entered",
        "_files",
        "_is_offered",
        "_last",
        "_open",
        "_report_bug",
        "_swept_at",
        "is_stopping",
        "turns",
        "watched",
    )

    def __init__(
        self,
        files: OpenFiles,
        turns: Turns,
        beat: Callable[[], None],
        report_bug: Callable[[str, Exception], None],
        *,
        is_offered: bool,
    ) -> None:
        super().__init__()
        self._files = files
        self.turns: Turns = turns
        self._beat = beat
        self._report_bug = report_bug
        self._is_offered = is_offered
        self.watched: list[Lane] = []
        self._open: dict[int, Lane] = {}  # by the engine's ticket
        self._entered: dict[int, Lane] = {}  # by the kernel's request
        self._last = 0
        # Are threads answered that were stopped? They issue the same call of the kernel once more.
        self.is_stopping = False
        self._swept_at = 0
        files.offer_lanes(self)

    # Requests of the kernel

    def ioctl(
        self, file: OpenFile, tid: int, uid: int, request: int, argument: bytes, unique: int
    ) -> None:
        """Do one of LANE_IOCTLS; arguments as ``OpenFiles.ioctl``."""
        if request == BINDERD_LANE:
            file.replies.answer(unique, -self._make(file, tid, uid, argument), b"")
        else:
            self._enter(file, tid, uid, unique, leaves=request == BINDERD_LEAVE)

    def _make(self, file: OpenFile, tid: int, uid: int, argument: bytes) -> int:
        """BINDERD_LANE: make a lane, in the place of the one that the thread had."""
        if not self._is_offered:
            return EOPNOTSUPP
        if len(argument) < binderd_lane.size:
            return EINVAL
        fd, flags, size, address = binderd_lane.unpack_from(argument)
        is_whole = 0 < size <= BINDERD_LANE_SIZE_MAX and not size % _PAGE
        if flags & ~BINDERD_LANE_QUIET or not is_whole:
            return EINVAL
        self.settle(file, tid)
        self.forget(file, tid)
        payment = self._files.charge_lane(file)
        if payment is None:
            return ENOSPC
        inner = self._files.memory_of(file, tid)
        memory: LaneMemory | int
        if isinstance(inner, int):
            memory = inner
        else:
            memory = file.client.make_lane(tid, uid, fd, size, address, inner)
        if isinstance(memory, int):
            payment.end()
            return memory
        self._files.reach_through(file, tid, memory, is_quiet=bool(flags & BINDERD_LANE_QUIET))
        lane = file.lanes[tid] = Lane(self, file, tid, uid, memory, payment)
        lane.slot.answer(lane.taken, 0, b"")
        self._watch(lane)
        return 0

    def _enter(self, file: OpenFile, tid: int, uid: int, unique: int, *, leaves: bool) -> None:
        """BINDERD_ENTER and BINDERD_LEAVE: the thread waits until it has its answer."""
        lane = file.lanes.get(tid)
        if lane is None or lane.slot.is_over or lane.unique:
            self.forget(file, tid)
            file.replies.answer(unique, -EINVAL, b"")
            return
        if lane.is_idle:
            number = lane.slot.asked()
            if number == lane.taken or leaves:
                if number != lane.taken:
                    lane.taken = number
                    lane.slot.answer(number, -EINTR, b"")
                self._watch(lane)
                file.replies.answer(unique, 0, b"")
                return
            lane.taken = number
            lane.is_idle, lane.is_put_off = False, True
        lane.uid = uid
        lane.unique = unique
        self._entered[unique] = lane
        self._unwatch(lane)
        if lane.is_put_off:
            lane.is_put_off = False
            self._begin(lane)
        elif lane.ticket:
            lane.slot.is_entered = True
            waits, lane.slot.waits = lane.slot.waits, 0
            if waits:
                self._files.fetched(waits)
        if leaves:
            self.interrupt(unique)

    def interrupt(self, unique: int) -> bool:
        """A signal came for a thread that has entered; return whether that request is known."""
        lane = self._entered.get(unique)
        if lane is None:
            return False
        lane.is_signalled = True
        if lane.ticket:
            self._files.interrupt_lane(lane.ticket)
        return True

    # What is found in slots

    def look(self, now: int) -> bool:
        """Look at the slots, and do what is asked there; return whether there was anything.

        Args:
            now: nanoseconds since any fixed moment.
        """
        watched = self.watched
        found, index = False, 0
        while index < len(watched):
            lane = watched[index]
            index += 1
            if lane.is_idle and lane.slot.asked() != lane.taken:
                if not found:
                    found = True
                    self.turns.begin()
                self._take(lane)
        if now - self._swept_at > _SWEEP_NS:
            self._swept_at = now
            found = self._sweep() or found
        if found:
            self._files.write_replies()
        return found

    def rest(self) -> None:
        """Nobody looks from now on: whoever wants something has to enter."""
        if self.watched:
            lanes, self.watched[:] = list(self.watched), []
            for lane in lanes:
                lane.is_watched = False
                lane.slot.watch(is_watched=False)
            for lane in lanes:
                self._withdraw(lane)
            self._files.write_replies()

    def _sweep(self) -> bool:
        """Look no more at what has no news; return whether anything has ended by that."""
        for lane in self.watched:
            lane.age += 1
        found = False
        for lane in [lane for lane in self.watched if lane.age > _AGE_MAX]:
            self._unwatch(lane)
            lane.slot.watch(is_watched=False)
            found = self._withdraw(lane) or found
        return found

    def _withdraw(self, lane: Lane) -> bool:
        """Take back what a thread waits for that has not entered; return whether it does."""
        if not lane.ticket or lane.unique:
            return False
        self._files.interrupt_lane(lane.ticket)
        return True

    def _take(self, lane: Lane) -> None:
        lane.taken = lane.slot.asked()
        lane.is_idle = False
        lane.age = 0
        account, turns = lane.account, self.turns
        if account.waits:
            if turns.has_room(account, lane.size):
                lane.is_queued = True
                turns.put(account, lane.process, lane)
            else:
                lane.is_idle = True
                lane.slot.answer(lane.taken, -ENOMEM, b"")
            return
        turns.payer, turns.process = account, lane.process
        self._beat()
        self._begin(lane)
        turns.charge()

    def take_turn(self, lane: Lane) -> None:
        """It is the turn of what was asked in a lane, which may be no more."""
        if lane.is_queued:
            lane.is_queued = False
            self._begin(lane)
            self._files.write_replies()

    def _begin(self, lane: Lane) -> None:
        """Have the engine do what is asked; or put it off until the thread has entered."""
        slot = lane.slot
        request = slot.request()
        slot.is_entered = bool(lane.unique)
        if not slot.is_entered and not self._may_begin(lane, request):
            slot.is_entered = True
            lane.is_put_off = True
            lane.slot.watch(is_watched=False)
            return
        self._last += 1
        ticket = lane.ticket = self.ticket_base | self._last
        self._open[ticket] = lane
        try:
            self._files.lane_ioctl(lane.file, lane.tid, lane.uid, request, ticket)
        except Exception as error:
            self._report_bug("a request of a lane", error)
            self._files.fail_lane(ticket)
        if lane.ticket == ticket:
            if lane.is_signalled:
                self._files.interrupt_lane(ticket)
            elif slot.waits:
                lane.slot.watch(is_watched=False)

    def _may_begin(self, lane: Lane, request: bytes) -> bool:
        """Whether what is asked can be done without the thread in the kernel."""
        write_size, _, _, read_size, _, read_buffer = _unpack_request(request)
        slot = lane.slot
        if slot.is_over or (read_size and not slot.has(read_buffer, read_size)):
            return False
        return not write_size or lane.memory.runs_as(lane.uid)

    # Answers

    def answer(self, ticket: int, result: int, payload: bytes) -> None:
        lane = self._open.pop(ticket, None)
        if lane is None:
            return
        is_stopped = self.is_stopping and result == -EINTR
        if result == -EINTR and not lane.is_signalled:
            result = -BINDERD_AGAIN  # we have taken it back
        lane.ticket = lane.age = 0
        lane.is_signalled = False
        lane.slot.is_entered = True
        lane.slot.waits = 0
        unique = lane.unique
        if unique:
            lane.unique = 0
            del self._entered[unique]
            if is_stopped:
                lane.is_put_off = True
                lane.slot.note(payload)
                lane.file.replies.answer(unique, -EINTR, b"")
                return
            self._watch(lane)
        lane.is_idle = True
        lane.slot.answer(lane.taken, result, payload)
        if unique:
            lane.file.replies.answer(unique, 0, b"")

    def _watch(self, lane: Lane) -> None:
        """Look at a lane from now on, if there are not too many."""
        watched = self.watched
        lane.age = 0
        if lane.is_watched:
            lane.slot.watch(is_watched=True)
            return
        if len(watched) >= _WATCHED_OF_USER:
            same = sum([other.account is lane.account for other in watched])
            if same >= _WATCHED_OF_USER or len(watched) >= _WATCHED_MAX:
                return
        watched.append(lane)
        lane.is_watched = True
        lane.slot.watch(is_watched=True)

    def _unwatch(self, lane: Lane) -> None:
        if lane.is_watched:
            lane.is_watched = False
            self.watched.remove(lane)

    # Ends

    def settle(self, file: OpenFile, tid: int) -> None:
        """A thread has another request open.

        If it waits in its lane, too, it is not the program that has asked there: to that the
        thread has ended.
        """
        lane = file.lanes.get(tid)
        if lane is not None and not lane.is_idle:
            self._files.thread_gone(file.process, tid)

    def forget(self, file: OpenFile, tid: int) -> None:
        """A lane ends; what the engine had of it has ended."""
        lane = file.lanes.pop(tid, None)
        if lane is None:
            return
        self._unwatch(lane)
        lane.slot.watch(is_watched=False)
        lane.is_queued = lane.is_put_off = False
        if lane.unique:
            del self._entered[lane.unique]
            lane.file.replies.answer(lane.unique, -EINVAL, b"")
            lane.unique = 0
        lane.memory.close()
        lane.payment.end()

    def release(self, file: OpenFile) -> None:
        """The open file is closed."""
        for tid in list(file.lanes):
            self.forget(file, tid)
