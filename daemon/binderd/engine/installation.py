# SPDX-License-Identifier: Apache-2.0
"""Installations and deferred closes: descriptors in the process of a thread that reads (O7, O9).

Only in a client's own process can a file become a descriptor, or a descriptor be closed. So the
engine asks the port for either and goes on with other requests until it hears of the result.

An **installation** gives the files of a transaction to its reader (``Client.install``). Meanwhile:

- The transaction stays where it was taken from, at the front of its reader's own queue.
- What that read had collected before is in the reader's memory, and ``read_consumed`` says so.
- The request is answered early, and the same request is issued once more, by the client or in its
  name. It finds the transaction at the front, sleeps until the numbers are known, and goes on: in
  the end the client has read the very bytes that the driver gives it in one go.

Its states, and what leads from one to the next:

    state      event                                      next state, and what follows
    ASKED      the port refuses                           FAILED: the read goes on at once
               the port has sent the files to the client  BY_CLIENT: answered with BINDERD_ERRNO
               the thread is stopped (Engine.stopped)     STOPPED: answered with EINTR
               Engine.installed, before any stop          INSTALLED or FAILED: the read wakes up
    STOPPED    Engine.installed                           INSTALLED or FAILED
    BY_CLIENT  the client reports (BINDERD_INSTALLED)     INSTALLED or FAILED
               its process attaches another socket        FAILED
    all three  the thread is released                     FAILED: the port is told to cancel it

If a read of the thread sleeps when the last state is reached, it wakes up.

A **deferred close** closes what the arrays of descriptors in a freed buffer had brought
(``Client.close_descriptors``). Its states:

    state      event                                      next state, and what follows
    ASKED      the port refuses, or has told the client   OVER
               the thread is stopped (Engine.stopped)     STOPPED: the answer that waits is given
               Engine.installed, before any stop          OVER: the same
    STOPPED    Engine.installed                           OVER

Mirrors binder_apply_fd_fixups and binder_deferred_fd_close.
"""

from __future__ import annotations

from errno import EFAULT, EINTR, EINVAL
from struct import Struct
from typing import TYPE_CHECKING, Final

from binderd.engine.errors import KernelErrno
from binderd.engine.ports import REFUSED, SENT, STOPPING, Room
from binderwire.extension_abi import BINDERD_ERRNO, binderd_installed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binderd.engine.buffers import Buffer
    from binderd.engine.completion import Completion, WriteRead
    from binderd.engine.process import Process
    from binderd.engine.thread import Thread

# States; both kinds begin with ASKED.
ASKED: Final = 0
STOPPED: Final = 1
BY_CLIENT: Final = 2
INSTALLED: Final = 3
FAILED: Final = 4
OVER: Final = 5

_NUMBER_SIZE: Final = 4


class Installation:
    """One attempt to give the files of a transaction to its reader's process.

    Args:
        thread: the reader.
        number: what the port calls it.
        count: how many files.
    """

    __slots__ = ("count", "number", "numbers", "state", "thread")

    def __init__(self, thread: Thread, number: int, count: int) -> None:
        self.thread = thread
        self.number = number
        self.count = count
        self.state: int = ASKED
        self.numbers: Sequence[int] | None = None  # of the descriptors, once INSTALLED
        thread.process.roster.installations[number] = self
        thread.process.installations[number] = self

    @property
    def is_over(self) -> bool:
        """Whether it is known what has become of it."""
        return self.state in {INSTALLED, FAILED}

    def stopped(self) -> None:
        """The thread runs no code of its own until this is over: its read can be answered."""
        self.state = STOPPED
        thread = self.thread
        if thread.parked is not None:
            thread.complete(thread.parked, -EINTR)

    def end(self, numbers: Sequence[int] | None) -> None:
        """It is known what has become of it; a read that waits for it goes on.

        Args:
            numbers: of the descriptors, in order; None: there are none, it failed.
        """
        thread = self.thread
        del thread.process.roster.installations[self.number]
        del thread.process.installations[self.number]
        if numbers is not None and len(numbers) == self.count:
            self.state, self.numbers = INSTALLED, numbers
        else:
            self.state = FAILED
        if thread.parked is not None:
            thread.process.roster.runnable.append(thread)

    def cancel(self) -> None:
        """The thread is being released."""
        thread = self.thread
        if not self.is_over:
            self.end(None)
            thread.process.client.cancel_install(self.number)
        thread.installation = None


