# SPDX-License-Identifier: Apache-2.0
"""``IncomingCalls``: the calls that the tasks of an event loop handle.

Each comes to a thread that reads, which is from then on the home of the task that handles it, and
waits for what there is to do: the task's own calls, in the end the answer.  If it has a lane it is
not woken for that.  The loop's thread answers in its name, looks for its next call in the same
moment, and goes on with that in the same task.  Only when nothing comes soon the thread goes to
sleep in the driver again.

What keeps this from blocking: a thread whose answer or question is under way is always looked after
by somebody who does nothing else, for a moment by the loop, then by the thread itself.  While a
handler waits or computes, its thread has nothing under way, and other threads read.
"""

from __future__ import annotations

import inspect
import queue
from contextvars import Context, ContextVar, copy_context
from functools import partial
from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from binderclient import android
from binderclient.deadlines import Ticket
from binderclient.errors import BinderError, RemoteException
from binderclient.loops import LoopEnded, tell
from binderclient.objects import check_nothing, dispatch, set_caller
from binderclient.outgoing import CALLS_IN_A_ROW
from binderclient.workers import outcome_of, result_of
from binderwire.binder_abi import TF_ONE_WAY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from binderclient.incoming import IncomingCall
    from binderclient.loops import EventLoop
    from binderclient.outgoing import Outgoing
    from binderclient.parcel import Parcel
    from binderclient.threads import BinderThread

    # What a thread is to do; it returns what is to be done when the thread waits again.
    _Job = Callable[[], Callable[[], object] | None]


class Home:
    """The thread that has received a call, while a task handles that.

    Args:
        loop: that the task runs in.
        call: the call.
        jobs: what the thread is to do next; None: read.

    ``work`` runs in that thread, everything else in the loop's thread.
    """

    __slots__ = ("_is_busy", "_jobs", "_loop", "_thread", "call")

    def __init__(
        self, loop: EventLoop, call: IncomingCall, jobs: queue.SimpleQueue[_Job | None]
    ) -> None:
        self.call: IncomingCall | None = call  # until it is answered, or the thread is to do that
        self._loop = loop
        self._thread = call.thread
        self._jobs = jobs
        self._is_busy = False

    @property
    def is_free(self) -> bool:
        """May a task of this handler make a call here now?"""
        return not self._is_busy and self.call is not None

    def work(self) -> None:
        """Do what there is to do, until the thread is to read; raises what that raises."""
        thread = self._thread
        while True:
            job = self._jobs.get()
            thread.is_lent = False
            if job is None:
                return
            following = job()
            thread.is_lent = True
            if following is not None:
                following()

    # Calls of the handler's

    def attempt(self, call: Outgoing) -> bool:
        """Make a call from this thread if that takes but a moment; see ``Outgoing.attempt``."""
        try:
            return call.attempt(self._thread)
        except BaseException:
            self._jobs.put(call.break_off)
            raise

    async def make(self, call: Outgoing, seconds: float | None) -> Parcel:
        """Make or finish a call from this thread; not cancelled before its outcome is known."""
        outcome: list[Parcel | BaseException] = []
        loop = self._loop
        over = loop.event()
        ticket = None if seconds is None else Ticket(seconds)

        def job() -> Callable[[], object]:
            outcome.append(outcome_of(partial(call.run, ticket)))
            return partial(tell, loop, over.set)

        self._is_busy = True
        try:
            self._jobs.put(job)
            await loop.finish(over.wait())
        finally:
            self._is_busy = False
        return result_of(outcome.pop())

    # The end of the call

    def leave(self, error: Exception | None) -> None:
        """Have the thread answer, if nobody has, and read.

        Args:
            error: what the handler raised, if it did.
        """
        call, self.call = self.call, None
        if call is not None:
            self._jobs.put(partial(call.answer, error))
            self._jobs.put(None)

    def conclude(self, error: Exception | None) -> Home | None:
        """Answer, and look for the thread's next call.

        Returns:
            The home of that call; None: the thread goes on by itself.
        """
        call = self.call
        if call is None or not self._can_go_on(call):
            self.leave(error)
            return None
        self.call = None
        try:
            call.answer(error)
            following = call.session.next_call(self._thread)
        except BaseException as failure:
            self._jobs.put(partial(_fail, self._thread, failure))
            self._jobs.put(None)
            if isinstance(failure, Exception):
                return None
            raise
        if following is None:
            self._jobs.put(None)
            return None
        return Home(self._loop, following, self._jobs)

    def _can_go_on(self, call: IncomingCall) -> bool:
        """May the loop read for the thread when it has answered?

        Not if there is another call below this one: that is the thread's own, which waits for it.
        """
        thread = self._thread
        depth = 0 if call.delivery.flags & TF_ONE_WAY else 1
        return (
            not self._is_busy
            and thread.can_attempt
            and thread.state.is_looper
            and thread.state.depth == depth
            and not self._loop.is_cancelled()
        )


