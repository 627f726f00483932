# SPDX-License-Identifier: Apache-2.0
"""``BinderThread``: one thread's conversation with the driver.

Ties together what belongs to one thread: its protocol state, the memory of its ioctls, and the
device's lock, which guards what the threads share and is never held while the driver runs.
Nothing here knows services, proxies or what to do about an event.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from binderclient.connection import Payload
from binderclient.driver import WriteRead, data_address
from binderclient.errors import BinderError, MisuseError, ProtocolError
from binderclient.sending import SendArea

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.connection import Connection, Event, OutgoingCall
    from binderclient.contents import Contents, Numbering
    from binderclient.driver import Driver


def always() -> bool:
    return True


def _never() -> bool:
    return False


def _place(data: bytearray, area: SendArea | None, pins: list[object]) -> int:
    """Return where bytes lie until they are taken; what keeps them there is added to ``pins``."""
    address = area.put(data) if area is not None else 0
    if not address:
        address, pin = data_address(data)
        pins.append(pin)
    return address


class BinderThread:
    """The calling thread, as the driver knows it.

    Args:
        driver: the open device.
        connection: what all threads share.
        lock: guards ``connection``; must be reentrant.

    Only the thread that made it may use it; while it is lent only ``call``, ``reply``, ``attempt``
    and ``keep`` may be used, and only by whom it is lent to.  When a ``threading.local`` lets go of
    it at the end of its thread, it leaves the driver.
    """

    __slots__ = (
        "__weakref__",
        "_area",
        "_connection",
        "_has_more",
        "_kept",
        "_lock",
        "_tid",
        "_wire",
        "driver",
        "is_busy",
        "is_lent",
        "state",
    )

    def __init__(self, driver: Driver, connection: Connection[Any], lock: threading.RLock) -> None:
        self._tid = 0  # there is nothing to leave if the rest fails
        # Do others use it, as the thread waits for them?  A finalizer that runs in the thread all
        # the same must not.  Only the thread itself changes this.
        self.is_lent = False
        # Does it queue a call or reply, or is it in ``exchange``?  A signal handler or finalizer
        # that runs meanwhile must not begin another one, which would be in the same memory.
        self.is_busy = False
        self._has_more = False  # has one of those queued something?
        self.driver = driver
        self._connection = connection
        self._lock = lock
        lane = driver.lane()
        self._wire = WriteRead(lane)
        self._area: SendArea | None = SendArea(lane)  # None while it is being filled
        self._kept: list[Event] = []  # that came and were not dealt with
        self._tid = threading.get_native_id()
        self.state = connection.thread()
        self.state.is_quiet = lane is not None

    def __del__(self) -> None:
        # threading.local runs this in the thread that ends, as its last act.
        if self._tid == threading.get_native_id():
            self.leave()

    def call(
        self, parcel: Contents, numbers: Numbering, handle: int, code: int, flags: int
    ) -> OutgoingCall:
        """Queue a call with the payload ``parcel``.

        Args:
            numbers: gives the parcel's objects their numbers.
            handle, code, flags: see ``ThreadState.call``.

        Raises:
            ParcelError, MisuseError: nothing was queued.
        """
        if self.is_busy:  # nobody else can make it, either: the lock may be ours
            raise MisuseError(
                "this thread is in a call already; signal handlers and finalizers have to leave "
                "calls to another thread"
            )
        return self._queue(parcel, numbers, partial(self.state.call, handle, code, flags))

    def reply(self, parcel: Contents, numbers: Numbering, flags: int) -> OutgoingCall:
        """Queue the reply to the innermost incoming call; see ``call``."""
        return self._queue(parcel, numbers, partial(self.state.reply, flags))

    def _queue(
        self, parcel: Contents, numbers: Numbering, queue: Callable[[Payload], OutgoingCall]
    ) -> OutgoingCall:
        exported: list[int] = []
        with self._lock:
            # What a finalizer or a signal handler sends meanwhile must lie elsewhere.
            area, self._area = self._area, None
            try:
                payload = self._payload(parcel, numbers, exported, area)
                self.is_busy = True  # what is half queued they must not send
                return queue(payload)
            except Exception:  # not only ours: parcels have what the program has put into them
                for number in exported:
                    self._connection.nodes.settle(number)
                raise
            finally:
                self._area = area
                self.is_busy = False

    def _payload(
        self, parcel: Contents, numbers: Numbering, exported: list[int], area: SendArea | None
    ) -> Payload:
        buffers = parcel.buffers()
        pins: list[object] = [parcel]
        for buffer in buffers:
            buffer.address, pin = data_address(buffer.data)
            pins.append(pin)
        data, offsets = parcel.payload(numbers, exported)
        if area is not None and not self.state.has_commands:
            area.clear()
        address = _place(data, area, pins)
        if not offsets:
            return Payload(address, len(data), 0, 0, (), pins)
        table_address = _place(offsets, area, pins)
        buffers_size = sum([len(buffer.data) + 7 & ~7 for buffer in buffers])
        nodes = tuple(exported)
        return Payload(address, len(data), table_address, len(offsets), nodes, pins, buffers_size)

    def exchange(self, *, read: bool, go_on: Callable[[], bool] = always) -> list[Event]:
        """Write what is queued and, if ``read``, wait for something to read.

        Args:
            go_on: asked before the wait and after a signal; if it says no, nothing is read.

        Returns:
            What came.  It must be dealt with: a delivery in it owns a buffer.  It may be more than
            was asked for, from what ``attempt`` has begun.  Nothing where the thread is in here
            already, under a signal handler or finalizer: what that has queued goes out when it is
            over.

        Raises:
            DeviceError: the device was closed, or its driver is gone.
            MisuseError: the thread is in here already, and ``read``.
            ProtocolError: the driver refused a command, which is dropped.
        """
        if self.is_busy:
            if read:
                raise MisuseError("this thread waits for the driver already")
            self._has_more = True
            return []
        try:
            self.is_busy = True
            events = self._exchange(go_on, read=read)
        finally:
            self.is_busy = False
        if self._has_more:
            self._has_more = False
            events += self.exchange(read=False)
        return events

    def _exchange(self, go_on: Callable[[], bool], *, read: bool) -> list[Event]:
        wire = self._wire
        if self._kept or wire.is_begun:
            events = self._take_up(go_on if read else _never)
            return events if read else events + self._exchange(_never, read=False)
        with self._lock:
            commands = self.state.data_to_write()
            if not read and not commands:
                return []
            wire.load(commands, read=read)
        return self._run(go_on)

    def _take_up(self, go_on: Callable[[], bool]) -> list[Event]:
        events, self._kept = self._kept, []
        return events or self._run(go_on)

    def _run(self, go_on: Callable[[], bool]) -> list[Event]:
        """Do what is loaded, or finish what is begun."""
        state, wire = self.state, self._wire
        number = errno.EINTR

        def goes_on() -> bool:
            return not self._has_more and go_on()

        try:
            if wire.is_begun or goes_on():
                number = wire.run(self.driver, goes_on)
        except BaseException:
            with self._lock:
                state.written(wire.write_consumed)
            raise
        with self._lock:
            state.written(wire.write_consumed)
            if not number:
                return state.receive(wire.returned())
        if number == errno.EINTR:
            return []
        self.driver.check_gone(number)
        name = state.drop_refused()
        raise ProtocolError(f"the driver refused {name} ({os.strerror(number)})")

    @property
    def can_attempt(self) -> bool:
        """May ``attempt`` succeed, and is it allowed?"""
        return not self._kept and self._wire.can_attempt

    @property
    def is_clear(self) -> bool:
        """Is all dealt with that came, and nothing begun?"""
        return not self._kept and not self._wire.is_begun

    def attempt(self) -> list[Event] | None:
        """Do what ``exchange`` does, with a read, if that takes but a moment.

        Returns:
            What came, as ``exchange``; None: the thread has to go on with ``exchange`` at once, as
            what was begun has nobody who waits for it.
        """
        state, wire = self.state, self._wire
        with self._lock:
            wire.load(state.data_to_write(), read=True)
        if not wire.attempt():
            return None
        with self._lock:
            state.written(wire.write_consumed)
            return state.receive(wire.returned())

    def keep(self, events: list[Event]) -> None:
        """Have the next ``exchange`` return these."""
        self._kept += events

    def abandon(self) -> None:
        """Leave the driver, with all calls in either direction unanswered; then start afresh.

        To the driver this thread ends here (BINDER_THREAD_EXIT): its callers get BR_DEAD_REPLY,
        and replies to its own calls go nowhere.
        """
        if self.driver.fd >= 0:
            self.driver.thread_exit()
            with self._lock:
                self.state.abandon()
                if self.state.is_looper:
                    self.state.enter_looper()
            if self._tid:
                lane = self.driver.lane()
                self._wire, self._area = WriteRead(lane), SendArea(lane)
                self.state.is_quiet = lane is not None

    def leave(self) -> None:
        """Hand back what is queued and leave the driver for good; never fails."""
        self._tid = 0
        if self.driver.fd >= 0:
            with contextlib.suppress(BinderError):
                self.exchange(read=False)
            self.abandon()
        self._wire, self._area = WriteRead(), SendArea()
