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
_DEVICES_KEPT: Final = 64


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


class _DeviceQueue:
    """The threads that begin anew with one device, and those that wait for it."""

    __slots__ = ("late", "queues", "retrying")

    def __init__(self) -> None:
        # By user: a thread that has begun anew, and when.
        self.retrying: dict[int, tuple[int, int]] = {}
        self.late: dict[int, int] = {}  # threads that others wait for no more: when they began
        # By user, then by request; the first user who has no thread inside has the next turn.
        self.queues: dict[int, dict[int, Opening]] = {}

    def look(self, now: int) -> None:
        """See who is late."""
        for payer, (tid, since) in list(self.retrying.items()):
            if now - since >= HOLD_NS << min(len(self.late), DOUBLED_MAX):
                del self.retrying[payer]
                self.late[tid] = since
        for tid, since in list(self.late.items()):
            if now - since >= LATE_NS:
                del self.late[tid]

    def is_empty(self) -> bool:
        """Whether nobody is expected and nobody waits."""
        return not (self.retrying or self.late or self.queues)

    def has_place(self, payer: int) -> bool:
        """Whether a thread of that user may begin anew now."""
        return payer not in self.retrying and len(self.retrying) < USERS_MAX

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
            if len(self.retrying) >= USERS_MAX:
                break
        return None


class OpenQueue:
    """The opens of all devices that begin anew.

    Args:
        clock: returns nanoseconds since any fixed moment.
        start_timer: called with milliseconds; ``expire`` is called later. One runs at a time.
    """

    __slots__ = ("_clock", "_devices", "_is_timed", "_retry", "_start_timer", "_waiting")

    def __init__(self, clock: Callable[[], int], start_timer: Callable[[int], None]) -> None:
        self._clock = clock
        self._start_timer = start_timer
        self._retry: Callable[[Opening], None] = _unset
        self._devices: dict[Device, _DeviceQueue] = {}
        self._waiting: dict[int, Opening] = {}  # by request
        self._is_timed = False

    def __len__(self) -> int:
        """How many opens wait?"""
        return len(self._waiting)

    def on_turn(self, retry: Callable[[Opening], None]) -> None:
        """Have ``retry`` called when a thread may begin anew."""
        self._retry = retry

    def add(self, opening: Opening) -> None:
        """Let a thread in, now or when it is its turn."""
        if len(self._waiting) >= WAITING_MAX:
            self._retry(opening)
            return
        now = self._clock()
        opens = self._devices.get(opening.device)
        if opens is None:
            if len(self._devices) >= _DEVICES_KEPT:
                self._sweep(now)
            opens = self._devices[opening.device] = _DeviceQueue()
        opens.queues.setdefault(opening.payer, {})[opening.unique] = opening
        self._waiting[opening.unique] = opening
        opens.look(now)
        self._fill(opening.device, opens, now)

    def done(self, device: Device, tid: int) -> None:
        """A thread that opens a device is back, if it has been let in."""
        opens = self._devices.get(device)
        if opens is None:
            return
        opens.late.pop(tid, 0)
        for payer, (thread, _) in opens.retrying.items():
            if thread == tid:
                del opens.retrying[payer]
                break
        self._fill(device, opens, self._clock())

    def interrupt(self, unique: int) -> bool:
        """A signal has arrived for a thread: if it waits, let it in and return True."""
        opening = self._waiting.pop(unique, None)
        if opening is None:
            return False
        self._devices[opening.device].remove(opening)
        self._retry(opening)
        return True

    def expire(self) -> None:
        """The timer has run out."""
        self._is_timed = False
        now = self._clock()
        for device, opens in list(self._devices.items()):
            if opens.queues:
                opens.look(now)
                self._fill(device, opens, now)

    def _fill(self, device: Device, opens: _DeviceQueue, now: int) -> None:
        """Let in whoever may begin anew now; who may not waits."""
        while (opening := opens.next()) is not None:
            opens.remove(opening)
            del self._waiting[opening.unique]
            opens.retrying[opening.payer] = (opening.tid, now)
            self._retry(opening)
        if opens.is_empty():
            del self._devices[device]
        elif opens.queues and not self._is_timed:
            self._is_timed = True
            self._start_timer(HOLD_MS)

    def _sweep(self, now: int) -> None:
        """Forget the queues of devices that nobody opens."""
        for device, opens in list(self._devices.items()):
            opens.look(now)
            if opens.is_empty():
                del self._devices[device]


def _unset(opening: Opening) -> None:
    raise AssertionError("nobody has said where this leads to")
