# SPDX-License-Identifier: Apache-2.0
"""Binder for trio programs: ``open_device``, asynchronous proxies, asynchronous handlers.

Why there are threads below.  To the driver a thread is a party of its own: it can wait for one
reply at a time, a second call before that is refused (behaviours Q6), and while it owes a reply it
gets no new calls (Q5).  The one thread that trio runs in could therefore have one call in the air
and serve one caller at a time, whatever its tasks do.  So every outgoing call borrows a worker
thread of trio's for as long as it takes, and incoming calls are read by the device's own pool of
threads, each of which hands its call to a task and waits for what the task makes of it.  Handlers,
callbacks and everything else of the program run in the trio thread.  (Waiting for the device to
become readable and serving from the trio thread itself would save those threads, and serve one
caller at a time, however long its handler sleeps.)

A call that a handler makes is sent by the thread that reads for this handler, so that the called
object can call back into it (Q4), as it can between programs that block.

What cancellation promises.  A call that is cancelled before it was sent has not happened.  After
that it may or may not be handled by the object, whose reply goes nowhere; the thread that waited
is free again at once.  Inside a handler a call that was sent is finished, and cancellation comes
after it: leaving would break the promise to the handler's own caller.  A handler that is cancelled
answers its caller with STATUS_DEAD_OBJECT.

What runs in the trio thread and enters the driver, without waiting for anyone else: reading a
reference to a new object out of a parcel, and closing a large one.
"""

from __future__ import annotations

import contextlib
import inspect
import queue
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from binderclient import android
from binderclient.blocking import (
    DEFAULT_MAP_SIZE,
    DEFAULT_MAX_THREADS,
    DEFAULT_PATH,
    Device,
    Ticket,
)
from binderclient.errors import DeadObject, RemoteException
from binderclient.objects import (
    Caller,
    RemoteObject,
    Service,
    call_flags,
    dispatch,
    request_of,
    set_caller,
)
from binderclient.servicemanager.async_client import AsyncNamedService, AsyncServiceManager
from binderwire.binder_abi import TF_ONE_WAY

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable

    from binderclient.connection import Delivery
    from binderclient.parcel import Parcel
    from binderclient.servicemanager.client import Offer
    from binderclient.session import Session

__all__ = [
    "AsyncDevice",
    "AsyncNamedService",
    "AsyncProxy",
    "AsyncServiceManager",
    "open_device",
]

DEFAULT_MAX_CALLS: Final = 16

# Debian 12's trio, 0.22, has another name for it.
_ABANDON: Final = (
    "abandon_on_cancel"
    if "abandon_on_cancel" in inspect.signature(trio.to_thread.run_sync).parameters
    else "cancellable"
)
_run_sync: Any = trio.to_thread.run_sync
_run_in_thread_that_may_be_left: Any = partial(_run_sync, **{_ABANDON: True})


@contextlib.asynccontextmanager
async def open_device(
    path: str | os.PathLike[str] = DEFAULT_PATH,
    *,
    map_size: int = DEFAULT_MAP_SIZE,
    max_threads: int = DEFAULT_MAX_THREADS,
    max_calls: int = DEFAULT_MAX_CALLS,
    reconnect: bool = False,
) -> AsyncIterator[AsyncDevice]:
    """Open a binder device; at the end of the ``async with`` block it is closed.

    Args:
        path, map_size, reconnect: see ``Device``.
        max_threads: how many incoming calls may be in the hands of tasks at a time, less one.
        max_calls: how many outgoing calls may be in the air at a time; more of them wait.

    Raises:
        DeviceError: the device cannot be used.
    """
    device = AsyncDevice(path, map_size, max_threads, max_calls, reconnect=reconnect)
    failure: Exception | None = None
    async with trio.open_nursery() as handlers:
        device.handlers = handlers
        try:
            yield device
        except Exception as error:
            failure = error  # raised below as it is: that there is a nursery is our business
        finally:
            await device.aclose()
    if failure is not None:
        raise failure


class AsyncProxy(RemoteObject):
    """An object of another process; trio flavour of ``Proxy``."""

    device: AsyncDevice

    def __init__(self, handle: int, device: AsyncDevice, session: Session) -> None:
        super().__init__(handle, device)
        self.session = session

    async def call(
        self, code: int, data: Parcel | None = None, *, oneway: bool = False, clear: bool = False
    ) -> Parcel:
        """Call the object; see ``Proxy.call`` for arguments, return and exceptions."""
        request = request_of(data)
        flags = call_flags(oneway=oneway, clear=clear)
        return await self.device.transact(self.session, self.handle, code, request, flags)

    async def ping(self) -> None:
        """Return if the object answers; raises like ``call``."""
        (await self.call(android.PING_TRANSACTION)).close()

    async def interface(self) -> str:
        """Return the name of the object's interface; raises like ``call``."""
        with await self.call(android.INTERFACE_TRANSACTION) as reply:
            return reply.read_string16() or ""

    async def wait_dead(self) -> None:
        """Return when the object's process is gone, or the driver.  The device must serve."""
        died = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def tell(_proxy: RemoteObject) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(died.set)

        try:
            await self.device.link(self, tell)
        except DeadObject:
            return
        try:
            await died.wait()
        finally:
            if not self.dead:
                with trio.CancelScope(shield=True):
                    await self.device.unlink(self, tell)


