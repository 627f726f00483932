# SPDX-License-Identifier: Apache-2.0
"""The read half of BINDER_WRITE_READ: what a thread is told, and how it sleeps until there is news.

A blocked read is data (``Thread.parked``), not a task.  A request that queues work for a thread
puts the thread into ``Roster.runnable``; at the end of that request ``resume`` takes up the read
where it slept.

Mirrors binder_thread_read and binder_wait_for_work.
"""

from __future__ import annotations

from contextlib import suppress
from errno import EAGAIN, EFAULT
from typing import TYPE_CHECKING, Final

from binderd.engine.completion import Paused
from binderd.engine.errors import BinderFailure
from binderd.engine.owner import ENTERED, REGISTERED
from binderd.engine.paused_ioctl import PausedIoctl
from binderd.engine.ports import NotYet
from binderd.engine.returns import Returns
from binderd.engine.work import UNREADY, Work, pack_word, put_back
from binderwire.binder_abi import BR_NOOP, BR_SPAWN_LOOPER, binder_transaction_data_secctx

if TYPE_CHECKING:
    from binderd.engine.completion import WriteRead
    from binderd.engine.thread import Thread

_NOOP: Final = pack_word(BR_NOOP)
_SPAWN_LOOPER: Final = pack_word(BR_SPAWN_LOOPER)
_WORD: Final = len(_NOOP)
# Room for the largest return must be left before anything is taken, however small it is (R2).
_ROOM: Final = _WORD + binder_transaction_data_secctx.size


def begin(thread: Thread, request: WriteRead) -> None:
    """Start the read part; ends in a completion now or when there is something to tell.

    The read buffer is tried before any work is taken, as the driver's first put_user does, so that
    a bad pointer loses nothing.  A buffer that took data before is not tried again.
    """
    address = request.read_buffer
    if request.read_consumed == 0 and address != thread.proven_buffer:
        try:
            proven = request.read_size < _WORD or thread.memory.write(address, _NOOP)
        except NotYet as reason:
            thread.fetch(request, PausedBeginning(thread, request), reason)
            return
        if not proven:
            _finish(thread, request, -EFAULT)
            return
        thread.proven_buffer = address
    resume(thread, request)


class PausedBeginning(PausedIoctl):
    """A read whose buffer a worker has to try."""

    __slots__ = ()

    def take_up(self) -> None:
        begin(self.thread, self.request)


def resume(thread: Thread, request: WriteRead) -> None:
    """Read if there is anything to read, else sleep (binder_wait_for_work)."""
    process = thread.process
    if thread.parked is None:
        _take_up(thread)
    elif thread.for_process:
        process.waiting.pop(thread, None)
    if thread.must_wait():
        thread.sleep(request)
        return
    while True:
        has_work = thread.process_todo or thread.need_return
        if not has_work and not (thread.for_process and process.todo):
            if process.nonblocking:
                _finish(thread, request, -EAGAIN)
            else:
                _sleep(thread, request)
            return
        if _collect(thread, request, _begin_out(request)):
            return
        _take_up(thread)


def _take_up(thread: Thread) -> None:
    """Settle what this turn may take; a thread that serves the process does so at its nice (I3)."""
    thread.for_process = thread.stack is None and not thread.todo
    if thread.for_process:
        thread.nice.set(thread.process.client.nice)


def _sleep(thread: Thread, request: WriteRead) -> None:
    thread.sleep(request)
    if thread.for_process:
        thread.process.waiting[thread] = None


def _begin_out(request: WriteRead) -> Returns:
    """Return what the read buffer gets before anything is taken."""
    is_first = request.read_consumed == 0 and request.read_size >= _WORD
    return Returns(_NOOP if is_first else b"")


def _collect(thread: Thread, request: WriteRead, out: Returns) -> bool:
    """Take work and complete the read; False if there was nothing to say after all (R5).

    Args:
        out: what was collected before.
    """
    todo, process = thread.todo, thread.process
    pace = process.hub.pace
    start = request.read_consumed
    room_ends = request.read_size - start - _ROOM
    while True:
        if todo:
            queue = todo
        elif thread.for_process and process.todo:
            queue = process.todo
        else:
            if start + out.size == _WORD and not thread.need_return:
                return False
            break
        if out.size > room_ends:
            break
        work = queue.pop()
        if not todo:
            thread.process_todo = False
        before = out.size
        ending = work.deliver(thread, out)
        if ending == UNREADY:
            return _await_files(thread, request, out, work)
        if ending:
            _hand_over(thread, request, out, work, before)
            return True
        if (todo or (thread.for_process and process.todo)) and pace():
            thread.pause_read(request, PausedRead(thread, request, out))
            return True
    _hand_over(thread, request, out, None, out.size)
    return True


class PausedRead(PausedIoctl):
    """A read that has collected something, while there is more.

    Args:
        out: what was collected.
    """

    __slots__ = ("_out",)

    def __init__(self, thread: Thread, request: WriteRead, out: Returns) -> None:
        super().__init__(thread, request)
        self._out = out

    def take_up(self) -> None:
        if not _collect(self.thread, self.request, self._out):
            resume(self.thread, self.request)


