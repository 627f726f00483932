# SPDX-License-Identifier: Apache-2.0
"""``Device``: binder for programs with threads.

Theory of operation.  The driver knows threads: each has a transaction stack of its own, and a reply
must come from the thread that got the call.  So the first thing a thread does with a device gives
it a ``BinderThread`` of its own, which leaves the driver when the thread ends.  A thread that waits
for a reply serves the calls that come back to it meanwhile.  Threads that serve all others are the
pool.

What one open device file is, is in ``session``; what happens when its driver goes, in ``recovery``.
"""

from __future__ import annotations

import errno
import os
import sys
import weakref
from functools import partial
from typing import TYPE_CHECKING, Final

from binderclient.arguments import check_callable, check_number, check_type
from binderclient.deadlines import check_seconds
from binderclient.errors import DeviceError, DeviceGone, MisuseError
from binderclient.objects import (
    Proxy,
    RemoteObject,
    Service,
    dispatch,
    reset_caller,
    set_caller,
)
from binderclient.recovery import Recovery
from binderclient.session import Session, caller_of
from binderclient.signals import waking_for_signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from binderclient.connection import Delivery
    from binderclient.deadlines import Ticket
    from binderclient.deaths import Obituary
    from binderclient.parcel import Parcel
    from binderclient.session import RunHandler

DEFAULT_PATH: Final = "/dev/binderfs/binder"
"""The device that is opened where none is named."""
DEFAULT_MAP_SIZE: Final = (1 << 20) - (8 << 10)  # bytes of the receive area, as in libbinder
DEFAULT_MAX_THREADS: Final = 15  # as in libbinder


