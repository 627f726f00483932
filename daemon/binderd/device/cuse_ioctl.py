# SPDX-License-Identifier: Apache-2.0
"""One ioctl of a CUSE device: its argument is read, it is done, the argument is written back.

The argument may lie in memory that a worker has to reach (``NotYet``). Then the ioctl waits as one
does whose commands have to be fetched, and goes on with that step.

Nothing here may know frames.
"""

from __future__ import annotations

from errno import EBADF, EFAULT
from typing import TYPE_CHECKING

from binderd.device.extension import EXTENSION
from binderd.engine.completion import Paused
from binderd.engine.engine import argument_of
from binderd.engine.ports import NotYet
from binderwire.binder_abi import BINDER_WRITE_READ
from binderwire.ioc import IOC_WRITE, ioc_direction, ioc_size

if TYPE_CHECKING:
    from binderd.device.open_file import OpenFile
    from binderd.device.open_files import OpenFiles
    from binderd.engine.ports import ClientMemory


class CuseIoctl(Paused):
    """One ioctl, from its request to its answer.

    Args:
        files: all open files.
        file: that it was called on.
        memory: of the thread that waits for it.
        ticket: the engine's for it.
        asked: the thread, its user, the ioctl number.
        address: of the argument.
    """

    __slots__ = (
        "_address",
        "_asked",
        "_bad_pointer",
        "_files",
        "_handle",
        "_has_waited",
        "_is_interrupted",
        "_memory",
        "_payload",
        "result",
    )

    def __init__(
        self,
        files: OpenFiles,
        file: OpenFile,
        memory: ClientMemory,
        ticket: int,
        asked: tuple[int, int, int],
        address: int,
    ) -> None:
        super().__init__(ticket, file.client.payer)
        self._files = files
        self._handle = file.handle
        self._memory = memory
        self._asked = asked
        self._address = address
        self._bad_pointer = EFAULT
        self._has_waited = self._is_interrupted = False
        self.result = 0  # for the client: 0 or a negative errno
        self._payload: bytes | None = None  # once it is done: what is still to be written back

    def go_on(self) -> None:
        if self._payload is not None:
            self._files.complete(self.ticket, self.result, self._payload)
            return
        self._begin()
        if self._is_interrupted:
            self._files.begin_interrupt(self.ticket)  # if it sleeps, or waits once more

    def interrupt(self) -> None:
        self._is_interrupted = True  # the driver looks for signals once it has the argument

    def _begin(self) -> None:
        """Read the argument, and do the ioctl."""
        tid, uid, request = self._asked
        file = self._files.find(self._handle)
        if file is None:
            self._files.complete(self.ticket, -EBADF, b"")
            return
        if request in EXTENSION:
            size = ioc_size(request) if ioc_direction(request) & IOC_WRITE else 0
        else:
            size, self._bad_pointer = argument_of(request)
        try:
            argument = self._memory.read(self._address, size) if size else b""
        except NotYet as reason:
            self._wait(reason)
            return
        if self._has_waited:
            self._memory.forget()
        if request in EXTENSION:
            self._files.begin_extension(file, tid, request, argument, self.ticket)
        else:
            self._files.begin_ioctl(file, tid, uid, request, argument, self.ticket)

    def write_back(self, result: int, payload: bytes) -> bool:
        """Write the argument back; a BINDER_WRITE_READ's beside an errno, too (R8, R9).

        Args:
            result, payload: as ``Completion`` has them.

        Returns:
            Whether it can be answered with ``result``. Else it waits, and is completed once more.
        """
        self.result = result
        is_due = not result or self._asked[-1] == BINDER_WRITE_READ
        try:
            if payload and is_due and not self._memory.write(self._address, payload):
                self.result = -self._bad_pointer
        except NotYet as reason:
            self._payload = payload
            self._wait(reason)
            return False
        if self._has_waited:
            self._memory.forget()
        return True

    def _wait(self, reason: NotYet) -> None:
        self._has_waited = True
        self._files.await_fetch(self, reason)