def _await_files(thread: Thread, request: WriteRead, out: Returns, work: Work) -> bool:
    """Keep ``work`` until its files are installed; what was collected before it is handed over.

    Returns:
        False if they cannot be installed, which ``work`` will say when it is taken again.
    """
    put_back(thread.todo, work)
    thread.process_todo = True
    if thread.closing is not None:
        # This ioctl ends at once anyway (R7), and its thread can be stopped for one reason only.
        _hand_over(thread, request, out, None, out.size)
        return True
    position = request.read_buffer + request.read_consumed
    try:
        thread.memory.be_present()
        stored = not out.size or thread.memory.write(position, out.octets())
    except NotYet as reason:
        paused = PausedRead(thread, request, out)
        thread.fetch(request, paused, reason)
        _leave_rest(thread)
        return True
    if not stored:
        thread.proven_buffer = -1
        _finish(thread, request, -EFAULT)
        return True
    request.read_consumed += out.size
    if not work.begin_installation(thread, request):
        return False
    _leave_rest(thread)
    return True


def _hand_over(
    thread: Thread, request: WriteRead, out: Returns, last: Work | None, before: int
) -> None:
    """Put ``out`` into the client's read buffer and answer the request.

    Args:
        last: the work that ended the read, if any did.
        before: how much of ``out`` comes before that, in bytes.
    """
    spawn = _wants_looper(thread)
    if spawn:
        thread.process.requested_threads += 1
        if request.read_consumed == 0 and out.size:
            out.replace_first(_SPAWN_LOOPER)  # in the place of the BR_NOOP (R11)
    _store(thread, request, out, last, before, spawn=spawn)


def _store(
    thread: Thread,
    request: WriteRead,
    out: Returns,
    last: Work | None,
    before: int,
    *,
    spawn: bool,
) -> None:
    """Store what was collected, and end the read; later, if a worker has to store it.

    Args:
        last, before: as ``_hand_over`` has them.
        spawn: is the process asked for another looper?
    """
    saw_area = thread.memory.sees_area
    try:
        if last is not None and not last.arrive(thread, out, before):
            last = None
        address = request.read_buffer + request.read_consumed
        stored = not out.size or thread.memory.write(address, out.octets())
    except NotYet as reason:
        paused = HandingOver(thread, request, out, last, before, spawn=spawn)
        thread.fetch(request, paused, reason)
        _leave_rest(thread)
        return
    if saw_area and not thread.memory.sees_area:
        # The thread has turned out to run another program than when it was last seen.
        with suppress(BinderFailure):
            thread.process.look_for_area()
        if last is not None and last.withdraw(thread):
            out.cut(before)
            last = None
    if last is not None:
        last.stored(thread, ok=stored)
    if not stored:
        thread.proven_buffer = -1
        _ask_nobody(thread, spawn=spawn)
        _finish(thread, request, -EFAULT)
        return
    _end(thread, request, out.size, spawn=spawn)


class HandingOver(Paused):
    """A read whose work is taken, and which a worker stores; arguments as ``_store``."""

    __slots__ = ("_before", "_out", "_spawn", "last", "request", "thread")

    def __init__(
        self,
        thread: Thread,
        request: WriteRead,
        out: Returns,
        last: Work | None,
        before: int,
        *,
        spawn: bool,
    ) -> None:
        super().__init__(request.ticket, thread.process.user.number)
        self.thread = thread
        self.request = request
        self._out = out
        self.last = last
        self._before = before
        self._spawn = spawn

    def go_on(self) -> None:
        self.thread.paused = None
        _store(self.thread, self.request, self._out, self.last, self._before, spawn=self._spawn)

    def abandon(self) -> None:
        """The thread is being released, with work in hand that it will never see."""
        _ask_nobody(self.thread, spawn=self._spawn)
        if self.last is not None:
            self.last.stored(self.thread, ok=False)


def _end(thread: Thread, request: WriteRead, size: int, *, spawn: bool) -> None:
    """Answer a read of which ``size`` bytes have just been stored."""
    start, result, is_asked = request.read_consumed, 0, spawn
    request.read_consumed = start + size
    if spawn and start:
        try:
            is_asked = thread.memory.write(request.read_buffer, _SPAWN_LOOPER)
            result = 0 if is_asked else -EFAULT
        except NotYet:
            is_asked = False  # it is asked with a later read
    if is_asked:
        thread.process.count_return(BR_SPAWN_LOOPER)
    else:
        _ask_nobody(thread, spawn=spawn)
    _finish(thread, request, result)


def _ask_nobody(thread: Thread, *, spawn: bool) -> None:
    """The process was not asked for another looper after all."""
    if spawn and thread.process.requested_threads:  # or a thread has registered unasked
        thread.process.requested_threads -= 1


def _wants_looper(thread: Thread) -> bool:
    """Whether the process should start another thread (R11)."""
    process = thread.process
    return (
        process.started_threads < process.max_threads
        and process.requested_threads == 0
        and not process.waiting
        and bool(thread.looper & (REGISTERED | ENTERED))
    )


def _finish(thread: Thread, request: WriteRead, result: int) -> None:
    thread.complete(request, result)
    _leave_rest(thread)


def _leave_rest(thread: Thread) -> None:
    """Wake another thread for the work that this one does not take now (R14)."""
    if thread.process.todo:
        thread.process.wake_one()
