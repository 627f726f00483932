# SPDX-License-Identifier: Apache-2.0
"""Freezing: stopping calls to a process before it is stopped itself, and who wants to know.

BINDER_FREEZE may wait for calls that are under way; the wait is data, a ``Freezing``, like a
blocked read is. The engine has no clock: the transport ends the wait with ``Engine.expire``.

``FreezeNotice`` is a registration on a ref, like a death notice, but it reports a state that
changes back and forth: only one report is in flight at a time, and it says the state as it is when
it is read.

Mirrors binder_ioctl_freeze and binder_request_/clear_freeze_notification.
"""

from __future__ import annotations

from collections import deque
from errno import EAGAIN, EINVAL, ENOMEM
from heapq import heapify, heappop
from typing import TYPE_CHECKING

from binderd.engine import views
from binderd.engine.errors import KernelErrno
from binderd.engine.kinds import FREEZES, NOTICES
from binderd.engine.pause import Paused
from binderd.engine.work import (
    LAST,
    MORE,
    Work,
    dequeue,
    drop_delivered,
    enqueue,
    note_delivered,
    pack_word,
)
from binderwire.binder_abi import (
    BR_CLEAR_FREEZE_NOTIFICATION_DONE,
    BR_FROZEN_BINDER,
    binder_frozen_state_info,
    binder_uintptr_t,
)

if TYPE_CHECKING:
    from binderd.engine.process import Process
    from binderd.engine.thread import Thread


class Freezing(Paused):
    """A BINDER_FREEZE under way; a process' open files are frozen or thawed one after the other.

    Args:
        thread: who asks.
        processes: the open files.
        frozen: what they are to be.
        timeout_ms: how long calls may go on in each of them before it is frozen.

    Raises:
        KernelErrno: ENOMEM: the user has too many.
    """

    __slots__ = ("_frozen", "_has_waited", "_ptrs", "processes", "thread", "timeout_ms", "timer")

    def __init__(
        self, thread: Thread, processes: list[Process], *, frozen: bool, timeout_ms: int
    ) -> None:
        share = thread.process.user.of(FREEZES)
        if not share.has_room(1):
            raise KernelErrno(ENOMEM)
        share.add(1)
        super().__init__(0, thread.process.user)
        self.thread = thread
        self.processes = deque(processes)  # still to be done; the first is the one under way
        self.timeout_ms = timeout_ms
        self.timer = 0  # which of the engine's timers ends the current wait? 0: none
        self._frozen = frozen
        self._has_waited = False  # has the first one had its time?
        self._ptrs: list[int] = []  # heap of the nodes whose holders are still to be told

    def go_on(self) -> None:
        engine = self.thread.process.engine
        try:
            while self._ptrs or self.processes:
                if self._ptrs:
                    self._tell(self.processes[0], heappop(self._ptrs))
                    if not self._ptrs:
                        self.processes.popleft()
                elif not self._begin():
                    engine.await_calls(self)
                    return
                else:
                    self._settle()
                if engine.pace() and self.processes:
                    engine.pause(self)
                    return
        except KernelErrno as failure:
            engine.end_freeze(self, -failure.errno)
        else:
            engine.end_freeze(self, 0)

    def wait_is_over(self) -> None:
        """The first process has no calls any more, or has had its time."""
        self._has_waited = True

    def end(self) -> None:
        """It is through, one way or the other."""
        self.user.of(FREEZES).remove(1)

    def give_up(self) -> None:
        """A signal ended the wait (F2).

        Differs: if its handler was installed with SA_RESTART, the driver's wait begins anew. No
        errno that we may answer has that effect, so the client gets EINTR in any case.
        """
        self.processes[0].is_frozen = False

    def _begin(self) -> bool:
        """Freeze or thaw the first process; False if its calls must be waited for."""
        if self._has_waited:
            self._has_waited = False
            return True
        process = self.processes[0]
        if process.is_dead:
            return True
        set_frozen(process, frozen=self._frozen)
        return not self._frozen or not self.timeout_ms or process.outstanding == 0

    def _settle(self) -> None:
        """Settle whether the first process is frozen now that it has had its time.

        Raises:
            KernelErrno: EAGAIN: calls are still under way, the process is not frozen (F2). Those
                that were frozen before stay so.
        """
        process = self.processes[0]
        if self._frozen and not process.is_dead and has_calls(process):
            process.is_frozen = False
            raise KernelErrno(EAGAIN)
        self._ptrs = list(process.nodes)
        heapify(self._ptrs)
        if not self._ptrs:
            self.processes.popleft()

    def _tell(self, process: Process, ptr: int) -> None:
        """Report the state to whoever asked for it (binder_add_freeze_work)."""
        node = process.nodes.get(ptr)
        if node is not None:
            for ref in reversed(node.refs.values()):
                if ref.freeze is not None:
                    ref.freeze.report(frozen=self._frozen)
            node.put()


def set_frozen(process: Process, *, frozen: bool) -> None:
    """Enter or leave the frozen state, with a clean slate of what arrived in it (F1, F2)."""
    process.received_sync = process.received_one_way = False
    process.is_frozen = frozen