class Device:
    """An open binder device; one per process is the custom, several are possible.

    Args:
        path: the device file.
        map_size: bytes of the receive area: the room for all requests and replies that this
            process holds at a time, one-way calls getting half of it.  At most 4 MiB.
        max_threads: how many serving threads the driver may ask for, beside those the program
            starts.
        reconnect: come back by itself when the driver (the daemon) has gone and there is a new one
            under the same path: what this process served as context manager or had given to the
            service manager is served and registered again.  What it had got is gone for good:
            look objects up again.
        make_proxy, run_handler: for other flavours of this class; see ``binderclient.trio``.

    Use it in a ``with`` statement.  All methods may be called from any thread.  After a fork the
    child cannot use it (DeviceError) and has no part in it: its copy of the file is closed.

    When the driver goes, every call raises DeviceGone, those that are under way as well; deaths
    that were linked to are told, then ``on_gone``.

    Raises:
        DeviceError: the device cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = DEFAULT_PATH,
        *,
        map_size: int = DEFAULT_MAP_SIZE,
        max_threads: int = DEFAULT_MAX_THREADS,
        reconnect: bool = False,
        make_proxy: Callable[[int, Session], RemoteObject] = Proxy,
        run_handler: RunHandler | None = None,
    ) -> None:
        check_type("Device(): path", path, str, os.PathLike)
        check_number("Device(): map_size", map_size, 1, sys.maxsize)
        check_number("Device(): max_threads", max_threads, 0)
        self.path = os.fspath(path)
        handler = run_handler or _run_handler

        def open_session(on_gone: Callable[[Session, list[Obituary]], None]) -> Session:
            return Session(self.path, map_size, max_threads, make_proxy, handler, on_gone)

        self.recovery = Recovery(open_session, reconnect=reconnect)
        self._is_stopping = self._is_closed = False
        _devices.add(self)

    @property
    def session(self) -> Session:
        """The latest open of the file."""
        return self.recovery.session

    # Calls

    @property
    def context_manager(self) -> Proxy:
        """The proxy of handle 0: the service manager, if one is running.

        Raises:
            MisuseError: this process is the context manager.
            DeviceGone: the driver is gone.
        """
        proxy = self.proxy(0)
        if not isinstance(proxy, Proxy):
            raise MisuseError(f"{proxy!r} cannot block; ask the flavour that made it")
        return proxy

    def proxy(self, handle: int) -> RemoteObject:
        """Return the proxy of a handle that the driver gave to this process; see ``Session``."""
        check_number("proxy(): handle", handle, 0)
        return self.session.proxy(handle)

    def transact(
        self, handle: int, code: int, data: Parcel, flags: int, ticket: Ticket | None = None
    ) -> Parcel:
        """Send a transaction and wait for its reply; see ``Session``.

        ``Proxy.call`` is the way to use it, as a handle means nothing after the driver has gone.
        """
        return self.session.transact(handle, code, data, flags, ticket)

    def flush(self) -> None:
        """Hand back now what this thread and garbage collection would hand back with a later write.

        Replies that were closed and proxies that were dropped travel with the next thing that is
        written anyway; a program that is about to be quiet for long may want to call this.
        """
        self.session.flush()

    # Serving

    def become_context_manager(self, service: Service) -> None:
        """Make ``service`` the object behind handle 0 of this device.

        Raises:
            DeviceError: EBUSY if there is one already, EPERM if another user was it before.
        """
        check_type("become_context_manager(): service", service, Service)
        self.session.become_context_manager(service)
        self.recovery.context_manager = service

    def start_thread_pool(self) -> None:
        """Serve in the background: start the first thread of the pool; idempotent.

        Raises:
            DeviceGone: the driver is gone and will not be back.
        """
        self.recovery.is_serving = True
        try:
            self.session.pool.start()
        except DeviceGone:
            if not self.recovery.reconnect:
                raise

    def join_thread_pool(self) -> None:
        """Serve in the calling thread, until ``stop``.

        With ``reconnect`` it goes on when the device is back.

        Raises:
            DeviceGone: the driver is gone and will not be back.
        """
        with waking_for_signals(self.wake_all, lambda: self.session.pool.returns):
            self._serve_here()

    def _serve_here(self) -> None:
        session = self.session
        while True:
            try:
                session.pool.serve()
                return
            except DeviceGone:
                following = self.recovery.next_session(session, lambda: not self._is_stopping)
                if following is None and not self._is_stopping:
                    raise
            if following is None:
                return
            session = following

    def stop(self) -> None:
        """End ``join_thread_pool`` and the pool's threads, each after the call it is serving.

        Safe in a signal handler.  Calls can still be made until ``close``.
        """
        self._is_stopping = True
        self.recovery.is_serving = False
        self.session.pool.stop()
        self.recovery.wake()

    def wake_all(self) -> None:
        """Make every thread that waits look whether it is still wanted."""
        self.session.wake_all()

    # When the driver goes

    @property
    def gone(self) -> bool:
        """Has the driver gone, and is the device not back?"""
        return self.session.gone

    def on_gone(self, callback: Callable[[Device], object]) -> Callable[[Device], object]:
        """Have ``callback(device)`` called each time the driver goes, after the deaths were told.

        It runs in a thread of its own, at once if the driver is gone now.  Returns ``callback``, so
        that this can be used as a decorator.
        """
        check_callable("on_gone(): callback", callback)
        self.recovery.on_gone(partial(callback, self))
        return callback

    def on_back(self, callback: Callable[[Device], object]) -> Callable[[Device], object]:
        """Have ``callback(device)`` called each time the device is back (``reconnect``).

        It can be used again then, and this process serves; that its services are registered again
        may take until there is a service manager.  See ``on_gone`` for the rest.
        """
        check_callable("on_back(): callback", callback)
        self.recovery.on_back(partial(callback, self))
        return callback

    def wait_back(self, timeout: float | None = None) -> bool:
        """Wait until the device can be used; at once if nothing is wrong.

        Args:
            timeout: seconds, None for ever.

        Returns:
            False if it cannot be used after that time.

        Raises:
            DeviceGone: the driver is gone and will not be back.
            DeviceError: the device is closed.
        """
        check_seconds(timeout)
        is_back = self.recovery.wait_back(timeout)
        if self._is_closed:
            raise DeviceError(errno.EBADF, "it was closed", self.path)
        return is_back

    # Lifetime

    def close(self) -> None:
        """End everything: serving threads, open parcels, the mapping, the file; idempotent.

        Calls that are being served get up to 5 s to finish and reply; calls that any
        thread has outstanding end with DeviceError.  To the driver this process dies here: the
        objects it served are dead to their users.
        """
        self._is_stopping = self._is_closed = True
        self.recovery.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def forget(self) -> None:
        """For a forked child: drop its copy of the file, so that only the parent keeps it open."""
        self.recovery.forget()


def _run_handler(service: Service, delivery: Delivery, data: Parcel, reply: Parcel) -> None:
    token = set_caller(caller_of(delivery))
    try:
        result = dispatch(service, delivery.code, data, reply, delivery.flags)
    finally:
        reset_caller(token)
    if result is not None:
        if hasattr(result, "close"):
            result.close()  # a coroutine that nobody awaits would complain
        name = type(service).__name__
        raise TypeError(f"{name} is asynchronous: use binderclient.trio or binderclient.aio")


_devices: Final[weakref.WeakSet[Device]] = weakref.WeakSet()


def _forget_all() -> None:
    for device in list(_devices):
        device.forget()


os.register_at_fork(after_in_child=_forget_all)
