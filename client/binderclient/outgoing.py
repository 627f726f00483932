# SPDX-License-Identifier: Apache-2.0
"""``OutgoingCalls``: the calls that the tasks of an event loop make.

To the driver each is made by a thread of its own, out of a few that are there for this, or by the
one that serves the handler whose task makes it.  Where that thread has a lane it need not run: the
loop's thread does in the lane's memory what it would do, and if the reply is there soon that was
all.  If not, the thread goes on with it, and tells the loop in the end.

Three rules.  The loop waits no longer for an answer than ``Lane.attempt`` does.  What it has begun
it hands to the thread before anything else happens in the loop.  A thread touches nothing of what
it has lent until it has been given something to do.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from binderclient.capacity import CapacityLimiter
from binderclient.deadlines import Ticket
from binderclient.loops import tell
from binderclient.session import late
from binderclient.threads import BinderThread
from binderclient.workers import Workers, outcome_of, result_of

if TYPE_CHECKING:
    from binderclient.connection import OutgoingCall
    from binderclient.homes import Home
    from binderclient.loops import EventLoop
    from binderclient.parcel import Parcel
    from binderclient.session import Session
    from binderclient.workers import Worker

# So many calls that did not wait, and the loop has a turn.
CALLS_IN_A_ROW: Final = 8


class Outgoing:
    """One call.

    Args:
        session: through which it goes; the rest as for ``Session.transact``.
    """

    __slots__ = ("_begun", "_outcome", "_thread", "code", "data", "flags", "handle", "session")

    def __init__(self, session: Session, handle: int, code: int, data: Parcel, flags: int) -> None:
        self.session = session
        self.handle = handle
        self.code = code
        self.data = data
        self.flags = flags
        self._outcome: Parcel | BaseException | None = None
        self._thread: BinderThread | None = None  # in whose name it is made, if it was attempted
        self._begun: OutgoingCall | None = None

    def result(self) -> Parcel:
        """Return what came of ``attempt``, or raise it, if that was all."""
        assert self._outcome is not None
        return result_of(self._outcome)

    @property
    def is_begun(self) -> bool:
        """Does ``run`` have to follow ``attempt``?"""
        return self._begun is not None

    def attempt(self, thread: BinderThread) -> bool:
        """Make the call in the name of a thread that is lent, if that takes but a moment.

        Returns:
            Is it over, for ``result``?  Else that thread has to ``run`` it at once; where this
            raises it has to ``break_off``.
        """
        session = self.session
        if not thread.can_attempt or not session.owns(thread):
            return False
        self._thread = thread
        try:
            begun = session.begin(thread, self.handle, self.code, self.data, self.flags)
        except Exception as error:  # not only ours: parcels have what the program has put into them
            self._outcome = error
            return True
        if session.attempt(thread, begun):
            self._outcome = outcome_of(partial(session.result, begun))
            return True
        self._begun = begun
        return False

    def run(self, ticket: Ticket | None) -> Parcel:
        """Make the call, or finish it, in the thread that is to; as ``Session.transact``."""
        session, begun, thread = self.session, self._begun, self._thread
        if begun is None or thread is None:
            return session.transact(self.handle, self.code, self.data, self.flags, ticket)
        return session.finish(thread, begun, self.handle, self.code, self.data, ticket)

    def break_off(self) -> None:
        """If it was attempted: have the thread, which is the calling one, leave the driver."""
        self.session.take_back()
        if self._thread is not None:
            self._thread.abandon()


class OutgoingCalls:
    """The calls of one device.

    Args:
        loop: that the tasks run in.
        limit: how many may be in the air at a time, beside those of handlers; more of them wait.
    """

    def __init__(self, loop: EventLoop, limit: int) -> None:
        self._loop = loop
        self._threads = Workers(limit)
        # A thread is free again before the loop has taken the reply: without these, replies would
        # pile up while it is busy, until the receive area had no room for more.
        self._limiter = CapacityLimiter(limit)
        self._in_a_row = 0  # calls since the loop had a turn for sure

    def close(self) -> None:
        """Have the threads end when they have no call."""
        self._threads.close()

    async def make(self, call: Outgoing, seconds: float | None, home: Home | None) -> Parcel:
        """Make a call.

        Args:
            seconds: that its caller is ready to wait; None: for ever.
            home: where the handler whose task makes it is at home, if a call can be made there.

        Returns, raises: as ``Session.transact``.
        """
        if self._in_a_row < CALLS_IN_A_ROW:
            await self._loop.heed_cancellation()  # a task that is cancelled already sends nothing
        else:
            self._in_a_row = 0
            await self._loop.checkpoint()
        if home is not None and home.is_free:
            if seconds is None and home.attempt(call):
                self._in_a_row += 1
                return call.result()
            return await home.make(call, seconds)
        worker = self._threads.take() if self._limiter.is_free else None
        if worker is not None and self._attempt(call, worker):
            self._in_a_row += 1
            return call.result()
        self._in_a_row = 0
        return await self._make(call, seconds, worker)

    def _attempt(self, call: Outgoing, worker: Worker) -> bool:
        """Make a call in the name of a thread that was taken, if that takes but a moment."""
        thread = worker.lent
        try:
            is_over = isinstance(thread, BinderThread) and call.attempt(thread)
        except BaseException:
            self._threads.put_to(worker, call.break_off)
            raise
        if is_over:
            self._threads.give_back(worker)
        return is_over

    async def _make(self, call: Outgoing, seconds: float | None, worker: Worker | None) -> Parcel:
        """Have a thread make or finish a call, ``worker`` if that was taken for it."""
        loop, session = self._loop, call.session
        over = loop.event()
        outcome: list[Parcel | BaseException] = []
        has_begun = call.is_begun

        def job() -> BinderThread | None:
            nonlocal has_begun
            has_begun = True  # before it looks: so where this is not set nothing is sent any more
            session.take_back()
            if ticket.is_given_up and not call.is_begun:
                ticket.end()
            else:
                outcome.append(outcome_of(partial(call.run, ticket)))
                tell(loop, over.set)
            return session.lend()

        def begin() -> None:
            if worker is not None:
                self._threads.put_to(worker, job)
                return
            try:
                self._threads.put(job)
            except RuntimeError as error:  # the system has no thread for it
                outcome.append(error)
                over.set()

        try:
            ticket = Ticket(seconds, lambda: tell(loop, over.set))
        except BaseException:  # the system has no thread for its clock
            if worker is not None:
                self._threads.put_to(worker, call.break_off)
            raise
        slot = self._limiter.take(begin)
        try:
            await over.wait()
        except BaseException:
            ticket.give_up()
            raise
        finally:
            self._limiter.give_back(slot)
            if not has_begun:
                ticket.end()
        if not outcome:
            raise late(ticket, call.code, call.data, sent=has_begun)
        return result_of(outcome.pop())
