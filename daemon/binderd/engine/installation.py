# SPDX-License-Identifier: Apache-2.0
"""Installations: giving the files of a transaction to the process that reads it (O7).

A file becomes a descriptor inside another process, which the engine cannot do; it asks the port
(``Client.install``) and goes on with other requests until it hears of the result. Meanwhile:

- The transaction stays where it was taken from, at the front of its reader's own queue.
- What that read had collected before is in the reader's memory, and ``read_consumed`` says so.
- The request is answered early, and the same request is issued once more, by the client or in its
  name. It finds the transaction at the front, sleeps until the numbers are known, and goes on: in
  the end the client has read the very bytes that the driver gives it in one go.

The same way leads back: freeing a buffer closes what its arrays of descriptors brought (O9).

Mirrors binder_apply_fd_fixups and binder_deferred_fd_close.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL
from struct import Struct
from typing import TYPE_CHECKING, Final

from binderd.engine.errors import KernelErrno
from binderd.engine.ports import REFUSED, SENT, STOPPING, Room
from binderwire.extension_abi import BINDERD_ERRNO, binderd_installed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binderd.engine.buffers import Buffer
    from binderd.engine.completion import Completion
    from binderd.engine.process import Process
    from binderd.engine.request import WriteRead
    from binderd.engine.thread import Thread

_NO_ROOM: Final = Room(0, 0)
_NUMBER_SIZE: Final = 4


class Installation:
    """One attempt to give files to a thread's process, or to close descriptors in it."""

    __slots__ = ("completion", "count", "is_over", "is_sent", "number", "numbers", "thread")

    def __init__(self, thread: Thread, number: int, count: int) -> None:
        self.thread = thread
        self.number = number
        self.count = count  # how many files; 0: it only closes
        self.is_sent = False  # does the client do it itself? Then only its signals end the wait
        self.is_over = False
        self.numbers: Sequence[int] | None = None  # once it is over; None: it failed
        self.completion: Completion | None = None  # the answer that waits for the thread's stop


def _list(thread: Thread, count: int) -> Installation:
    """Return a new installation of ``count`` files for a thread."""
    process, roster = thread.process, thread.process.roster
    roster.last_installation += 1
    number = roster.last_installation
    found = Installation(thread, number, count)
    roster.installations[number] = process.installations[number] = found
    return found


def begin(thread: Thread, request: WriteRead, buffer: Buffer) -> bool:
    """Begin to install the files of the transaction in ``buffer`` for a thread that reads.

    Returns:
        Whether the request goes on elsewhere: it is answered, or will be when the thread is
        stopped. False: the installation has failed already.
    """
    room = Room(
        request.read_buffer + request.read_consumed, request.read_size - request.read_consumed
    )
    files = [fixup.file for fixup in buffer.files]
    installation = _list(thread, len(files))
    thread.installation = installation
    started = thread.process.client.install(thread.tid, installation.number, files, (), room)
    if started == REFUSED:
        end(installation, None)
        return False
    if started == SENT:
        installation.is_sent = True
        thread.complete(request, -BINDERD_ERRNO)
    else:
        thread.sleep(request)
    return True


def end(installation: Installation, numbers: Sequence[int] | None) -> None:
    """It is known what has become of it; whoever reads may go on.

    Args:
        numbers: of the descriptors, in order; None: there are none, it failed.
    """
    thread = installation.thread
    del thread.process.roster.installations[installation.number]
    del thread.process.installations[installation.number]
    installation.is_over = True
    if numbers is not None and len(numbers) == installation.count:
        installation.numbers = numbers
    if thread.closing is installation:
        thread.closing = None
    if installation.completion is not None:  # it failed before the thread was stopped
        thread.process.hub.outbox.append(installation.completion)
        installation.completion = None
    elif installation.count and thread.parked is not None:
        thread.process.roster.runnable.append(thread)


def cancel(installation: Installation) -> None:
    """The thread is being released."""
    thread = installation.thread
    if not installation.is_over:
        end(installation, None)
        thread.process.client.cancel_install(installation.number)
    thread.installation = None


def give_up(process: Process, pid: int) -> None:
    """What was sent to the process ``pid`` and not reported has failed."""
    for found in list(process.installations.values()):
        if found.is_sent and found.thread.pid == pid:
            end(found, None)


def report(thread: Thread, argument: bytes) -> bytes:
    """BINDERD_INSTALLED: a client has installed files itself, or could not.

    Any thread may say so that has the file in hand in the process that reads.

    Raises:
        KernelErrno: EINVAL, there is no such installation, or it has another number of files;
            EFAULT, the numbers cannot be read.
        NotYet: they have to be fetched first.
    """
    number, error, count, address = binderd_installed.unpack_from(argument)
    found = thread.process.roster.installations.get(number)
    if found is None or not found.is_sent or not found.count:
        raise KernelErrno(EINVAL)
    if found.thread.process is not thread.process or found.thread.pid != thread.pid:
        raise KernelErrno(EINVAL)
    if error:
        end(found, None)
        return b""
    if count != found.count:
        raise KernelErrno(EINVAL)
    numbers = thread.memory.read(address, _NUMBER_SIZE * count)
    if len(numbers) != _NUMBER_SIZE * count:
        raise KernelErrno(EFAULT)
    end(found, Struct(f"={count}i").unpack(numbers))
    return b""


def begin_closing(thread: Thread) -> bool:
    """Begin to close the descriptors that the thread has freed (O9).

    A thread that is to be stopped for it gets its answer when it is (``Thread.closing``).

    Returns:
        Whether the client was told to close them, and asked to issue its request again.
    """
    closes, thread.closes = thread.closes, []
    installation = _list(thread, 0)
    started = thread.process.client.install(thread.tid, installation.number, (), closes, _NO_ROOM)
    if started != STOPPING:
        # Differs: where nothing can be done in a process they stay open.
        end(installation, None)
    else:
        thread.closing = installation
    return started == SENT