class DeferredClose:
    """A request to close descriptors in the process of the thread that has freed a buffer.

    Args:
        thread: that one.
        number: what the port calls it.
    """

    __slots__ = ("completion", "number", "state", "thread")

    def __init__(self, thread: Thread, number: int) -> None:
        self.thread = thread
        self.number = number
        self.state: int = ASKED
        self.completion: Completion | None = None  # of the thread's ioctl, until it is stopped
        thread.process.roster.deferred_closes[number] = self

    def stopped(self) -> None:
        """The thread runs no code of its own until this is over: its ioctl can be answered."""
        self.state = STOPPED
        thread = self.thread
        if thread.closing is self:
            thread.closing = None  # its request sleeps, as files must be installed as well
        if self.completion is not None:
            self._answer()
        elif thread.parked is not None:
            thread.complete(thread.parked, -EINTR)

    def end(self) -> None:
        """The descriptors are closed, or will not be by the daemon."""
        thread = self.thread
        del thread.process.roster.deferred_closes[self.number]
        self.state = OVER
        if thread.closing is self:
            thread.closing = None
        if self.completion is not None:  # it failed before the thread was stopped
            self._answer()

    def _answer(self) -> None:
        assert self.completion is not None
        self.thread.process.hub.outbox.append(self.completion)
        self.completion = None


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
    installation = Installation(thread, thread.process.roster.next_installation(), len(files))
    thread.installation = installation
    started = thread.process.client.install(thread.tid, installation.number, files, room)
    if started == REFUSED:
        installation.end(None)
        return False
    if started == SENT:
        installation.state = BY_CLIENT
        thread.complete(request, -BINDERD_ERRNO)
    else:
        thread.sleep(request)
    return True


def give_up(process: Process, pid: int) -> None:
    """What was sent to the process ``pid`` and not reported has failed."""
    for installation in list(process.installations.values()):
        if installation.state == BY_CLIENT and installation.thread.pid == pid:
            installation.end(None)


def report(thread: Thread, argument: bytes) -> bytes:
    """BINDERD_INSTALLED: a client has installed files itself, or could not.

    Any thread of the process that reads may say so, through the same open file.

    Raises:
        KernelErrno: EINVAL, there is no such installation, or it has another number of files;
            EFAULT, the numbers cannot be read.
        NotYet: they have to be fetched first.
    """
    number, error, count, address = binderd_installed.unpack_from(argument)
    installation = thread.process.installations.get(number)
    if installation is None or installation.state != BY_CLIENT:
        raise KernelErrno(EINVAL)
    if installation.thread.pid != thread.pid:
        raise KernelErrno(EINVAL)
    if error:
        installation.end(None)
        return b""
    if count != installation.count:
        raise KernelErrno(EINVAL)
    numbers = thread.memory.read(address, _NUMBER_SIZE * count)
    if len(numbers) != _NUMBER_SIZE * count:
        raise KernelErrno(EFAULT)
    installation.end(Struct(f"={count}i").unpack(numbers))
    return b""


def begin_closing(thread: Thread) -> bool:
    """Begin to close the descriptors that the thread has freed (O9).

    A thread that is to be stopped for it gets its answer when it is (``Thread.closing``).

    Returns:
        Whether the client was told to close them, and asked to issue its request again.
    """
    closes, thread.closes = thread.closes, []
    close = DeferredClose(thread, thread.process.roster.next_installation())
    started = thread.process.client.close_descriptors(thread.tid, close.number, closes)
    if started != STOPPING:
        # Differs: where nothing can be done in a process they stay open.
        close.end()
    else:
        thread.closing = close
    return started == SENT
