# SPDX-License-Identifier: Apache-2.0
"""Freezing: stopping calls to a process before it is stopped itself.

BINDER_FREEZE may wait for calls that are under way; the wait is data, a ``Freezing``, like a
blocked read is. The engine has no clock: the transport ends the wait with ``Engine.expire``.
Processes that asked to be told of it have a notice (``freeze_notice.py``).

Mirrors binder_ioctl_freeze.
"""

from __future__ import annotations

from collections import deque
from errno import EAGAIN, EINTR, ENOMEM
from heapq import heapify, heappop
from typing import TYPE_CHECKING, Final

from binderd.engine.completion import Completion
from binderd.engine.errors import KernelErrno
from binderd.engine.kinds import FREEZES
from binderd.engine.pause import Waiting

if TYPE_CHECKING:
    from binderd.engine.process import Process
    from binderd.engine.thread import Thread

STOP: Final = -1  # milliseconds: the timer is not waited for any longer


class Freezing(Waiting):
    """A BINDER_FREEZE under way; a process' open files are frozen or thawed one after the other.

    Args:
        thread: the caller's.
        processes: the open files.
        frozen: what they are to be.
        timeout_ms: how long calls may go on in each of them before it is frozen.

    Raises:
        KernelErrno: ENOMEM: the user has too many.
    """

    __slots__ = ("_frozen", "_has_waited", "_ptrs", "processes", "thread", "timeout_ms")

    def __init__(
        self, thread: Thread, processes: list[Process], *, frozen: bool, timeout_ms: int
    ) -> None:
        share = thread.process.user.of(FREEZES)
        if not share.has_room(1):
            raise KernelErrno(ENOMEM)
        share.add(1)
        super().__init__(0, thread.process.user.number)
        self.thread: Thread = thread
        self.processes = deque(processes)  # still to be done; the first is the one under way
        self.timeout_ms = timeout_ms
        self._frozen = frozen
        self._has_waited = False  # has the first one had its time?
        self._ptrs: list[int] = []  # heap of the nodes whose holders are still to be told

    def go_on(self) -> None:
        hub = self.thread.process.hub
        try:
            while self._ptrs or self.processes:
                if self._ptrs:
                    self._tell(self.processes[0], heappop(self._ptrs))
                    if not self._ptrs:
                        self.processes.popleft()
                elif not self._begin():
                    self._await_calls()
                    return
                else:
                    self._settle()
                if hub.pace() and self.processes:
                    hub.pause(self)
                    return
        except KernelErrno as failure:
            self._end(-failure.errno)
        else:
            self._end(0)

    def may_go_on(self) -> bool:
        return self.processes[0].outstanding == 0

    def wait_is_over(self, *, is_early: bool) -> None:
        """The first process has no calls any more, or has had its time."""
        self._end_wait(is_early=is_early)
        self._has_waited = True
        self.go_on()

    def give_up(self) -> None:
        """A signal ended the wait (F2).

        Differs: if its handler was installed with SA_RESTART, the driver's wait begins anew. No
        errno that we may answer has that effect, so the client gets EINTR in any case.
        """
        self.processes[0].is_frozen = False
        self._end_wait(is_early=True)
        self._end(-EINTR)

    def _await_calls(self) -> None:
        """Wait until the first process has no calls any more."""
        hub = self.thread.process.hub
        self.timer = hub.next_timer()
        hub.waiting[self.ticket] = hub.timed[self.timer] = self
        self.processes[0].freezings[self.ticket] = self
        hub.timers.append((self.timer, self.timeout_ms))

    def _end_wait(self, *, is_early: bool) -> None:
        """End what ``_await_calls`` has begun, before its time or because that is over."""
        hub = self.thread.process.hub
        del hub.waiting[self.ticket], hub.timed[self.timer]
        del self.processes[0].freezings[self.ticket]
        if is_early:
            hub.timers.append((self.timer, STOP))
        self.timer = 0

    def _end(self, result: int) -> None:
        """End the ioctl."""
        process = self.thread.process
        process.user.of(FREEZES).remove(1)
        process.settle_user()
        self.thread.need_return = False
        process.hub.outbox.append(Completion(self.ticket, result, b""))

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
        """Announce the state to all processes that asked for it (binder_add_freeze_work)."""
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
