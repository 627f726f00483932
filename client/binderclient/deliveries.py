# SPDX-License-Identifier: Apache-2.0
"""``Deliveries``: descriptors that come through a socket of our own (docs/EXTENSION.md).

So binderd need not stop this process to give it the files of a transaction. Nothing here may know
what they belong to: their numbers are in the transaction.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import threading
from typing import TYPE_CHECKING

from binderclient.extension import close_all, receive
from binderwire.extension_abi import (
    BINDERD_ATTACH,
    BINDERD_ATTACH_FILES,
    BINDERD_CLOSE,
    BINDERD_FILES,
    BINDERD_GET_INFO,
    BINDERD_INSTALLED,
    binderd_attach,
    binderd_info,
    binderd_installed,
)

if TYPE_CHECKING:
    from binderclient.extension import Control, Message


def attach(control: Control) -> Deliveries | None:
    """Have the device send descriptors through a socket of this process.

    Returns:
        None if the device is not binderd's, or refuses: then descriptors are installed by the
        driver, or refused, as for any program.
    """
    try:
        control(BINDERD_GET_INFO, bytearray(binderd_info.size))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        return None
    with theirs:
        request = binderd_attach.pack(theirs.fileno(), BINDERD_ATTACH_FILES)
        try:
            control(BINDERD_ATTACH, bytearray(request))
        except OSError:
            ours.close()
            return None
    return Deliveries(control, ours)


class Deliveries:
    """The socket, and what has come of deliveries that are not complete yet.

    Args:
        control: does an ioctl of the device.
        end: our end of the pair; owned from now on.

    Any thread may take what has come, also what is for other threads: a lock keeps the order.
    """

    def __init__(self, control: Control, end: socket.socket) -> None:
        self._control = control
        self._end = end
        self._lock = threading.Lock()
        self._parts: dict[int, list[int]] = {}  # numbers, by the delivery that they belong to
        self._failed: set[int] = set()

    def fileno(self) -> int:
        """Return the number of our end; it hangs up when the driver is gone."""
        return self._end.fileno()

    def take(self) -> None:
        """Take all that is there, and tell the device about it."""
        with self._lock:
            while True:
                try:
                    message = receive(self._end)
                except (BlockingIOError, ValueError):  # nothing more; or it was closed
                    return
                except OSError as error:
                    if error.errno == errno.EBADF:
                        return
                    raise
                if message is None:
                    self._drop_parts()
                    return
                self._handle(message)

    def close(self) -> None:
        """Close the socket; deliveries that are under way are lost, with their descriptors."""
        self._end.close()  # no lock: a forked child may have it locked for good
        self._drop_parts()

    def _handle(self, message: Message) -> None:
        if message.kind == BINDERD_CLOSE:
            close_all(struct.unpack(f"={len(message.body) // 4}i", message.body))
        elif message.kind == BINDERD_FILES:
            number = message.value
            part = self._parts.setdefault(number, [])
            part += message.descriptors
            if message.is_cut:
                self._failed.add(number)
            if message.left:
                return
            del self._parts[number]
            if number in self._failed:
                self._failed.discard(number)
                close_all(part)
                self._report(number, [], errno.EMFILE)
            elif not self._report(number, part, 0):
                close_all(part)  # the transaction is gone
        else:
            close_all(message.descriptors)

    def _report(self, number: int, numbers: list[int], error: int) -> bool:
        area = (ctypes.c_int32 * len(numbers))(*numbers)
        packed = binderd_installed.pack(number, error, len(numbers), ctypes.addressof(area))
        try:
            self._control(BINDERD_INSTALLED, bytearray(packed))
        except OSError:
            return False
        return True

    def _drop_parts(self) -> None:
        for part in self._parts.values():
            close_all(part)
        self._parts.clear()
