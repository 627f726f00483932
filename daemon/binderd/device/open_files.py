# SPDX-License-Identifier: Apache-2.0
"""The open files of all devices: the only place that calls the engine, and drains it.

Theory of operation. A request's number is the engine's ticket (``replies.py``), so there is no
table of requests in flight: whatever the engine completes, now or much later, says itself which
request of which connection it answers. After every engine call ``drain`` hands the engine's outbox
and poll wakes to the connections, in order.

How requests and answers look on a connection is told in ``fuse_device.py`` and ``cuse_device.py``.
Nothing here may know frames, file descriptors, memory mappings or trio; what must be made for an
open file comes through the ``Opener`` port.
"""

from __future__ import annotations

from errno import EACCES, EIO, EMFILE, ENFILE
from typing import TYPE_CHECKING

from binderd.device.control import CONTROL_HANDLE
from binderd.device.extension import extension_ioctl
from binderd.device.pauses import Pauses
from binderd.device.replies import TICKET_SHIFT
from binderd.engine.completion import Completion
from binderd.engine.errors import KernelErrno
from binderwire.extension_abi import BINDERD_FLUSH
from binderwire.fuse_abi import O_NONBLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.device.opener import OpenedClient, Opener
    from binderd.device.pace import Pace
    from binderd.device.replies import Replies
    from binderd.engine.engine import Engine
    from binderd.engine.pause import Paused
    from binderd.engine.ports import ClientMemory, NotYet
    from binderd.engine.process import Process
    from binderd.fuse.directory import Directory
    from binderd.fuse.turns import Turns


class OpenFile:
    """One open file of a device, from FUSE_OPEN to FUSE_RELEASE.

    Args:
        handle: what the kernel calls it in later requests.
        nodeid: of its inode; 0: of none, it is CUSE's.
        client: its outside half.
        process: what it is to the engine.
        replies: of the connection that it was opened through.
    """

    __slots__ = ("client", "handle", "kernel_handle", "nodeid", "process", "replies")

    def __init__(
        self, handle: int, nodeid: int, client: OpenedClient, process: Process, replies: Replies
    ) -> None:
        self.handle = handle
        self.nodeid = nodeid
        self.client = client
        self.process = process
        self.replies = replies
        self.kernel_handle = 0  # under which handle do its pollers wait, if any wait?


