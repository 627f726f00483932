# SPDX-License-Identifier: Apache-2.0
"""``Session``: one open of a device file, and all that this process has through it.

Everything that a session gave out (proxies, received parcels) belongs to it and ends with it.  The
driver can go at any time; the first thread that notices makes the session ``gone``, for good.

This file holds no protocol knowledge: what to write and what a read means is in ``connection``.  It
must not know that a device can come back.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import queue
import threading
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from binderclient import android
from binderclient.connection import Connection, Delivery, Incoming, SpawnLooper
from binderclient.deaths import Obituary
from binderclient.driver import open_driver
from binderclient.errors import (
    CallAbandoned,
    CallTimeout,
    DeadObject,
    DeviceError,
    DeviceGone,
    FailedTransaction,
    FrozenObject,
    MisuseError,
    ParcelError,
    RemoteException,
)
from binderclient.faults import answer_to, error_reply
from binderclient.objects import Caller, RemoteObject, Service, check_status
from binderclient.parcel import Parcel
from binderclient.pool import ThreadPool
from binderclient.received import ReceivedParcels
from binderclient.threads import BinderThread, always
from binderclient.tokens import interface_named
from binderclient.workers import HELPERS, outcome_of, result_of
from binderwire.binder_abi import (
    BINDER_GET_NODE_INFO_FOR_REF,
    BINDER_SET_CONTEXT_MGR,
    BINDER_SET_CONTEXT_MGR_EXT,
    BINDER_TYPE_BINDER,
    BINDER_TYPE_HANDLE,
    FLAT_BINDER_FLAG_ACCEPTS_FDS,
    TF_CLEAR_BUF,
    TF_ONE_WAY,
    TF_STATUS_CODE,
    binder_node_info_for_ref,
    flat_binder_object,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderclient.connection import Event
    from binderclient.deadlines import Ticket
    from binderclient.ibinder import IBinder

    RunHandler = Callable[[Service, Delivery, Parcel, Parcel], None]

# A reply at least this large goes back to the driver at once; a smaller one with the next write of
# its thread, which saves an ioctl per call.
FREE_AT_ONCE_BYTES: Final = 64 << 10

_TOKEN_MAX: Final = 1024  # bytes of a request that are looked at for its interface's name
_LOWEST_PRIORITY: Final = 19  # a nice value: callers do not slow a service down, as on Android
_log: Final = logging.getLogger("binderclient")


class Session:
    """An open device file.

    Args:
        path, map_size, max_threads: see ``Device``.
        make_proxy: builds the proxy of a handle.
        run_handler: has a service handle a call, in the thread that received it.
        on_gone: called once when the driver is found gone, with the deaths that are to be told; in
            whichever thread noticed, so it must not run any of the program's own code.

    Raises:
        DeviceError: the device cannot be used.
    """

    def __init__(
        self,
        path: str,
        map_size: int,
        max_threads: int,
        make_proxy: Callable[[int, Session], RemoteObject],
        run_handler: RunHandler,
        on_gone: Callable[[Session, list[Obituary]], None],
    ) -> None:
        self.path = path
        self.driver = open_driver(path, map_size)
        self.gone = self.closed = self._forked = self._is_manager = False
        # Reentrant: a finalizer of the program's own may run inside of it and make calls.
        self.lock = threading.RLock()
        self._connection: Connection[RemoteObject] = Connection(
            lambda handle: make_proxy(handle, self)
        )
        self._run_handler = run_handler
        self._on_gone = on_gone
        self._local = threading.local()
        self._received = ReceivedParcels(self.driver)
        self.pool = ThreadPool(self)
        self.driver.on_gone = self._lost
        try:
            self.driver.set_max_threads(max_threads)
        except OSError:
            self.driver.close()
            raise

    # Calls

    def proxy(self, handle: int) -> RemoteObject:
        """Return the proxy of a handle that the driver gave to this process.

        Raises:
            MisuseError: handle 0, and this process is the context manager (statement E6).
        """
        if handle == 0 and self._is_manager:
            raise MisuseError("the context manager cannot call itself through handle 0")
        thread = self.thread()
        with self.lock:
            before = len(thread.state.data_to_write())
            proxy: RemoteObject = thread.state.proxy(handle)
            is_new = len(thread.state.data_to_write()) > before
        if is_new:
            # At once: from now on any thread may free the buffer that brought the handle.
            self.exchange(thread, read=False)
        return proxy

    def transact(
        self, handle: int, code: int, data: Parcel, flags: int, ticket: Ticket | None = None
    ) -> Parcel:
        """Send a transaction and wait for its reply; ``Proxy.call`` is the way to use it.

        If waiting ends with an exception of this process (KeyboardInterrupt, the device is closed,
        ``ticket`` is given up), the thread leaves the driver: the object's reply goes nowhere,
        and the thread can make new calls.  As that would also leave its own callers without their
        replies, a thread that serves has a call with a ticket made by another one.

        Raises:
            DeviceGone: the driver is gone, or goes meanwhile.
            CallTimeout: the ticket's time is up.
        """
        try:
            thread = self.thread()
        except DeviceError:
            if ticket is not None:
                ticket.end()
            raise
        if ticket is None:
            return self._transact(thread, handle, code, data, flags, self._is_open)
        if thread.state.serving or thread.state.is_looper:
            return self._transact_elsewhere(handle, code, data, flags, ticket)
        is_wanted = partial(self._is_wanted, ticket)
        ticket.begin(self.wake_all)
        try:
            return self._transact(thread, handle, code, data, flags, is_wanted)
        except CallAbandoned:
            if ticket.is_late:
                raise late(ticket, code, data) from None
            raise
        finally:
            ticket.end()

    def _is_open(self) -> bool:
        return not self.closed

    def _is_wanted(self, ticket: Ticket) -> bool:
        return not (self.closed or ticket.is_given_up)

    def _transact(
        self,
        thread: BinderThread,
        handle: int,
        code: int,
        data: Parcel,
        flags: int,
        go_on: Callable[[], bool],
    ) -> Parcel:
        call = thread.call(data, self, handle, code, flags)
        is_sent = False
        try:
            while call.outcome is None:
                if not go_on():
                    if is_sent:  # a reply to somebody who called back may still have to be written
                        self.exchange(thread, read=False)
                    self._give_up()
                is_sent = True
                for event in thread.exchange(read=True, go_on=go_on):
                    self._handle(thread, event)
        except BaseException:
            if call.outcome is None:
                thread.abandon()
            raise
        if thread.state.owes_answer:
            self.exchange(thread, read=False)
        if handle == 0 and isinstance(call.outcome, DeadObject):
            with self.lock:
                thread.state.found_vacant()
        return self._result(call.outcome)

    def _transact_elsewhere(
        self, handle: int, code: int, data: Parcel, flags: int, ticket: Ticket
    ) -> Parcel:
        outcome: queue.SimpleQueue[Parcel | BaseException] = queue.SimpleQueue()
        transact = partial(self.transact, handle, code, data, flags, ticket)
        HELPERS.put(lambda: outcome.put(outcome_of(transact)))
        try:
            found = outcome.get()
        except BaseException:
            ticket.give_up()
            raise
        return result_of(found)

    def _give_up(self) -> NoReturn:
        self._check_usable()
        raise CallAbandoned("its caller gave up waiting")

    def _result(self, outcome: Delivery | Exception | int) -> Parcel:
        if isinstance(outcome, Delivery):
            reply = self._received.wrap(outcome, self)
            if outcome.flags & TF_STATUS_CODE:
                check_status(outcome.flags, reply)
            return reply
        if isinstance(outcome, CallAbandoned):
            raise outcome
        if isinstance(outcome, FailedTransaction):
            raise FailedTransaction(self.driver.failure_reason())
        if isinstance(outcome, DeadObject):
            raise DeadObject("the process of the called object is gone")
        if isinstance(outcome, FrozenObject):
            raise FrozenObject("the process of the called object is frozen")
        return Parcel()  # one-way: the driver has it

    def link_to_death(
        self, proxy: RemoteObject, callback: Callable[[RemoteObject], object]
    ) -> None:
        """See ``Proxy.link_to_death``."""
        thread = self.thread()
        with self.lock:
            self._check_usable()
            thread.state.link_to_death(proxy, callback)
        with contextlib.suppress(DeviceGone):  # then ``callback`` is among those that are told
            self.exchange(thread, read=False)

    def unlink_to_death(
        self, proxy: RemoteObject, callback: Callable[[RemoteObject], object]
    ) -> bool:
        """See ``Proxy.unlink_to_death``."""
        with contextlib.suppress(DeviceGone):
            thread = self.thread()
            with self.lock:
                found = thread.state.unlink_to_death(proxy, callback)
            self.exchange(thread, read=False)
            return found
        return False

    def strong_count(self, handle: int) -> int | None:
        """Return how many hold an object strongly, this process and calls that carry it included.

        Returns:
            None if the driver does not tell: it tells the context manager only.
        """
        argument = bytearray(binder_node_info_for_ref.pack(handle, 0, 0, 0, 0, 0))
        try:
            self.driver.control(BINDER_GET_NODE_INFO_FOR_REF, argument)
        except OSError:
            return None
        return int(binder_node_info_for_ref.unpack_from(argument, 0)[1])

    def flush(self) -> None:
        """See ``Device.flush``."""
        self.exchange(self.thread(), read=False)

    # Serving

    def become_context_manager(self, service: Service) -> None:
        """See ``Device.become_context_manager``."""
        self._check_usable()
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
                errno.EPERM: "another user was context manager before, or manager-uid names others",
            }.get(number, "cannot become context manager")
            raise DeviceError(number, message, self.path) from None
        self._is_manager = True

    def _set_manager(self, service: Service, *, plain: bool) -> None:
        nodes = self._connection.nodes
        with self.lock:
            number = nodes.export_as_manager(service, plain=plain)
        request, argument = BINDER_SET_CONTEXT_MGR, bytes(4)
        if not plain:
            request = BINDER_SET_CONTEXT_MGR_EXT
            argument = flat_binder_object.pack(
                BINDER_TYPE_BINDER, _node_flags(service), number, number
            )
        try:
            self.driver.control(request, bytearray(argument))
        except OSError:
            with self.lock:
                nodes.settle(number)
            raise

    def _serve(self, thread: BinderThread, delivery: Delivery) -> None:
        data = self._received.wrap(delivery, self)
        reply, flags = self._answer(delivery, data)
        try:
            data.close()
        except ParcelError as error:
            _log.error("code %#x keeps using its request: %s", delivery.code, error)
        if delivery.flags & TF_ONE_WAY or not thread.state.serving:
            return  # in the latter case the thread has left the driver, which has told the caller
        flags |= delivery.flags & TF_CLEAR_BUF
        try:
            thread.reply(reply, self, flags)
        except DeviceError:
            raise
        except Exception as error:  # what the program has put into it, and as faulty as it may be
            _log.error("the reply to code %#x cannot be sent: %s", delivery.code, error)
            reply, status_flags = error_reply(RemoteException(status=android.STATUS_BAD_VALUE))
            thread.reply(reply, self, status_flags)

    def _answer(self, delivery: Delivery, data: Parcel) -> tuple[Parcel, int]:
        service = self._connection.nodes.find(delivery.target)
        if service is None:
            return error_reply(RemoteException(status=android.STATUS_DEAD_OBJECT))
        reply = Parcel()
        try:
            self._run_handler(service, delivery, data, reply)
        except BaseException as error:
            # In the main thread KeyboardInterrupt and SystemExit are the program's; in one of ours
            # they would end just that, and leave the service without anybody who serves.
            is_main = threading.current_thread() is threading.main_thread()
            if is_main and not isinstance(error, Exception):
                raise
            return answer_to(error, service, delivery.code, caller_of(delivery))
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

    def look_at(self, address: int, size: int) -> memoryview:
        """See ``contents.Owner``."""
        return self.driver.view(address, size)

    def free_buffer(self, address: int, descriptors: Sequence[int]) -> None:
        """See ``contents.Owner``."""
        size = self._received.forget(address, descriptors)
        if size is None or self.gone or self.closed:
            return
        self._connection.free_buffer(address)
        if size >= FREE_AT_ONCE_BYTES:
            with contextlib.suppress(DeviceGone):
                thread = self.thread()
                # While a caller waits, its reply comes first, and takes this along.
                if not thread.state.serving:
                    self.exchange(thread, read=False)

    def drop_buffer(self, address: int, descriptors: Sequence[int]) -> None:
        """See ``contents.Owner``."""
        if self._received.forget(address, descriptors) is not None:
            self._connection.free_buffer(address)

    # Threads and events

    def _check_usable(self) -> None:
        if self._forked:
            message = "opened before a fork: open it again in the child"
            raise DeviceError(errno.EBADF, message, self.path)
        if self.closed:
            raise DeviceError(errno.EBADF, "it was closed", self.path)
        if self.gone:
            raise self.driver.gone_error()

    def thread(self) -> BinderThread:
        """Return the calling thread's conversation with the driver.

        Raises:
            DeviceError: closed, inherited by fork; DeviceGone, the driver is gone.
        """
        if self.gone or self.closed or self._forked:
            self._check_usable()
        thread: BinderThread | None = getattr(self._local, "thread", None)
        if thread is None:
            thread = BinderThread(self.driver, self._connection, self.lock)
            self._local.thread = thread
        return thread

    def leave(self, thread: BinderThread) -> None:
        """Have the calling thread leave the driver."""
        self._local.thread = None
        thread.leave()

    def exchange(
        self, thread: BinderThread, *, read: bool, go_on: Callable[[], bool] = always
    ) -> None:
        """Write what is queued and, if ``read``, wait for something and deal with it.

        Args, raises: see ``BinderThread.exchange``.
        """
        for event in thread.exchange(read=read, go_on=go_on):
            self._handle(thread, event)

    def _handle(self, thread: BinderThread, event: Event) -> None:
        if isinstance(event, Incoming):
            if self.pool.is_owed:
                self.pool.grow()
            self._serve(thread, event.delivery)
        elif isinstance(event, SpawnLooper):
            self.pool.grow()
        elif isinstance(event, Obituary):
            event.tell()
        # Unreferenced: falling out of scope is all there is to do, and here no lock is held.

    # Lifetime

    def _lost(self) -> None:
        """Note that the driver is gone; called by ``Driver``, of several threads at a time."""
        with self.lock:
            if self.gone:
                return
            self.gone = True
            # What nobody needs any more falls out of scope below, where no lock is held.
            events = self._connection.lost()
        # The file is closed at once, even if proxies are kept: the dead mount has one user less.
        self.driver.close()
        self._on_gone(self, [event for event in events if isinstance(event, Obituary)])

    def wake_all(self) -> None:
        """Make every thread that waits look whether it is still wanted."""
        self.driver.wake_all()

    def close(self) -> None:
        """See ``Device.close``."""
        if self.closed or self._forked:
            return
        self.closed = True
        self.pool.stop()
        self.pool.wait_ended()
        self._local.thread = None
        self._received.close()
        self.driver.wake_all()
        self.driver.close()

    def forget(self) -> None:
        """See ``Device.forget``."""
        if not self.closed:
            self._forked = True
            self._received.disown()
            self.driver.forget()


def caller_of(delivery: Delivery) -> Caller:
    """Return who has sent a call."""
    return Caller(delivery.sender_pid, delivery.sender_euid, bool(delivery.flags & TF_ONE_WAY))


def late(ticket: Ticket, code: int, data: Parcel, *, sent: bool = True) -> CallTimeout:
    """Return what is raised when the time for a call is up."""
    name = interface_named(Parcel(bytes(data)[:_TOKEN_MAX]))
    return CallTimeout(ticket.seconds or 0, name, code, sent=sent)


def _node_flags(service: Service) -> int:
    return _LOWEST_PRIORITY | FLAT_BINDER_FLAG_ACCEPTS_FDS * service.accepts_descriptors