def _fail(thread: BinderThread, failure: BaseException) -> None:
    """In a thread of which nobody knows what it has sent: begin anew, or end."""
    thread.abandon()
    if isinstance(failure, BinderError):
        raise failure


current_home: Final[ContextVar[Home | None]] = ContextVar("binder_home", default=None)


class IncomingCalls:
    """The calls of one device.

    Args:
        loop: that the tasks run in.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop

    def hand_over(self, call: IncomingCall) -> None:
        """Have a task handle a call; in the thread that received it, until that is to read."""
        home = Home(self._loop, call, queue.SimpleQueue())
        call.thread.is_lent = True
        try:
            self._loop.run_soon(self._start, home)
        except LoopEnded:
            call.thread.is_lent = False
            raise closed() from None
        home.work()

    def _start(self, home: Home) -> None:
        try:
            self._loop.start_task(partial(self._serve, home), partial(home.leave, closed()))
        except LoopEnded:
            home.leave(closed())

    async def _serve(self, first: Home) -> None:
        """Handle a call, and those that come to its thread right behind it."""
        in_a_row = 0
        home: Home | None = first
        while home is not None:
            try:
                if in_a_row == CALLS_IN_A_ROW:
                    in_a_row = 0
                    await self._loop.checkpoint()
                error = await self._handle(home)
            except BaseException:
                home.leave(closed())
                raise
            in_a_row += 1
            home = home.conclude(error)

    async def _handle(self, home: Home) -> Exception | None:
        """Run the handler; returns what it raises."""
        try:
            # So nothing that one handler does to its context meets the next.
            context = copy_context()
            result = context.run(_dispatch, home)
            if result is not None:
                check_nothing(await _within(context, result))
        except Exception as error:
            return error
        return None


def _dispatch(home: Home) -> Awaitable[object] | None:
    call = home.call
    if call is None or call.service is None:
        return None
    current_home.set(home)
    set_caller(call.caller())
    delivery = call.delivery
    return dispatch(call.service, delivery.code, call.data, call.reply, delivery.flags)


@coroutine
def _within(context: Context, awaitable: Awaitable[Any]) -> Generator[Any, Any, object]:
    """Await something, each of whose steps runs in a context."""
    steps = awaitable if inspect.iscoroutine(awaitable) else _awaiting(awaitable)
    step = partial(steps.send, None)
    try:
        while True:
            wanted = context.run(step)
            try:
                step = partial(steps.send, (yield wanted))
            except BaseException as error:
                step = partial(steps.throw, error)
    except StopIteration as end:
        return end.value


async def _awaiting(awaitable: Awaitable[Any]) -> object:
    return await awaitable


def closed() -> RemoteException:
    """Return what those are told whose calls nobody can handle any more."""
    return RemoteException(status=android.STATUS_DEAD_OBJECT)
