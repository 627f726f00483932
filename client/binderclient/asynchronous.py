# SPDX-License-Identifier: Apache-2.0
"""``AsyncDevice`` and ``AsyncProxy``: binder for programs with an event loop, whichever it is.

``binderclient.trio`` and ``binderclient.aio`` open such devices, in the loop of either.

Why there are threads below.  To the driver a thread is a party of its own: it can wait for one
reply at a time, a second call before that is refused (statement Q6), and while it owes a reply it
gets no new calls (Q5).  The one thread that a loop runs in could therefore have one call in the air
and serve one caller at a time, whatever its tasks do.  So every outgoing call borrows a worker
thread for as long as it takes, and incoming calls are read by the device's own pool of threads,
each of which hands its call to a task and waits for what the task makes of it.  Handlers, callbacks
and everything else of the program run in the loop's thread.  (Waiting for the device to become
readable and serving from the loop itself would save those threads, and serve one caller at a time,
however long its handler sleeps.)

A call that a handler makes is sent by the thread that reads for this handler, so that the called
object can call back into it (Q4), as it can between programs that block.

What cancellation promises.  A call that is cancelled before it was sent has not happened.  After
that it may or may not be handled by the object, whose reply goes nowhere; the thread that waited
is free again soon.  Inside a handler a call that was sent is finished, and cancellation comes
after it: leaving would break the promise to the handler's own caller.  A handler that is cancelled
answers its caller with STATUS_DEAD_OBJECT.

What runs in the loop's thread and enters the driver, without waiting for anyone else: reading a
reference to a new object out of a parcel, and closing a large one.
"""

from __future__ import annotations

import contextlib
import queue
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from binderclient import android
from binderclient.arguments import check_callable, check_code, check_type
from binderclient.blocking import Device
from binderclient.capacity import CapacityLimiter
from binderclient.deadlines import Alarm, Deadline, Ticket, checked_timeout
from binderclient.errors import DeadObject, RemoteException
from binderclient.loops import LoopEnded
from binderclient.objects import (
    RemoteObject,
    Service,
    call_flags,
    check_nothing,
    dispatch,
    request_of,
    set_caller,
)
from binderclient.session import caller_of, late
from binderclient.workers import HELPERS, Workers, outcome_of, result_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from binderclient.connection import Delivery
    from binderclient.loops import EventLoop
    from binderclient.parcel import Parcel
    from binderclient.servicemanager.client import Offer
    from binderclient.session import Session

DEFAULT_MAX_CALLS: Final = 16
_T = TypeVar("_T")


class AsyncProxy(RemoteObject):
    """An object of another process; ``Proxy`` for event loops."""

    device: AsyncDevice

    def __init__(self, handle: int, device: AsyncDevice, session: Session) -> None:
        super().__init__(handle, device)
        self.session = session

    async def call(
        self,
        code: int,
        data: Parcel | None = None,
        *,
        oneway: bool = False,
        clear: bool = False,
        timeout: float | None = None,
    ) -> Parcel:
        """Call the object; see ``Proxy.call`` for arguments, return and exceptions."""
        check_code(code)
        request = request_of(data)
        flags = call_flags(oneway=oneway, clear=clear)
        seconds = checked_timeout(timeout)
        return await self.device.transact(self.session, self.handle, code, request, flags, seconds)

    async def ping(self, *, timeout: float | None = None) -> None:
        """Return if the object answers; arguments and exceptions as ``call``."""
        (await self.call(android.PING_TRANSACTION, timeout=timeout)).close()

    async def interface(self, *, timeout: float | None = None) -> str:
        """Return the name of the object's interface; arguments and exceptions as ``call``."""
        with await self.call(android.INTERFACE_TRANSACTION, timeout=timeout) as reply:
            return reply.read_string16() or ""

    async def wait_dead(self) -> None:
        """Return when the object's process is gone, or the driver.  The device must serve."""
        loop = self.device.loop
        died = loop.event()

        def tell(_proxy: RemoteObject) -> None:
            with contextlib.suppress(LoopEnded):
                loop.run_soon(died.set)

        try:
            await self.device.link(self, tell)
        except DeadObject:
            return
        try:
            await died.wait()
        finally:
            if not self.dead:
                await loop.finish(self.device.unlink(self, tell))