class AsyncDevice:
    """An open binder device of a trio program; made by ``open_device``."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        map_size: int,
        max_threads: int,
        max_calls: int,
        *,
        reconnect: bool,
    ) -> None:
        self.handlers: trio.Nursery | None = None  # where tasks handle incoming calls
        self._token = trio.lowlevel.current_trio_token()
        self._calls = trio.CapacityLimiter(max_calls)
        self._closing = False
        self._changed = trio.Event()  # the device has gone or is back, since somebody waits
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
        await trio.sleep_forever()

    # Outgoing calls

    async def transact(
        self, session: Session, handle: int, code: int, data: Parcel, flags: int
    ) -> Parcel:
        """Send a transaction and wait for its reply; ``AsyncProxy.call`` is the way to use it."""
        home = _current_home.get()
        if home is not None and home.is_free:
            return await home.transact(session, self._token, handle, code, data, flags)
        ticket = Ticket()
        try:
            reply: Parcel = await _run_in_thread_that_may_be_left(
                session.transact, handle, code, data, flags, ticket, limiter=self._calls
            )
            return reply
        except trio.Cancelled:
            ticket.cancelled = True
            session.wake_all()  # so that the waiting thread looks at its ticket
            raise

    async def link(self, proxy: AsyncProxy, callback: Callable[[RemoteObject], object]) -> None:
        """Have ``callback`` called, in another thread, when the object's process is gone."""
        await trio.to_thread.run_sync(proxy.session.link_to_death, proxy, callback)

    async def unlink(self, proxy: AsyncProxy, callback: Callable[[RemoteObject], object]) -> bool:
        """Take back ``link``."""
        return await trio.to_thread.run_sync(proxy.session.unlink_to_death, proxy, callback)

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
        """Have ``callback(device)`` called in the trio thread each time the driver goes."""
        self._device.on_gone(lambda _device: self.run_soon(callback))

    def on_back(self, callback: Callable[[AsyncDevice], object]) -> None:
        """Have ``callback(device)`` called in the trio thread each time the device is back."""
        self._device.on_back(lambda _device: self.run_soon(callback))

    async def wait_gone(self) -> None:
        """Return when the driver is gone; at once if it is now."""
        await trio.lowlevel.checkpoint()
        while not self.gone:
            await self._changed.wait()

    async def wait_back(self) -> None:
        """Return when the device can be used; at once if nothing is wrong.

        Raises:
            DeviceGone: the driver is gone and will not be back.
        """
        await trio.lowlevel.checkpoint()
        while self.gone:
            if not self.reconnects:
                raise self._device.session.driver.gone_error()
            await self._changed.wait()

    def offering(self, name: str, offer: Offer) -> contextlib.AbstractContextManager[None]:
        """See ``Recovery.offering``."""
        return self._device.recovery.offering(name, offer)

    def run_soon(self, callback: Callable[[AsyncDevice], object]) -> None:
        """Have ``callback(device)`` called in the trio thread, from whichever thread this is."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(callback, self)

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # Incoming calls

    def _hand_over(self, service: Service, delivery: Delivery, data: Parcel, reply: Parcel) -> None:
        """Have a task handle a call; runs in the thread that received it, until it is handled."""
        home = _Home()
        try:
            self._token.run_sync_soon(self._start_task, home, service, delivery, data, reply)
        except trio.RunFinishedError:
            raise _closed() from None
        home.work()

    def _start_task(
        self, home: _Home, service: Service, delivery: Delivery, data: Parcel, reply: Parcel
    ) -> None:
        if self._closing or self.handlers is None:
            home.done(_closed())
        else:
            self.handlers.start_soon(self._handle, home, service, delivery, data, reply)

    async def _handle(
        self, home: _Home, service: Service, delivery: Delivery, data: Parcel, reply: Parcel
    ) -> None:
        error: Exception | None = _closed()
        one_way = bool(delivery.flags & TF_ONE_WAY)
        _current_home.set(home)
        set_caller(Caller(delivery.sender_pid, delivery.sender_euid, one_way))
        try:
            result = dispatch(service, delivery.code, data, reply, delivery.flags)
            if result is not None:
                await result
            error = None
        except Exception as failure:
            error = failure
        finally:
            home.done(error)

    # Lifetime

    async def aclose(self) -> None:
        """End all handlers and close the device; idempotent, cannot be cancelled."""
        self._closing = True
        if self.handlers is not None:
            self.handlers.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._device.close, limiter=trio.CapacityLimiter(1))


class _Home:
    """The thread that received a call, while a task handles it: it makes the task's own calls.

    ``work`` runs in that thread, everything else in the trio thread.
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

    async def transact(
        self,
        session: Session,
        token: trio.lowlevel.TrioToken,
        handle: int,
        code: int,
        data: Parcel,
        flags: int,
    ) -> Parcel:
        """Make a call from this thread; not cancelled before its outcome is known."""
        await trio.lowlevel.checkpoint_if_cancelled()
        outcome: list[Parcel | BaseException] = []
        over = trio.Event()

        def job() -> None:
            try:
                outcome.append(session.transact(handle, code, data, flags))
            except BaseException as error:
                outcome.append(error)
            token.run_sync_soon(over.set)

        self._is_busy = True
        try:
            self._jobs.put(job)
            with trio.CancelScope(shield=True):
                await over.wait()
        finally:
            self._is_busy = False
        (result,) = outcome
        if isinstance(result, BaseException):
            raise result
        return result

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
