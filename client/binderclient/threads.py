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
from typing import TYPE_CHECKING, Any

from binderclient.connection import Payload
from binderclient.driver import WriteRead, data_address
from binderclient.errors import BinderError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.connection import Connection, Event, OutgoingCall
    from binderclient.contents import Contents, Numbering
    from binderclient.driver import Driver


def _always() -> bool:
    return True


class BinderThread:
    """The calling thread, as the driver knows it.

    Args:
        driver: the open device.
        connection: what all threads share.
        lock: guards ``connection``; must be reentrant.

    Only the thread that made it may use it.  When a ``threading.local`` lets go of it at the end of
    its thread, it leaves the driver.
    """

    __slots__ = ("__weakref__", "_connection", "_driver", "_lock", "_tid", "_wire", "state")

    def __init__(self, driver: Driver, connection: Connection[Any], lock: threading.RLock) -> None:
        self._driver = driver
        self._connection = connection
        self._lock = lock
        self._wire = WriteRead(driver.lane())
        self._tid = threading.get_native_id()
        self.state = connection.thread()

    def __del__(self) -> None:
        # threading.local runs this in the thread that ends, as its last act.
        if self._tid == threading.get_native_id():
            self.leave()

    def send(
        self, parcel: Contents, numbers: Numbering, begin: Callable[[Payload], OutgoingCall]
    ) -> OutgoingCall:
        """Queue a transaction with the payload ``parcel``.

        Args:
            numbers: gives the parcel's objects their numbers.
            begin: ``state.call`` or ``state.reply`` with all but the payload.

        Raises:
            ParcelError, MisuseError: nothing was queued.
        """
        nodes = self._connection.nodes
        with self._lock:
            exported: list[int] = []
            try:
                pins = []
                for buffer in parcel.buffers():
                    buffer.address, buffer_pin = data_address(buffer.data)
                    pins.append(buffer_pin)
                data, offsets = parcel.payload(numbers, exported)
                address, pin = self._wire.place(data)
                table_address, table_pin = self._wire.place(offsets)
                payload = Payload(
                    address,
                    len(data),
                    table_address,
                    len(offsets),
                    tuple(exported),
                    (pin, table_pin, pins, parcel),
                    sum(len(buffer.data) + 7 & ~7 for buffer in parcel.buffers()),
                )
                return begin(payload)
            except Exception:  # not only ours: parcels have what the program has put into them
                for number in exported:
                    nodes.settle(number)
                raise

    def exchange(self, *, read: bool, go_on: Callable[[], bool] = _always) -> list[Event]:
        """Write what is queued and, if ``read``, wait for something to read.

        Args:
            go_on: asked before the wait and after a signal; if it says no, nothing is read.

        Returns:
            What came.  It must be dealt with: a delivery in it owns a buffer.

        Raises:
            DeviceError: the device was closed, or its driver is gone.
            ProtocolError: the driver refused a command, which is dropped.
        """
        with self._lock:
            commands = self.state.data_to_write()
            if not read and not commands:
                return []
            self._wire.load(commands, read=read)
        number = errno.EINTR
        try:
            if go_on():
                number = self._wire.run(self._driver, go_on)
        finally:
            with self._lock:
                if self.state.written(self._wire.write_consumed):
                    self._wire.rewind()
        if number == errno.EINTR:
            return []
        if number:
            self._driver.check_gone(number)
            name = self.state.drop_refused()
            raise ProtocolError(f"the driver refused {name} ({os.strerror(number)})")
        with self._lock:
            return self.state.receive(self._wire.returned())

    def abandon(self) -> None:
        """Leave the driver, with all calls in either direction unanswered; then start afresh.

        To the driver this thread ends here (BINDER_THREAD_EXIT): its callers get BR_DEAD_REPLY,
        and replies to its own calls go nowhere.
        """
        if self._driver.fd >= 0:
            self._driver.thread_exit()
            with self._lock:
                self.state.abandon()
            if self._tid:
                self._wire = WriteRead(self._driver.lane())

    def leave(self) -> None:
        """Hand back what is queued and leave the driver for good; never fails."""
        self._tid = 0
        if self._driver.fd >= 0:
            with contextlib.suppress(BinderError):
                self.exchange(read=False)
            self.abandon()
        self._wire = WriteRead()