class AsyncDevice:
    """An open binder device of a program with an event loop; made by ``open_device``.

    Args:
        path, map_size, max_threads, reconnect: see ``Device``.
        max_calls: how many outgoing calls may be in the air at a time; more of them wait.
        loop: the loop.

    Raises:
        DeviceError: the device cannot be used.
        ValueError: ``max_calls`` is less than 1.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        map_size: int,
        max_threads: int,
        max_calls: int,
        *,
        reconnect: bool,
        loop: EventLoop,
    ) -> None:
        check_type("open_device(): max_calls", max_calls, int)
        if max_calls < 1:
            raise ValueError(f"max_calls must be 1 or more, not {max_calls}")
        self.loop = loop
        self._callers = Workers(max_calls)
        # A thread is free again before the loop has taken the reply: without these, replies would
        # pile up while it is busy, until the receive area had no room for more.
        self._limiter = CapacityLimiter(max_calls)
        self._changed = loop.event()  # the device has gone or is back, since somebody waits
        self._device = Device(
            path,
            map_size=map_size,
            max_threads=max_threads,
            reconnect=reconnect,
            make_proxy=self._make_proxy,
            run_handler=self._hand_over,
        )
        self.on_gone(AsyncDevice._change)
        self.on_back(AsyncDevice._change)

    def _make_proxy(self, handle: int, session: Session) -> AsyncProxy:
        return AsyncProxy(handle, self, session)

    @property
    def context_manager(self) -> AsyncProxy:
        """The proxy of handle 0: the service manager, if one is running."""
        proxy = self._device.proxy(0)
        assert isinstance(proxy, AsyncProxy)
        return proxy

    def become_context_manager(self, service: Service) -> None:
        """See ``Device.become_context_manager``."""
        self._device.become_context_manager(service)

    def start_serving(self) -> None:
        """Start to hand incoming calls to tasks; returns at once."""
        self._device.start_thread_pool()

    async def serve_forever(self) -> None:
        """Serve until cancelled."""
        self.start_serving()
        await self.loop.event().wait()

    # Outgoing calls

    async def transact(
        self,
        session: Session,
        handle: int,
        code: int,
        data: Parcel,
        flags: int,
        seconds: float | None = None,
    ) -> Parcel:
        """Send a transaction and wait for its reply; ``AsyncProxy.call`` is the way to use it."""
        await self.loop.heed_cancellation()  # a task that is cancelled already sends nothing
        home = _current_home.get()
        transact = partial(session.transact, handle, code, data, flags)
        if home is not None and home.is_free:
            if seconds is not None:
                transact = partial(transact, Ticket(seconds))
            return await home.transact(transact, self)
        over = self.loop.event()
        ticket = Ticket(seconds, lambda: self._tell(over.set))
        outcome: list[Parcel | BaseException] = []
        has_begun = False

        def job() -> None:
            nonlocal has_begun
            has_begun = True  # before it looks: so where this is not set nothing is sent any more
            if ticket.is_given_up:
                ticket.end()
                return
            outcome.append(outcome_of(partial(transact, ticket)))
            self._tell(over.set)

        def begin() -> None:
            try:
                self._callers.put(job)
            except RuntimeError as error:  # the system has no thread for it
                outcome.append(error)
                over.set()

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
            raise late(ticket, code, data, sent=has_begun)
        return result_of(outcome.pop())

    async def in_thread(self, function: Callable[..., _T], *arguments: Any) -> _T:  # noqa: ANN401
        """Return what a function returns that may take a moment; not cancelled before."""
        over = self.loop.event()
        outcome: list[_T | BaseException] = []

        def job() -> None:
            outcome.append(outcome_of(partial(function, *arguments)))
            self._tell(over.set)

        HELPERS.put(job)
        await self.loop.finish(over.wait())
        return result_of(outcome.pop())

    async def link(self, proxy: AsyncProxy, callback: Callable[[RemoteObject], object]) -> None:
        """Have ``callback`` called, in another thread, when the object's process is gone."""
        await self.in_thread(proxy.session.link_to_death, proxy, callback)

    async def unlink(self, proxy: AsyncProxy, callback: Callable[[RemoteObject], object]) -> bool:
        """Take back ``link``."""
        return await self.in_thread(proxy.session.unlink_to_death, proxy, callback)

    # When the driver goes

    @property
    def gone(self) -> bool:
        """See ``Device.gone``."""
        return self._device.gone

    @property
    def reconnects(self) -> bool:
        """Does it come back by itself?"""
        return self._device.recovery.reconnect

    def on_gone(self, callback: Callable[[AsyncDevice], object]) -> None:
        """Have ``callback(device)`` called in the loop's thread each time the driver goes."""
        check_callable("on_gone(): callback", callback)
        self._device.on_gone(lambda _device: self.run_soon(callback))

    def on_back(self, callback: Callable[[AsyncDevice], object]) -> None:
        """Have ``callback(device)`` called in the loop's thread each time the device is back."""
        check_callable("on_back(): callback", callback)
        self._device.on_back(lambda _device: self.run_soon(callback))

    async def wait_gone(self) -> None:
        """Return when the driver is gone; at once if it is now."""
        await self.loop.checkpoint()
        while not self.gone:
            await self._changed.wait()

    async def wait_back(self, timeout: float | None = None) -> bool:
        """Wait until the device can be used; at once if nothing is wrong.

        Args:
            timeout: seconds, None for ever.

        Returns:
            False if it cannot be used after that time.

        Raises:
            DeviceGone: the driver is gone and will not be back.
        """
        await self.loop.checkpoint()
        limit = Deadline(timeout)
        with self.alarm(limit.left(), self._change):
            while self.gone:
                if not self.reconnects:
                    raise self._device.session.driver.gone_error()
                if limit.left() == 0:
                    return False
                await self._changed.wait()
        return True

    def offering(self, name: str, offer: Offer) -> contextlib.AbstractContextManager[None]:
        """See ``Recovery.offering``."""
        return self._device.recovery.offering(name, offer)

    def run_soon(self, callback: Callable[[AsyncDevice], object]) -> None:
        """Have ``callback(device)`` called in the loop's thread, from whichever thread this is."""
        self._tell(callback, self)

    @contextlib.contextmanager
    def alarm(self, seconds: float | None, ring: Callable[[], object]) -> Iterator[None]:
        """Have a function called in the loop's thread if the block takes too long."""
        if seconds is None:
            yield
            return
        alarm = Alarm(seconds, lambda: self._tell(ring))
        try:
            yield
        finally:
            alarm.stop()

    def _tell(self, function: Callable[..., object], *arguments: Any) -> None:  # noqa: ANN401
        try:
            self.loop.run_soon(function, *arguments)
        except LoopEnded:
            return  # nobody is there to be told

    def _change(self) -> None:
        self._changed.set()
        self._changed = self.loop.event()

    # Incoming calls

    def _hand_over(self, service: Service, delivery: Delivery, data: Parcel, reply: Parcel) -> None:
        """Have a task handle a call; runs in the thread that received it, until it is handled."""
        home = _Home()
        try:
            self.loop.run_soon(self._start_task, home, service, delivery, data, reply)
        except LoopEnded:
            raise _closed() from None
        home.work()

    def _start_task(
        self, home: _Home, service: Service, delivery: Delivery, data: Parcel, reply: Parcel
    ) -> None:
        try:
            self.loop.start_task(
                lambda: self._handle(home, service, delivery, data, reply),
                lambda: home.done(_closed()),
            )
        except LoopEnded:
            home.done(_closed())

    async def _handle(
        self, home: _Home, service: Service, delivery: Delivery, data: Parcel, reply: Parcel
    ) -> None:
        error: Exception | None = _closed()
        _current_home.set(home)
        set_caller(caller_of(delivery))
        try:
            result = dispatch(service, delivery.code, data, reply, delivery.flags)
            if result is not None:
                check_nothing(await result)
            error = None
        except Exception as failure:
            error = failure
        finally:
            home.done(error)

    # Lifetime

    async def aclose(self) -> None:
        """End all handlers and close the device; idempotent, cannot be cancelled."""
        self.loop.cancel_tasks()
        try:
            await self.in_thread(self._device.close)
        finally:
            self._callers.close()
            await self.loop.tasks_ended()