def has_calls(process: Process) -> bool:
    """Whether anything is queued to the process or any thread is in a call (F2)."""
    return process.outstanding > 0 or any(
        thread.stack is not None for thread in process.threads.values()
    )


class FreezeNotice(Work):
    """One registration; the client knows it by its cookie."""

    __slots__ = ("_process", "cleared", "cookie", "is_frozen", "resend", "sent")

    def __init__(self, process: Process, cookie: int) -> None:
        self.queue = None
        self._process = process
        self.cookie = cookie
        self.is_frozen = False  # what the next report says
        self.sent = False  # was a report read and not acknowledged yet?
        self.resend = False  # is there more to say once it is?
        self.cleared = False  # is BR_CLEAR_FREEZE_NOTIFICATION_DONE what is left to say?
        process.engine.stats.freezes += 1
        process.engine.stats.freezes_made += 1
        process.user.of(NOTICES).add(1)

    def announce(self) -> None:
        """Put the report into the process' queue."""
        enqueue(self._process.todo, self)
        self._process.wake_one()

    def report(self, *, frozen: bool) -> None:
        """The state may have changed (F5)."""
        if self.queue is None and not self.sent:
            self.is_frozen = frozen
            self.announce()
            return
        if self.sent and self.is_frozen != frozen:
            self.resend = True
        self.is_frozen = frozen

    def deliver(self, thread: Thread, out: bytearray) -> int:
        """BR_FROZEN_BINDER ends the read: a client may react with transactions (R4)."""
        if self.cleared:
            self._process.count_return(BR_CLEAR_FREEZE_NOTIFICATION_DONE)
            out += pack_word(BR_CLEAR_FREEZE_NOTIFICATION_DONE)
            out += binder_uintptr_t.pack(self.cookie)
            self._count_out()
            return MORE
        self._process.count_return(BR_FROZEN_BINDER)
        out += pack_word(BR_FROZEN_BINDER)
        out += binder_frozen_state_info.pack(self.cookie, self.is_frozen, 0)
        self.sent = True
        note_delivered(self._process.delivered_freezes, self.cookie, self)
        return LAST

    def clear(self) -> None:
        """BC_CLEAR_FREEZE_NOTIFICATION: replaces a report that was not read yet (F5)."""
        self.cleared = True
        if self.sent:
            self.resend = True
        elif self.queue is None:
            self.announce()

    def done(self) -> None:
        """BC_FREEZE_NOTIFICATION_DONE."""
        self._undeliver()
        if self.resend:
            self.resend = False
            self.announce()

    def forget(self) -> None:
        """The ref is gone, and with it the registration, without a word (N4)."""
        dequeue(self)
        if self.sent:
            self._undeliver()
        self._count_out()

    def cancel(self) -> None:
        """Withdrawn unread: only what no ref owns is counted out here."""
        if self.cleared:
            self._count_out()

    def kind(self) -> int:
        return views.CLEAR_FREEZE_NOTIFICATION if self.cleared else views.FROZEN_BINDER

    def _count_out(self) -> None:
        self._process.engine.stats.freezes -= 1
        self._process.user.of(NOTICES).remove(1)

    def _undeliver(self) -> None:
        self.sent = False
        drop_delivered(self._process.delivered_freezes, self.cookie, self)


def request_notice(thread: Thread, handle: int, cookie: int) -> None:
    """BC_REQUEST_FREEZE_NOTIFICATION; a weak ref suffices (F5).

    Raises:
        KernelErrno: EINVAL: no such handle, or requested before (E6); ENOMEM: the user has too
            many.
    """
    ref = thread.process.handles.find(handle, strong=False)
    if ref is None or ref.freeze is not None:
        raise KernelErrno(EINVAL)
    if not thread.process.user.of(NOTICES).has_room(1):
        raise KernelErrno(ENOMEM)
    ref.freeze = FreezeNotice(thread.process, cookie)
    owner = ref.node.process
    if owner is not None and not owner.is_dead:
        ref.freeze.is_frozen = owner.is_frozen
        ref.freeze.announce()


def clear_notice(thread: Thread, handle: int, cookie: int) -> None:
    """BC_CLEAR_FREEZE_NOTIFICATION.

    Raises:
        KernelErrno: EINVAL: it fits no registration (E6).
    """
    ref = thread.process.handles.find(handle, strong=False)
    if ref is None or ref.freeze is None or ref.freeze.cookie != cookie:
        raise KernelErrno(EINVAL)
    notice, ref.freeze = ref.freeze, None
    notice.clear()


def notice_done(thread: Thread, cookie: int) -> None:
    """BC_FREEZE_NOTIFICATION_DONE.

    Raises:
        KernelErrno: EINVAL: nothing with this cookie was read (E6).
    """
    waiting = thread.process.delivered_freezes.get(cookie)
    if not waiting:
        raise KernelErrno(EINVAL)
    next(iter(waiting)).done()
