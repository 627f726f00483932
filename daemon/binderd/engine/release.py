# SPDX-License-Identifier: Apache-2.0
"""Ends that take long: of a file, of a thread, and the flush of a file with many threads.

All are done step by step, so that others can have their turn in between (``pause.py``). From the
first step on nothing can be sent to a process whose file is closed, its nodes count as dead and its
handles as gone; what is left is to tell the other processes, and to release what it had.

Mirrors binder_deferred_release and binder_deferred_flush.
"""

from __future__ import annotations

from heapq import heapify, heappop
from typing import TYPE_CHECKING

from binderd.engine.pause import Steps
from binderd.engine.woken import run_woken
from binderd.engine.work import cancel_first

if TYPE_CHECKING:
    from binderd.engine.process import Process


class Flush(Steps):
    """Some descriptor of the file was closed: every thread returns to user space (I4).

    The threads are woken in the driver's order, as that decides which one asks for another looper
    (R11). A thread that polls sleeps on, and sees it when it polls the next time.
    """

    __slots__ = ("_process", "_tids")

    def __init__(self, process: Process) -> None:
        super().__init__(process.hub, process.user.number)
        self._process: Process = process
        self._tids = sorted(process.threads, reverse=True)

    def step(self) -> bool:
        if not self._tids:
            return False
        thread = self._process.threads.get(self._tids.pop())
        if thread is not None:
            thread.need_return = True
            if thread.parked is not None:
                thread.wake()
                run_woken(self.hub, self._process.roster)
        return True


class Release(Steps):
    """The file is closed for good: everything is undone, in the driver's order (N12).

    That is: manager, threads, nodes, refs, queued work, buffers.
    """

    __slots__ = ("_handles", "_ptrs", "_tids", "process")

    def __init__(self, process: Process) -> None:
        super().__init__(process.hub, process.user.number)
        self.process: Process = process
        manager = process.context.manager
        process.is_dead = True
        del process.roster.processes[process]
        process.is_frozen = process.received_sync = process.received_one_way = False
        process.poll_armed = False
        if manager is not None and manager.process is process:
            process.context.manager = None
        if process.withdrawal is not None:
            process.hub.paused.pop(process.withdrawal.ticket, None)
            process.withdrawal = None
        self._tids = sorted(process.threads, reverse=True)
        for tid in reversed(self._tids):
            process.threads[tid].abandon()
        process.waiting.clear()
        self._ptrs = list(process.nodes)
        heapify(self._ptrs)
        self._handles = list(process.handles.refs)
        heapify(self._handles)

    def step(self) -> bool:
        process = self.process
        if process.abandoned:
            if process.abandoned[0]:
                cancel_first(process.abandoned[0])
            else:
                process.abandoned.popleft()
        elif self._tids:
            process.threads[self._tids.pop()].leave()
        elif self._ptrs:
            self._orphan()
        elif self._handles:
            ref = process.handles.refs.get(heappop(self._handles))
            if ref is not None:
                ref.drop()
        elif process.todo:
            cancel_first(process.todo)
        else:
            return process.drop_delivered() or process.drop_buffer()
        return True

    def _orphan(self) -> None:
        """See to the node with the lowest ptr: first to what was sent to it and has no turn yet."""
        nodes, ptr = self.process.nodes, self._ptrs[0]
        node = nodes.get(ptr)
        work = None if node is None else node.next_one_way()
        if work is not None:
            work.cancel()
            return
        heappop(self._ptrs)
        if node is not None:
            self.process.forget_node(ptr)
            node.orphan()

    def end(self) -> None:
        self.process.close()