class _Home:
    """The thread that received a call, while a task handles it: it makes the task's own calls.

    ``work`` runs in that thread, everything else in the loop's thread.
    """

    __slots__ = ("_is_busy", "_is_done", "_jobs")

    def __init__(self) -> None:
        # What to do next; None or an exception: the call has been handled.
        self._jobs: queue.SimpleQueue[Callable[[], None] | Exception | None] = queue.SimpleQueue()
        self._is_busy = False
        self._is_done = False

    @property
    def is_free(self) -> bool:
        """May a task of this handler make a call here now?"""
        return not self._is_busy and not self._is_done

    def done(self, error: Exception | None) -> None:
        """Say that the call has been handled."""
        self._is_done = True
        self._jobs.put(error)

    async def transact(self, transact: Callable[[], Parcel], device: AsyncDevice) -> Parcel:
        """Make a call from this thread; not cancelled before its outcome is known."""
        outcome: list[Parcel | BaseException] = []
        loop = device.loop
        over = loop.event()

        def job() -> None:
            outcome.append(outcome_of(transact))
            with contextlib.suppress(LoopEnded):
                loop.run_soon(over.set)

        self._is_busy = True
        try:
            self._jobs.put(job)
            await loop.finish(over.wait())
        finally:
            self._is_busy = False
        return result_of(outcome.pop())

    def work(self) -> None:
        """Make calls until the task is done; raises what the task raised."""
        while True:
            job = self._jobs.get()
            if job is None:
                return
            if isinstance(job, Exception):
                raise job
            job()


_current_home: Final[ContextVar[_Home | None]] = ContextVar("binder_home", default=None)


def _closed() -> RemoteException:
    return RemoteException(status=android.STATUS_DEAD_OBJECT)
