# SPDX-License-Identifier: Apache-2.0
"""The open files of one CUSE device: where its requests meet the engine.

Theory of operation. The kernel brings the address of an ioctl's argument only, so we read it from
the memory of the thread before the engine sees the request, and write it back before the thread
hears of the result: one round trip (``CuseIoctl``). A request's ``unique`` counts per channel; the
channel's number, put in front of it, makes it the engine's ticket. The FUSE channel's is 0.

A request here may end requests of other channels, and theirs may end ours. Ours are written as they
end; those of the file system are by ``flush_files``.
"""

from __future__ import annotations

from errno import EACCES, EBADF, EFAULT
from typing import TYPE_CHECKING, Final

from binderd.device.binder_device import Reply
from binderd.device.extension import EXTENSION
from binderd.engine.engine import argument_of
from binderd.engine.errors import KernelErrno
from binderd.engine.ports import NotYet
from binderd.fuse.frames import BODY, ioctl_result
from binderwire.binder_abi import BINDER_WRITE_READ
from binderwire.fuse_abi import (
    FOPEN_DIRECT_IO,
    FOPEN_NONSEEKABLE,
    FUSE_POLL_SCHEDULE_NOTIFY,
    fuse_interrupt_in,
    fuse_ioctl_in,
    fuse_open_in,
    fuse_open_out,
    fuse_poll_in,
    fuse_poll_out,
    fuse_release_in,
)
from binderwire.ioc import IOC_WRITE, ioc_direction, ioc_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.device.binder_device import BinderDevice
    from binderd.engine.ports import ClientMemory

# Mypyc's fast integers end at 62 bits: room for 2^14 channels, and for a request every microsecond
# for nine years.
TICKET_SHIFT: Final = 48
CHANNELS_MAX: Final = 1 << 14

_unpack_ioctl = fuse_ioctl_in.unpack_from
_unpack_poll = fuse_poll_in.unpack_from


class CuseIoctl(Reply):
    """One ioctl: its argument is read, it is done, the argument is written back.

    Where the argument lies may be memory that somebody else has to reach into (``NotYet``). Then
    the ioctl waits as one does whose commands are to be fetched, and goes on with that step.

    Args:
        device: where it came in.
        memory: of the thread that waits for it.
        payer: whose time it takes.
        ticket: the engine's for it.
        unique: the kernel's number of it.
        asked: the handle of the open file, the thread, its user, the ioctl number.
        address: of the argument.
    """

    __slots__ = (
        "_address",
        "_asked",
        "_bad_pointer",
        "_device",
        "_has_waited",
        "_is_interrupted",
        "_memory",
        "_outcome",
        "_unique",
    )

    def __init__(
        self,
        device: CuseDevice,
        memory: ClientMemory,
        payer: int,
        ticket: int,
        unique: int,
        asked: tuple[int, int, int, int],
        address: int,
    ) -> None:
        super().__init__(ticket, payer)
        self._device = device
        self._memory = memory
        self._unique = unique
        self._asked = asked
        self._address = address
        self._bad_pointer = EFAULT
        self._has_waited = self._is_interrupted = False
        self._outcome: tuple[int, bytes] | None = None  # once it is done

    def go_on(self) -> None:
        if self._outcome is not None:
            self.finish(*self._outcome)
            return
        self.begin()
        if self._is_interrupted:
            self._device.files.interrupt_ticket(self.ticket)  # if it sleeps, or waits once more

    def interrupt(self) -> None:
        self._is_interrupted = True  # the driver looks for signals once it has the argument

    def begin(self) -> None:
        """Read the argument, and do the ioctl."""
        handle, tid, uid, request = self._asked
        files = self._device.files
        file = files.file(handle)
        if file is None:
            self._answer(-EBADF)
            return
        if request in EXTENSION:
            size = ioc_size(request) if ioc_direction(request) & IOC_WRITE else 0
        else:
            size, self._bad_pointer = argument_of(request)
        try:
            argument = self._memory.read(self._address, size) if size else b""
        except NotYet as reason:
            self._wait(reason)
            files.drain()
            return
        if self._has_waited:
            self._memory.forget()
        if request in EXTENSION:
            self.finish(*files.extension_ioctl(file, tid, request, argument))
            files.drain()
        else:
            files.ioctl_from(file, tid, uid, request, argument, self)

    def finish(self, result: int, payload: bytes) -> None:
        """Answer; a BINDER_WRITE_READ goes back beside an errno, too (R8, R9)."""
        is_due = not result or self._asked[-1] == BINDER_WRITE_READ
        try:
            if payload and is_due and not self._memory.write(self._address, payload):
                result = -self._bad_pointer
        except NotYet as reason:
            self._outcome = result, payload
            self._wait(reason)
            return
        self._answer(result)

    def _wait(self, reason: NotYet) -> None:
        self._has_waited = True
        self._device.files.await_errand(self, reason)

    def _answer(self, result: int) -> None:
        if self._has_waited:
            self._memory.forget()
            self._device.files.has_ended(self)
        self._device.outgoing.append(ioctl_result(self._unique, result, b""))
        self._device.flush()


