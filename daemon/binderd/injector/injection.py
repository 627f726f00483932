# SPDX-License-Identifier: Apache-2.0
"""What is done to a stopped thread: its process gets files, or loses descriptors.

The files go through a socket pair that the thread is made to open: we take one end of it, send the
files, and the thread is made to receive them from the other. As the driver does, each file gets the
lowest number that is free: the socket stands out of the way while they are received.

The only memory that is used is the unused part of the read buffer that the thread has handed to its
ioctl: a stack pointer need not point to a stack with room below, the read buffer is the driver's to
write to. It has 76 bytes at least (R2), which one file needs.

Other threads may write to the thread's memory meanwhile: what it says is trusted only for
descriptors of its own process.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from errno import ECANCELED, EINTR, EMFILE, EXDEV
from struct import Struct
from typing import TYPE_CHECKING, Final

from binderd.injector.messages import FILES_MAX
from binderd.injector.tracee import Gone, Tracee, first_argument, seize
from binderd.linux import pidfd, scm_rights

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from binderd.injector.architecture import Architecture

_F_DUPFD_CLOEXEC: Final = 1030
_MSG_CMSG_CLOEXEC: Final = 0x40000000
_PAIR: Final = Struct("=ii")
# struct msghdr: name, its size, iov, how many, control, its size, flags
_MSGHDR: Final = Struct("=QI4xQQQQI4x")
_CMSGHDR: Final = Struct("=Qii")  # struct cmsghdr: size, level, type
_FD_SIZE: Final = 4
_FILE_ROOM: Final = _MSGHDR.size + _CMSGHDR.size  # bytes; and _FD_SIZE for each file


class Job:
    """One job: files to install in a thread's process, or descriptors to close in it.

    Args:
        number: the daemon's name for it.
        tid: the thread, which is in an ioctl.
        counts: how many files there will be, how many descriptors of its process to close.
        room: of its read buffer: address, bytes.
        at_once: how many files may be on their way to it.
        machine: the processor's registers and numbers of system calls.
        owner: the user whose thread it is.
    """

    def __init__(
        self,
        number: int,
        tid: int,
        counts: tuple[int, int],
        room: tuple[int, int],
        at_once: int,
        machine: Architecture,
        owner: int,
    ) -> None:
        self.number = number
        self.owner = owner
        self.tid = tid
        self.count, self._closes_count = counts
        self.files: list[int] = []  # ours, as many as have come so far
        self.closes: list[int] = []  # as many as have come so far
        self.is_cancelled = False
        self._address, self._room = room
        self._at_once = at_once
        self._machine = machine
        self._tracee = Tracee(tid, machine)
        self._first_argument: int | None = None
        self._sockets: list[int] = []  # of the pair, in the thread's process
        self._numbers: list[int] = []  # of the files, there

    @property
    def is_whole(self) -> bool:
        """Has everything come?"""
        return len(self.files) >= self.count and len(self.closes) >= self._closes_count

    def seize(self) -> None:
        """Take hold of the thread.

        Raises:
            OSError: that cannot be.
        """
        seize(self.tid)
        if self._machine.current is None and self.count:
            self._first_argument = first_argument(self.tid)

    def steps(self, report: Callable[[int, list[int]], None]) -> Generator[None, int, None]:
        """Do it; each ``yield`` wants the status of the thread's next stop.

        Args:
            report: is told the errno, 0 if it went well, and the numbers of the files, right
                before the thread is let go.
        """
        tracee, error = self._tracee, 0
        try:
            tracee.stop((yield), -EINTR if self.count else 0)
            for number in self.closes:
                yield from tracee.call(self._machine.close, number)
            if self.count:
                yield from self._install()
        except Gone:
            report(EXDEV, [])
            return
        except OSError as failure:
            error = failure.errno or EXDEV
        report(error, [] if error else self._numbers)
        with suppress(OSError):
            tracee.finish(again=bool(self.count), first_argument=self._first_argument)

    def close(self) -> list[int]:
        """Keep nothing of the thread; return our descriptors, which are to be closed."""
        self._tracee.close()
        files, self.files = self.files, []
        return files

    def _install(self) -> Generator[None, int, None]:
        """Have the process receive the files, all or none.

        Raises:
            OSError: why it has none.
        """
        tracee = self._tracee
        chunk = min((self._room - _FILE_ROOM) // _FD_SIZE, FILES_MAX, self._at_once, self.count)
        if chunk < 1:
            raise OSError(EXDEV, "no room in the read buffer")
        size = _FILE_ROOM + chunk * _FD_SIZE
        saved = tracee.read(self._address, size)
        try:
            yield from self._exchange(chunk)
            if self.is_cancelled:
                raise OSError(ECANCELED, "nobody wants it any more")
        except OSError:
            for number in self._numbers:
                yield from tracee.call(self._machine.close, number)
            raise
        finally:
            with suppress(OSError):
                tracee.write(self._address, saved)

    def _exchange(self, chunk: int) -> Generator[None, int, None]:
        tracee, machine = self._tracee, self._machine
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        yield from tracee.need(machine.socketpair, socket.AF_UNIX, kind, 0, self._address)
        self._sockets = list(_PAIR.unpack(tracee.read(self._address, _PAIR.size)))
        ours = None
        try:
            ours = _take_socket(self.tid, self._sockets[0])
            yield from self._step_aside()
            while len(self._numbers) < self.count:
                start = len(self._numbers)
                part = self.files[start : start + chunk]
                ours.send_files(part)
                yield from self._receive(len(part))
        finally:
            if ours is not None:
                self.files.append(ours.fd)  # closed along with them
            aside = self._sockets[-1]
            for number in self._sockets:
                yield from tracee.call(machine.close, number)
        yield from self._close_gap(aside)

    def _step_aside(self) -> Generator[None, int, None]:
        """Leave one socket open only, where the files' numbers do not have to go around it."""
        tracee, machine = self._tracee, self._machine
        first, second = self._sockets
        if self.count > 1:
            for lowest in (second + self.count, second + 1):
                moved = yield from tracee.call(machine.fcntl, second, _F_DUPFD_CLOEXEC, lowest)
                if moved >= 0:
                    yield from tracee.call(machine.close, second)
                    self._sockets[1] = moved
                    break
        del self._sockets[0]
        yield from tracee.call(machine.close, first)

    def _receive(self, count: int) -> Generator[None, int, None]:
        """Have the thread receive one message of so many files.

        Raises:
            OSError: EMFILE: they did not all come.
        """
        tracee, machine = self._tracee, self._machine
        control = self._address + _MSGHDR.size
        control_size = _CMSGHDR.size + count * _FD_SIZE
        header = _MSGHDR.pack(0, 0, 0, 0, control, control_size, 0)
        tracee.write(self._address, header + bytes(control_size))
        flags = socket.MSG_DONTWAIT | _MSG_CMSG_CLOEXEC
        yield from tracee.need(machine.recvmsg, self._sockets[-1], self._address, flags)
        found = tracee.read(control, control_size)
        size, level, kind = _CMSGHDR.unpack_from(found)
        if (level, kind) != scm_rights.KIND:
            raise OSError(EMFILE, "no descriptor came")
        came = min((size - _CMSGHDR.size) // _FD_SIZE, count)
        self._numbers += Struct(f"={came}i").unpack_from(found, _CMSGHDR.size)
        if came < count:
            raise OSError(EMFILE, "not all descriptors came")

    def _close_gap(self, aside: int) -> Generator[None, int, None]:
        """If the socket was in the way after all, move the files behind it down (O7)."""
        tracee, machine = self._tracee, self._machine
        for index, number in enumerate(self._numbers):
            if number < aside:
                continue
            lower = yield from tracee.call(machine.fcntl, number, _F_DUPFD_CLOEXEC, 0)
            if lower < 0:
                continue
            if lower < number:
                number, lower = lower, number
            self._numbers[index] = number
            yield from tracee.call(machine.close, lower)


class _Socket:
    """Our end of a socket pair; it never waits."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def send_files(self, files: list[int]) -> None:
        """Send files in a message without bytes."""
        duplicate = socket.socket(fileno=self.fd)
        try:
            flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            scm_rights.send(duplicate, [b""], files, flags)
        finally:
            duplicate.detach()


def _take_socket(tid: int, number: int) -> _Socket:
    """Return the socket that a thread has under a number.

    Raises:
        OSError: it is not what the thread was made to open.
    """
    thread = pidfd.open_for_descriptors(tid)
    try:
        return _Socket(pidfd.take_descriptor(thread, number))
    finally:
        os.close(thread)