class OpenFiles:
    """All open files of all devices.

    Args:
        engine: the driver.
        directory: the devices, for their policies.
        opener: makes the outside half of a new open file.
        turns: everybody's; told who pays for an open file.
        pace: how long the engine works in one go.
        start_timer: called with a number and milliseconds; ``expire`` takes the number later. With
            negative milliseconds: stop it.
        wake: called when something waits for its turn, and whoever serves the turns may sleep.
        report_bug: called with what was done and the exception when that failed.
    """

    __slots__ = (
        "_by_process",
        "_closing",
        "_connections",
        "_directory",
        "_engine",
        "_files",
        "_next_handle",
        "_opener",
        "_outbox",
        "_pace",
        "_paused",
        "_pauses",
        "_poll_wakes",
        "_released",
        "_report_bug",
        "_start_timer",
        "_timers",
        "_turns",
        "_wake",
    )

    def __init__(
        self,
        engine: Engine,
        directory: Directory,
        opener: Opener,
        turns: Turns,
        pace: Pace,
        start_timer: Callable[[int, int], None],
        wake: Callable[[], None],
        report_bug: Callable[[str, Exception], None],
    ) -> None:
        self._engine = engine
        self._pace = pace
        engine.pace = pace.is_over
        self._paused = engine.paused
        self._released = engine.released
        self._outbox = engine.outbox
        self._poll_wakes = engine.poll_wakes
        self._timers = engine.timers
        self._start_timer = start_timer
        self._wake = wake
        self._report_bug = report_bug
        self._turns = turns
        self._directory = directory
        self._opener = opener
        self._pauses = Pauses(engine.paused, turns, self._take_turn)
        self._connections: list[Replies] = []  # by number
        self._next_handle = CONTROL_HANDLE + 1
        self._files: dict[int, OpenFile] = {}  # by handle
        self._by_process: dict[Process, OpenFile] = {}
        self._closing: dict[Process, OpenedClient] = {}  # of files that are being released

    def __len__(self) -> int:
        """How many files are open?"""
        return len(self._files)

    def connect(self, replies: Replies) -> None:
        """Serve one more connection; the first is that of the file system."""
        replies.ticket_base = len(self._connections) << TICKET_SHIFT
        self._connections.append(replies)

    def find(self, handle: int) -> OpenFile | None:
        """Return the open file of that handle."""
        return self._files.get(handle)

    # Requests

    def open(
        self,
        replies: Replies,
        context: str,
        nodeid: int,
        uid: int,
        tid: int,
        flags: int,
        *,
        is_private: bool = False,
    ) -> OpenFile | int:
        """Open a device for the thread ``tid`` of the user ``uid`` (binder_open).

        Args:
            replies: of the connection through which it is asked for.
            context: the device's.
            nodeid: its inode, 0 if there is none.
            flags: of open(2).
            is_private: do clients of that inode have pages of their own?

        Returns:
            The open file, or an errno.
        """
        try:
            if not self._admits(context, tid):
                return EACCES
            client = self._opener.open(tid, nodeid, is_private=is_private)
        except OSError as error:
            # EMFILE is about our table of descriptors; to the client it would mean its own.
            return ENFILE if error.errno == EMFILE else error.errno or EIO
        try:
            process = self._engine.open(
                context, client.pid, client, nonblocking=bool(flags & O_NONBLOCK)
            )
        except KernelErrno as error:
            client.close()
            return error.errno
        except BaseException:
            client.close()
            raise
        client.adopt(process)
        handle = self._next_handle
        self._next_handle += 1
        file = OpenFile(handle, nodeid, client, process, replies)
        self._files[handle] = self._by_process[process] = file
        self._turns.opened(handle, uid, client.payer, client.pid)
        return file

    def _admits(self, context: str, tid: int) -> bool:
        """Whether the device's policy lets a thread open it."""
        policy = self._directory.policy_of(context)
        return policy.is_open() or policy.admits(*self._opener.credentials(tid))

    def refuse_stranger(self) -> int:
        """Return the errno for who opens a device and has no thread id.

        Differs: a client outside our pid namespace has no number here, so there is no way to its
        memory.
        """
        return self._opener.refuse_stranger()

    def ioctl(
        self,
        file: OpenFile,
        tid: int,
        uid: int,
        request: int,
        argument: bytes | memoryview,
        ticket: int,
    ) -> None:
        """Do an ioctl (binder_ioctl), which is answered through its connection, maybe later."""
        self._engine.ioctl(file.process, tid, uid, request, argument, ticket)
        self.drain()

    def extension_ioctl(
        self, file: OpenFile, tid: int, request: int, argument: bytes, ticket: int
    ) -> None:
        """Do an ioctl that is in ``EXTENSION``, as ``ioctl`` does the engine's."""
        self.begin_extension(file, tid, request, argument, ticket)
        self.drain()

    def run(self, step: Paused) -> None:
        """Do a step of an ioctl whose argument the kernel did not bring."""
        step.go_on()
        self.drain()

    def poll(self, file: OpenFile, tid: int, kernel_handle: int) -> int:
        """Return what a poll of an open file finds (binder_poll).

        Args:
            kernel_handle: what to notify when it may find more; 0: nobody waits for that.
        """
        if kernel_handle:
            file.kernel_handle = kernel_handle
        events = self._engine.poll(file.process, tid, wake=bool(kernel_handle))
        self.drain()
        return events

    def flush(self, file: OpenFile, tid: int) -> None:
        """Thread ``tid`` has closed some descriptor of the file (binder_flush)."""
        # A device file on its way to another process is open here as well (O10); that is no
        # descriptor that anybody has closed.
        if not self._opener.is_own(tid):
            self._engine.flush(file.process)
            self.drain()

    def release(self, file: OpenFile) -> None:
        """The last descriptor of an open file is gone (binder_release)."""
        del self._files[file.handle], self._by_process[file.process]
        self._turns.closed(file.handle)
        self._closing[file.process] = file.client
        try:
            self._engine.release(file.process)
        except BaseException:
            self._closing.pop(file.process).close()
            raise
        self.drain()

    def interrupt(self, ticket: int) -> None:
        """A signal arrived for the thread whose request has that ticket."""
        self._engine.interrupt(ticket)
        self.drain()

    # Parts of a step of ``run``, which drains

    def memory_of(self, file: OpenFile, tid: int) -> ClientMemory:
        """Return the memory of a thread that has a request open.

        Raises:
            KernelErrno: there are too many threads.
        """
        memory = file.process.thread(tid).memory
        memory.is_settled = False
        return memory

    def begin_ioctl(
        self, file: OpenFile, tid: int, uid: int, request: int, argument: bytes, ticket: int
    ) -> None:
        """Do an ioctl, as ``ioctl`` does."""
        self._engine.ioctl(file.process, tid, uid, request, argument, ticket)

    def begin_extension(
        self, file: OpenFile, tid: int, request: int, argument: bytes, ticket: int
    ) -> None:
        """Do an ioctl of the extension, as ``extension_ioctl`` does."""
        if request == BINDERD_FLUSH:
            self._engine.flush(file.process)
        # What it ends of other requests (attaching anew does) is before its own answer.
        result, payload = extension_ioctl(file.client, tid, request, argument)
        self.complete(ticket, result, payload)

    def begin_interrupt(self, ticket: int) -> None:
        """Interrupt a request, as ``interrupt`` does."""
        self._engine.interrupt(ticket)

    def complete(self, ticket: int, result: int, payload: bytes) -> None:
        """Answer an ioctl behind all that was completed before."""
        self._outbox.append(Completion(ticket, result, payload))

    def await_errand(self, step: Paused, reason: NotYet) -> None:
        """Have a step done once somebody has fetched or stored what it takes."""
        self._engine.await_errand(step, reason)

    # What the outside noticed by itself

    def thread_gone(self, process: Process, tid: int) -> None:
        """A thread that had used the file has ended."""
        if process in self._by_process:
            self._engine.thread_gone(process, tid)
            self.drain()

    def unmapped(self, process: Process) -> None:
        """The opener no longer has the file mapped."""
        if process in self._by_process:
            self._engine.unmapped(process)
            self.drain()

    def stopped(self, number: int) -> None:
        """See ``Engine.stopped``."""
        self._engine.stopped(number)
        self.drain()

    def installed(self, number: int, numbers: Sequence[int] | None) -> None:
        """See ``Engine.installed``."""
        self._engine.installed(number, numbers)
        self.drain()

    def expire(self, timer: int) -> None:
        """A timer has run out."""
        self._engine.expire(timer)
        self.drain()

    def fetched(self, ticket: int) -> None:
        """See ``Engine.fetched``."""
        self._engine.fetched(ticket)
        self.drain()

    def go_on(self, ticket: int) -> None:
        """Go on with something that has paused; see ``Engine.go_on``.

        An exception is our bug; the request ends with EIO.
        """
        try:
            self._engine.go_on(ticket)
        except BaseException:
            self._give_up(ticket)
            raise
        finally:
            self.drain()

    def _give_up(self, ticket: int) -> None:
        engine = self._engine
        is_known = (
            ticket < 0
            or ticket in engine.paused
            or ticket in engine.parked
            or ticket in engine.errands
        )
        if not is_known and not any(completion.ticket == ticket for completion in self._outbox):
            self.complete(ticket, -EIO, b"")

    def _take_turn(self, ticket: int) -> None:
        """It is the turn of something that has paused, whichever connection is served now."""
        try:
            self.go_on(ticket)
        except Exception as error:
            self._report_bug("a request that had paused", error)
        self.deliver()

    # Results

    def drain(self) -> None:
        """Hand what the engine has completed to the connections, and all else that is due."""
        self._opener.heed_stalls()
        outbox = self._outbox
        if outbox:
            connections = self._connections
            for ticket, result, payload in outbox:
                connections[ticket >> TICKET_SHIFT].answer(ticket, result, payload)
            outbox.clear()
        if self._poll_wakes:
            self._wake_pollers()
        if self._timers:
            for number, milliseconds in self._timers:
                self._start_timer(number, milliseconds)
            self._timers.clear()
        if self._released:
            self._close_released()
        self._pace.begin()  # the next call
        if self._paused:
            self._pauses.look()
        if len(self._connections) > 1:
            # Whoever is served writes its own connection's frames, and nobody else's.
            self._write_out()

    def deliver(self) -> None:
        """Write what is due on every connection; to be called behind what is no request."""
        self._write_out()
        if self._turns.waiting:
            self._wake()

    def _write_out(self) -> None:
        for replies in self._connections:
            replies.write_out()

    def _close_released(self) -> None:
        """Close clients of which nothing will be used any more, each once whatever it does."""
        while self._released:
            self._closing.pop(self._released.pop(0)).close()

    def _wake_pollers(self) -> None:
        for process in self._poll_wakes:
            file = self._by_process.get(process)
            if file is not None and file.kernel_handle:
                file.replies.wake_poller(file.kernel_handle)
                file.kernel_handle = 0  # whoever still waits asks again, and says so
        self._poll_wakes.clear()
