# SPDX-License-Identifier: Apache-2.0
"""``Device``: binder for programs with threads.

Theory of operation.  The driver knows threads: each has a transaction stack of its own, and a reply
must come from the thread that got the call.  So the first thing a thread does with a device gives
it a ``BinderThread`` of its own, which leaves the driver when the thread ends.  A thread that waits
for a reply serves the calls that come back to it meanwhile.  Threads that serve all others are the
pool: one that the program starts, and as many more, up to ``max_threads``, as the driver asks for
when all of them are busy.

This file holds no protocol knowledge: what to write and what a read means is in ``connection``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, NoReturn

from binderclient import android
from binderclient.connection import Connection, Delivery, Incoming, SpawnLooper
from binderclient.deaths import Obituary
from binderclient.driver import Driver
from binderclient.errors import (
    BinderError,
    CallAbandoned,
    DeadObject,
    DeviceError,
    FailedTransaction,
    FrozenObject,
    MisuseError,
    ParcelError,
    RemoteException,
)
from binderclient.objects import (
    Caller,
    IBinder,
    Proxy,
    RemoteObject,
    Service,
    check_status,
    dispatch,
    error_reply,
    reset_caller,
    set_caller,
)
from binderclient.parcel import Parcel
from binderclient.threads import BinderThread
from binderwire.binder_abi import (
    BINDER_SET_CONTEXT_MGR,
    BINDER_SET_CONTEXT_MGR_EXT,
    BINDER_TYPE_BINDER,
    BINDER_TYPE_HANDLE,
    FLAT_BINDER_FLAG_ACCEPTS_FDS,
    TF_CLEAR_BUF,
    TF_ONE_WAY,
    flat_binder_object,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from binderclient.connection import Event

DEFAULT_PATH: Final = "/dev/binderfs/binder"
DEFAULT_MAP_SIZE: Final = (1 << 20) - (8 << 10)  # what Android's libbinder maps
DEFAULT_MAX_THREADS: Final = 15  # likewise

# A reply at least this large goes back to the driver at once; a smaller one with the next write of
# its thread, which saves an ioctl per call.
FREE_AT_ONCE_BYTES: Final = 64 << 10

# How long ``Device.close`` waits for handlers.
CLOSE_SECONDS: Final = 5.0

_LOWEST_PRIORITY: Final = 19  # a nice value: callers do not slow a service down, as on Android
_RETRY_SECONDS: Final = 0.05  # between two attempts to wake threads at close
_log: Final = logging.getLogger("binderclient")


class Ticket:
    """A call that another thread may give up for its caller."""

    __slots__ = ("cancelled",)

    def __init__(self) -> None:
        self.cancelled = False


class Device:
    """An open binder device; one per process is the custom, several are possible.

    Args:
        path: the device file.
        map_size: bytes of the receive area: the room for all requests and replies that this
            process holds at a time, one-way calls getting half of it.  At most 4 MiB.
        max_threads: how many serving threads the driver may ask for, beside those the program
            starts.
        make_proxy, run_handler: for other flavours of this class; see ``binderclient.trio``.

    Use it in a ``with`` statement.  All methods may be called from any thread.  After a fork the
    child cannot use it (DeviceError) and has no part in it: its copy of the file is closed.

    Raises:
        DeviceError: the device cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = DEFAULT_PATH,
        *,
        map_size: int = DEFAULT_MAP_SIZE,
        max_threads: int = DEFAULT_MAX_THREADS,
        make_proxy: Callable[[int], RemoteObject] | None = None,
        run_handler: Callable[[Service, Delivery, Parcel, Parcel], None] | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._driver = Driver(self.path, map_size)
        self._driver.set_max_threads(max_threads)
        self._connection: Connection[RemoteObject] = Connection(make_proxy or self._make_proxy)
        self._run_handler = run_handler or _run_handler
        self._local = threading.local()
        # Reentrant: a finalizer of the program's own may run inside of it and make calls.
        self._lock = threading.RLock()
        self._loopers: list[threading.Thread] = []
        self._received: dict[int, tuple[weakref.ref[Parcel], int]] = {}  # by buffer address
        self._serving = self._stopping = self._closed = self._forked = self._is_manager = False
        _devices.add(self)

    def _make_proxy(self, handle: int) -> RemoteObject:
        return Proxy(handle, self)

    # Calls

    @property
    def context_manager(self) -> Proxy:
        """The proxy of handle 0: the service manager, if one is running.

        Raises:
            MisuseError: this process is the context manager.
        """
        proxy = self.proxy(0)
        if not isinstance(proxy, Proxy):
            raise MisuseError(f"{proxy!r} cannot block; ask the flavour that made it")
        return proxy

    def proxy(self, handle: int) -> RemoteObject:
        """Return the proxy of a handle that the driver gave to this process.

        Raises:
            MisuseError: handle 0, and this process is the context manager (behaviours E6).
        """
        if handle == 0 and self._is_manager:
            raise MisuseError("the context manager cannot call itself through handle 0")
        thread = self._thread()
        with self._lock:
            before = len(thread.state.data_to_write())
            proxy: RemoteObject = thread.state.proxy(handle)
            is_new = len(thread.state.data_to_write()) > before
        if is_new:
            # At once: from now on any thread may free the buffer that brought the handle.
            self._exchange(thread, read=False)
        return proxy

    def transact(
        self, handle: int, code: int, data: Parcel, flags: int, ticket: Ticket | None = None
    ) -> Parcel:
        """Send a transaction and wait for its reply; ``Proxy.call`` is the way to use it.

        If waiting ends with an exception of this process (KeyboardInterrupt, the device is closed,
        ``ticket`` is cancelled), the thread leaves the driver: the object's reply goes nowhere,
        and the thread can make new calls.
        """
        thread = self._thread()

        def go_on() -> bool:
            return not (self._closed or (ticket is not None and ticket.cancelled))

        call = thread.send(data, self, lambda sent: thread.state.call(handle, code, flags, sent))
        try:
            while call.outcome is None:
                if not go_on():
                    self._give_up()
                self._exchange(thread, read=True, go_on=go_on)
        except BaseException:
            if call.outcome is None:
                thread.abandon()
            raise
        if thread.state.owes_answer:
            self._exchange(thread, read=False)
        return self._result(call.outcome)

    def _give_up(self) -> NoReturn:
        if self._closed:
            raise DeviceError(errno.EBADF, "it was closed", self.path)
        raise CallAbandoned("its caller gave up waiting")

    def _result(self, outcome: Delivery | Exception | int) -> Parcel:
        if isinstance(outcome, Delivery):
            reply = self._wrap(outcome)
            check_status(outcome.flags, reply)
            return reply
        if isinstance(outcome, FailedTransaction):
            raise FailedTransaction(self._driver.failure_reason())
        if isinstance(outcome, DeadObject):
            raise DeadObject("the process of the called object is gone")
        if isinstance(outcome, FrozenObject):
            raise FrozenObject("the process of the called object is frozen")
        return Parcel()  # one-way: the driver has it

    def link_to_death(
        self, proxy: RemoteObject, callback: Callable[[RemoteObject], object]
    ) -> None:
        """See ``Proxy.link_to_death``."""
        thread = self._thread()
        with self._lock:
            thread.state.link_to_death(proxy, callback)
        self._exchange(thread, read=False)

    def unlink_to_death(
        self, proxy: RemoteObject, callback: Callable[[RemoteObject], object]
    ) -> bool:
        """See ``Proxy.unlink_to_death``."""
        thread = self._thread()
        with self._lock:
            found = thread.state.unlink_to_death(proxy, callback)
        self._exchange(thread, read=False)
        return found

    def flush(self) -> None:
        """Hand back now what this thread and garbage collection would hand back with a later write.

        Replies that were closed and proxies that were dropped travel with the next thing that is
        written anyway; a program that is about to be quiet for long may want to call this.
        """
        self._exchange(self._thread(), read=False)

    # Serving

    def become_context_manager(self, service: Service) -> None:
        """Make ``service`` the object behind handle 0 of this device.

        Raises:
            DeviceError: EBUSY if there is one already, EPERM if another user was it before.
        """
        try:
            try:
                self._set_manager(service, plain=False)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # A driver from before BINDER_SET_CONTEXT_MGR_EXT.
                self._set_manager(service, plain=True)
        except DeviceError:
            raise
        except OSError as error:
            number = error.errno or 0
            message = {
                errno.EBUSY: "there is a context manager already",
                errno.EPERM: "another user was context manager before",
            }.get(number, "cannot become context manager")
            raise DeviceError(number, message, self.path) from None
        self._is_manager = True

    def _set_manager(self, service: Service, *, plain: bool) -> None:
        nodes = self._connection.nodes
        with self._lock:
            number = nodes.export_as_manager(service, plain=plain)
        request, argument = BINDER_SET_CONTEXT_MGR, bytes(4)
        if not plain:
            request = BINDER_SET_CONTEXT_MGR_EXT
            argument = flat_binder_object.pack(
                BINDER_TYPE_BINDER, _node_flags(service), number, number
            )
        try:
            self._driver.control(request, bytearray(argument))
        except OSError:
            with self._lock:
                nodes.settle(number)
            raise

    def start_thread_pool(self) -> None:
        """Serve in the background: start the first thread of the pool; idempotent."""
        self._thread()
        with self._lock:
            if not self._serving:
                self._serving = True
                self._start_looper(register=False)

    def join_thread_pool(self) -> None:
        """Serve in the calling thread, until ``stop``."""
        self._serving = True
        self._loop(register=False)

    def wake_all(self) -> None:
        """Make every thread that waits look whether it is still wanted."""
        if not self._closed:
            self._driver.wake_all()

    def stop(self) -> None:
        """End ``join_thread_pool`` and the pool's threads, each after the call it is serving.

        Safe in a signal handler.  Calls can still be made until ``close``.
        """
        self._stopping = True
        self._driver.wake_all()

    def _start_looper(self, *, register: bool) -> None:
        looper = threading.Thread(
            target=self._run_looper,
            kwargs={"register": register},
            name=f"binder-{len(self._loopers) + 1}",
            daemon=True,
        )
        self._loopers.append(looper)
        looper.start()

    def _run_looper(self, *, register: bool) -> None:
        try:
            self._loop(register=register)
        except BinderError as error:
            if not self._closed:
                _log.error("a serving thread ended: %s", error)

    def _loop(self, *, register: bool) -> None:
        thread = self._thread()

        def go_on() -> bool:
            return not self._stopping

        with self._lock:
            if register:
                thread.state.register_looper()
            else:
                thread.state.enter_looper()
        try:
            while go_on():
                self._exchange(thread, read=True, go_on=go_on)
            with self._lock:
                thread.state.exit_looper()
        finally:
            self._local.thread = None
            thread.leave()

    def _serve(self, thread: BinderThread, delivery: Delivery) -> None:
        data = self._wrap(delivery)
        reply, flags = self._answer(delivery, data)
        try:
            data.close()
        except ParcelError as error:
            _log.error("code %#x keeps using its request: %s", delivery.code, error)
        if delivery.flags & TF_ONE_WAY:
            return
        flags |= delivery.flags & TF_CLEAR_BUF
        try:
            thread.send(reply, self, lambda payload: thread.state.reply(flags, payload))
        except ParcelError as error:
            reply, status_flags = error_reply(error)
            thread.send(reply, self, lambda payload: thread.state.reply(status_flags, payload))

    def _answer(self, delivery: Delivery, data: Parcel) -> tuple[Parcel, int]:
        service = self._connection.nodes.find(delivery.target)
        reply = Parcel()
        try:
            if service is None:
                raise RemoteException(status=android.STATUS_DEAD_OBJECT)
            self._run_handler(service, delivery, data, reply)
        except Exception as error:
            return error_reply(error)
        return reply, 0

    # Objects in parcels; see contents.Numbering and contents.Owner

    def flatten(self, binder: IBinder, exported: list[int]) -> tuple[int, int, int, int]:
        """See ``contents.Numbering``."""
        if isinstance(binder, Service):
            number = self._connection.nodes.export(binder)
            exported.append(number)
            return BINDER_TYPE_BINDER, _node_flags(binder), number, number
        if not isinstance(binder, RemoteObject):
            raise ParcelError(f"{binder!r} is neither a Service nor a Proxy")
        if not self._connection.handles.owns(binder, binder.handle):
            raise ParcelError(f"{binder!r} is of another device, or dead")
        return BINDER_TYPE_HANDLE, 0, binder.handle, 0

    def resolve(self, kind: int, binder: int, cookie: int) -> IBinder:
        """See ``contents.Owner``."""
        if kind == BINDER_TYPE_HANDLE:
            return self.proxy(binder & 0xFFFFFFFF)
        service = self._connection.nodes.find(binder) if kind == BINDER_TYPE_BINDER else None
        if service is None:
            raise ParcelError(f"an object of type {kind:#x}, number {binder}, cookie {cookie}")
        return service

    def _wrap(self, delivery: Delivery) -> Parcel:
        view = self._driver.view(delivery.buffer, delivery.data_size)
        offsets: Sequence[int] = ()
        if delivery.offsets_size:
            table = self._driver.view(delivery.offsets, delivery.offsets_size)
            offsets = table.cast("Q").tolist()
        parcel = Parcel(view, offsets=offsets, owner=self, address=delivery.buffer)
        self._received[delivery.buffer] = (weakref.ref(parcel), delivery.data_size)
        return parcel

    def free_buffer(self, address: int, descriptors: Sequence[int]) -> None:
        """See ``contents.Owner``."""
        if self._closed or self._forked:
            return
        _close_all(descriptors)
        _parcel, size = self._received.pop(address)
        self._connection.free_buffer(address)
        if size >= FREE_AT_ONCE_BYTES:
            thread = self._thread()
            # While a caller waits, its reply comes first, and takes this along.
            if not thread.state.serving:
                self._exchange(thread, read=False)

    def drop_buffer(self, address: int, descriptors: Sequence[int]) -> None:
        """See ``contents.Owner``."""
        if not self._closed and not self._forked:
            _close_all(descriptors)
            self._received.pop(address, None)
            self._connection.free_buffer(address)

    # Threads and events

    def _thread(self) -> BinderThread:
        if self._forked:
            message = "opened before a fork: open it again in the child"
            raise DeviceError(errno.EBADF, message, self.path)
        if self._closed:
            raise DeviceError(errno.EBADF, "it was closed", self.path)
        thread: BinderThread | None = getattr(self._local, "thread", None)
        if thread is None:
            thread = BinderThread(self._driver, self._connection, self._lock)
            self._local.thread = thread
        return thread

    def _exchange(
        self, thread: BinderThread, *, read: bool, go_on: Callable[[], bool] | None = None
    ) -> None:
        events = thread.exchange(read=read, go_on=go_on or (lambda: True))
        for event in events:
            self._handle(thread, event)

    def _handle(self, thread: BinderThread, event: Event) -> None:
        if isinstance(event, Incoming):
            self._serve(thread, event.delivery)
        elif isinstance(event, SpawnLooper):
            with self._lock:
                if not self._stopping:
                    self._start_looper(register=True)
        elif isinstance(event, Obituary):
            for callback in event.callbacks:
                try:
                    callback(event.proxy)
                except Exception:
                    _log.exception("a death callback failed")
        # Unreferenced: falling out of scope is all there is to do, and here no lock is held.

    # Lifetime

    def close(self) -> None:
        """End everything: serving threads, open parcels, the mapping, the file; idempotent.

        Calls that are being served get up to CLOSE_SECONDS to finish and reply; calls that any
        thread has outstanding end with DeviceError.  To the driver this process dies here: the
        objects it served are dead to their users.
        """
        if self._closed or self._forked:
            return
        self._stopping = self._closed = True
        self._driver.wake_all()
        self._join_loopers()
        self._local.thread = None
        for parcel, _size in list(self._received.values()):
            alive = parcel()
            if alive is not None:
                with contextlib.suppress(ParcelError):
                    alive.close()
        self._driver.wake_all()
        self._driver.close()

    def _join_loopers(self) -> None:
        deadline = time.monotonic() + CLOSE_SECONDS
        for looper in self._loopers:
            while looper.is_alive() and looper is not threading.current_thread():
                looper.join(_RETRY_SECONDS)
                if time.monotonic() > deadline:
                    _log.warning("%s still handles a call of a closed device", looper.name)
                    return
                # A thread that was on its way into a read did not notice the last time.
                self._driver.wake_all()

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
        if not self._closed:
            self._forked = True
            self._driver.close()


def _node_flags(service: Service) -> int:
    return _LOWEST_PRIORITY | FLAT_BINDER_FLAG_ACCEPTS_FDS * service.accepts_descriptors


def _run_handler(service: Service, delivery: Delivery, data: Parcel, reply: Parcel) -> None:
    one_way = bool(delivery.flags & TF_ONE_WAY)
    token = set_caller(Caller(delivery.sender_pid, delivery.sender_euid, one_way))
    try:
        result = dispatch(service, delivery.code, data, reply, delivery.flags)
    finally:
        reset_caller(token)
    if result is not None:
        if hasattr(result, "close"):
            result.close()  # a coroutine that nobody awaits would complain
        raise TypeError(f"{type(service).__name__} is asynchronous: use binderclient.trio")


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


_devices: Final[weakref.WeakSet[Device]] = weakref.WeakSet()


def _forget_all() -> None:
    for device in list(_devices):
        device.forget()


os.register_at_fork(after_in_child=_forget_all)