class CuseDevice:
    """One CUSE device.

    Args:
        device: all open files of all devices.
        context: which binder context it leads to.
        number: of its channel, from 1 on, less than CHANNELS_MAX.
        flush_files: writes what is due on the file system's channel.
    """

    __slots__ = ("_context", "_flush_files", "_number", "files", "outgoing", "write")

    def __init__(
        self, device: BinderDevice, context: str, number: int, flush_files: Callable[[], None]
    ) -> None:
        self.outgoing: list[bytes] = []
        self.write: Callable[[], None] | None = None  # writes ``outgoing``
        self.files = device
        self._context = context
        self._number = number << TICKET_SHIFT
        self._flush_files = flush_files

    def flush(self) -> None:
        """Write what was put into ``outgoing``; never waits."""
        if self.write is not None:
            self.write()

    def drain(self) -> None:
        """Turn everything that has become ready into frames, and see that they go out."""
        self.files.drain()
        self._flush_files()

    # Requests; see ``fuse/server.py`` for the arguments

    def open(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_OPEN (binder_open)."""
        if not tid:
            return self.files.refuse_stranger()  # Differs: as with FUSE
        flags, _ = fuse_open_in.unpack_from(frame, BODY)
        handle = self.files.open_file(self._context, 0, uid, tid, flags, self)
        if handle < 0:
            return -handle
        return fuse_open_out.pack(handle, FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE, 0)

    def ioctl(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_IOCTL (binder_ioctl)."""
        handle, _, request, address, _, _ = _unpack_ioctl(frame, BODY)
        file = self.files.file(handle)
        if file is None:
            return EBADF
        if not tid:
            return EACCES
        try:
            memory = self.files.memory_of(file, tid)
        except KernelErrno as error:
            return error.errno
        asked = (handle, tid, uid, request)
        ticket = unique | self._number
        CuseIoctl(self, memory, file.client.payer, ticket, unique, asked, address).begin()
        self._flush_files()
        return None

    def poll(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_POLL (binder_poll)."""
        handle, kernel_handle, flags, _ = _unpack_poll(frame, BODY)
        if self.files.file(handle) is None:
            return EBADF
        if not tid:
            return EACCES
        wake = bool(flags & FUSE_POLL_SCHEDULE_NOTIFY)
        events = self.files.poll_file(handle, tid, kernel_handle if wake else 0)
        self._flush_files()
        return fuse_poll_out.pack(events, 0)

    def release(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_RELEASE (binder_release): the last descriptor of the file is gone."""
        handle = fuse_release_in.unpack_from(frame, BODY)[0]
        errno = self.files.release_file(handle)
        self._flush_files()
        return errno or b""

    def interrupt(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_INTERRUPT: a signal arrived for the thread whose request this names."""
        interrupted = fuse_interrupt_in.unpack_from(frame, BODY)[0]
        self.files.interrupt_ticket(interrupted | self._number)
        self._flush_files()
        return None
