# SPDX-License-Identifier: Apache-2.0
"""In which order threads begin anew that open a device at the same time: not all at once.

The kernel has one entry for a name, and each open brings another inode for it (``pages.py``). Of N
threads that look the name up at once, one gets the answer and the others, which have waited for it,
ask whether it is theirs, too. It is not, so all but one ask again: N * N look-ups for N opens. So
only one thread of each user, and of few users, is sent to look the name up once more; the others
wait for the answer to their OPEN. There they hold nothing that anybody else could wait for: no lock
of the kernel's, no entry of the name.

A thread that is sent is back soon, unless it is killed or its path leads through a file system that
does not answer. So it is waited for HOLD_MS only. But on a busy machine all are late, and all that
are let in nevertheless make each other later. So the more are late, the longer the next ones are
waited for. Users take turns, and one alone never makes others wait. A signal ends a wait. What does
not wait, as too many do, or is let in too early costs look-ups, nothing else.

Nothing here may know what a request or an inode is. Times are nanoseconds of a clock that is handed
in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.fuse.directory import Device

HOLD_MS: Final = 10  # so long is a thread waited for, twice as long for each that is late
HOLD_NS: Final = HOLD_MS * 1_000_000
DOUBLED_MAX: Final = 4  # times
LATE_NS: Final = 1_000_000_000  # so long is a thread expected at all
USERS_MAX: Final = 2  # that have a thread inside
WAITING_MAX: Final = 4096  # opens
_DOORS_KEPT: Final = 64


class Opening:
    """An open whose thread is to begin anew.

    Args:
        unique: the request's number.
        device: what it is to open.
        nodeid: the inode that it was to open.
        tid: the thread.
        payer: the user whose turn it takes.
    """

    __slots__ = ("device", "nodeid", "payer", "tid", "unique")

    def __init__(self, unique: int, device: Device, nodeid: int, tid: int, payer: int) -> None:
        self.unique = unique
        self.device = device
        self.nodeid = nodeid
        self.tid = tid
        self.payer = payer


class _Door:
    """Who begins anew with a device, and who waits for that."""

    __slots__ = ("inside", "late", "queues")

    def __init__(self) -> None:
        # By user: a thread that has begun anew, and when.
        self.inside: dict[int, tuple[int, int]] = {}
        self.late: dict[int, int] = {}  # threads that others wait for no more: when they began
        # By user, then by request; the first user who has no thread inside has the next turn.
        self.queues: dict[int, dict[int, Opening]] = {}

    def look(self, now: int) -> None:
        """See who is late."""
        for payer, (tid, since) in list(self.inside.items()):
            if now - since >= HOLD_NS << min(len(self.late), DOUBLED_MAX):
                del self.inside[payer]
                self.late[tid] = since
        for tid, since in list(self.late.items()):
            if now - since >= LATE_NS:
                del self.late[tid]

    def is_empty(self) -> bool:
        """Whether nobody is expected and nobody waits."""
        return not (self.inside or self.late or self.queues)

    def has_place(self, payer: int) -> bool:
        """Whether a thread of that user may begin anew now."""
        return payer not in self.inside and len(self.inside) < USERS_MAX

    def remove(self, opening: Opening) -> None:
        """An open waits no more; its user has had a turn."""
        queue = self.queues.pop(opening.payer)
        del queue[opening.unique]
        if queue:
            self.queues[opening.payer] = queue

    def next(self) -> Opening | None:
        """Return the open that may begin anew now."""
        for payer, queue in self.queues.items():
            if self.has_place(payer):
                return next(iter(queue.values()))
            if len(self.inside) >= USERS_MAX:
                break
        return None


class Entrance:
    """The opens of all devices that begin anew.

    Args:
        clock: returns nanoseconds since any fixed moment.
        start_timer: called with milliseconds; ``expire`` is called later. One runs at a time.
    """

    __slots__ = ("_clock", "_doors", "_is_timed", "_let_in", "_start_timer", "_waiting")

    def __init__(self, clock: Callable[[], int], start_timer: Callable[[int], None]) -> None:
        self._clock = clock
        self._start_timer = start_timer
        self._let_in: Callable[[Opening], None] = _lead_nowhere
        self._doors: dict[Device, _Door] = {}
        self._waiting: dict[int, Opening] = {}  # by request
        self._is_timed = False

    def __len__(self) -> int:
        """How many opens wait?"""
        return len(self._waiting)

    def leads_to(self, let_in: Callable[[Opening], None]) -> None:
        """Have ``let_in`` called when a thread may begin anew."""
        self._let_in = let_in

    def enter(self, opening: Opening) -> None:
        """Let a thread in, now or when it is its turn."""
        if len(self._waiting) >= WAITING_MAX:
            self._let_in(opening)
            return
        now = self._clock()
        door = self._doors.get(opening.device)
        if door is None:
            if len(self._doors) >= _DOORS_KEPT:
                self._sweep(now)
            door = self._doors[opening.device] = _Door()
        door.queues.setdefault(opening.payer, {})[opening.unique] = opening
        self._waiting[opening.unique] = opening
        door.look(now)
        self._fill(opening.device, door, now)

    def leave(self, device: Device, tid: int) -> None:
        """A thread that opens a device is back, if it has been let in."""
        door = self._doors.get(device)
        if door is None:
            return
        door.late.pop(tid, 0)
        for payer, (thread, _) in door.inside.items():
            if thread == tid:
                del door.inside[payer]
                break
        self._fill(device, door, self._clock())

    def interrupt(self, unique: int) -> bool:
        """A signal has arrived for a thread: if it waits, let it in and return True."""
        opening = self._waiting.pop(unique, None)
        if opening is None:
            return False
        self._doors[opening.device].remove(opening)
        self._let_in(opening)
        return True

    def expire(self) -> None:
        """The timer has run out."""
        self._is_timed = False
        now = self._clock()
        for device, door in list(self._doors.items()):
            if door.queues:
                door.look(now)
                self._fill(device, door, now)

    def _fill(self, device: Device, door: _Door, now: int) -> None:
        """Let in whoever may begin anew now; who may not waits."""
        while (opening := door.next()) is not None:
            door.remove(opening)
            del self._waiting[opening.unique]
            door.inside[opening.payer] = (opening.tid, now)
            self._let_in(opening)
        if door.is_empty():
            del self._doors[device]
        elif door.queues and not self._is_timed:
            self._is_timed = True
            self._start_timer(HOLD_MS)

    def _sweep(self, now: int) -> None:
        """Forget the doors of devices that nobody opens."""
        for device, door in list(self._doors.items()):
            door.look(now)
            if door.is_empty():
                del self._doors[device]


def _lead_nowhere(opening: Opening) -> None:
    raise AssertionError("nobody has said where this leads to")
