# SPDX-License-Identifier: Apache-2.0
"""BINDER_WRITE_READ: the commands (``write.py``), and then what the thread is told (``read.py``).

Mirrors binder_ioctl_write_read.
"""

from __future__ import annotations

from errno import EBUSY, EFAULT
from typing import TYPE_CHECKING, Final

from binderd.engine import read, write
from binderd.engine.completion import WriteRead
from binderd.engine.errors import KernelErrno
from binderd.engine.installation import begin_closing
from binderd.engine.paused_ioctl import PausedIoctl
from binderd.engine.ports import NotYet
from binderwire.binder_abi import binder_write_read
from binderwire.extension_abi import BINDERD_ERRNO

if TYPE_CHECKING:
    from binderd.engine.thread import Thread

_ARGUMENT_SIZE: Final[int] = binder_write_read.size


def begin(thread: Thread, argument: bytes, ticket: int) -> None:
    """Begin one; arguments as of ``Engine.ioctl``.

    Raises:
        KernelErrno: EFAULT, the argument cannot be read.
    """
    if thread.parked is not None or thread.paused is not None:
        raise KernelErrno(EBUSY)  # one thread, two requests: no kernel does this
    if len(argument) < _ARGUMENT_SIZE:
        raise KernelErrno(EFAULT)
    thread.nice.forget()
    thread.memory.entered()
    request = WriteRead(ticket, argument)
    most = thread.process.hub.limits.write_bytes_per_ioctl
    request.write_end = min(request.write_size, request.write_consumed + most)
    # A read that goes on is past its commands, also past those that an error has held up (Q10).
    goes_on = thread.installation is not None and request.read_consumed > 0
    if goes_on:
        request.write_end = request.write_consumed
    if request.write_size and not goes_on:
        _carry_on(thread, request)
    else:
        _read(thread, request)


class PausedCommands(PausedIoctl):
    """One that has stopped before a command, or in it."""

    __slots__ = ()

    def take_up(self) -> None:
        _carry_on(self.thread, self.request)


def _carry_on(thread: Thread, request: WriteRead) -> None:
    """Do the commands from ``write_consumed`` on, then the read."""
    try:
        result = write.run(thread, request)
        if thread.closes:
            thread.memory.be_present()
    except NotYet as reason:
        thread.fetch(request, PausedCommands(thread, request), reason)
        return
    if result == write.PAUSED:
        thread.paused = request
        thread.process.hub.pause(PausedCommands(thread, request))
    elif thread.closes and begin_closing(thread):
        _ask_again(thread, request)
    elif result:
        request.read_consumed = 0  # Q11
        thread.complete(request, result)
    else:
        _read(thread, request)


def _read(thread: Thread, request: WriteRead) -> None:
    if request.read_size:
        read.begin(thread, request)
    else:
        thread.complete(request, 0)


def _ask_again(thread: Thread, request: WriteRead) -> None:
    """Have the client issue the request once more, after it has seen to its descriptors.

    The next request is still the one that must come back (R7).
    """
    if thread.fetches:
        thread.forget_fetched()
    request.result = -BINDERD_ERRNO
    thread.process.hub.outbox.append(request)
