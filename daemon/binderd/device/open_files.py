# SPDX-License-Identifier: Apache-2.0
"""The open files of all devices: the only place that calls the engine.

Theory of operation. A request's number is the engine's ticket (``replies.py``), so there is no
table of requests in flight: whatever the engine completes, now or much later, says itself which
request of which connection it answers. After every call the engine is drained (``drain.py``).

How requests and answers look on a connection is told in ``fuse_device.py`` and ``cuse_device.py``.
Nothing here may know frames, file descriptors, memory mappings or trio; what must be made for an
open file comes through the ``Opener`` port.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, EIO, EMFILE, ENFILE
from typing import TYPE_CHECKING

from binderd.device.control import CONTROL_HANDLE
from binderd.device.drain import Drain
from binderd.device.extension import extension_ioctl
from binderd.device.open_file import OpenFile
from binderd.engine.completion import Completion
from binderd.engine.errors import KernelErrno
from binderd.engine.limits import LANES
from binderwire.binder_abi import BINDER_WRITE_READ
from binderwire.extension_abi import BINDERD_FLUSH
from binderwire.fuse_abi import O_NONBLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.device.lanes import Lanes
    from binderd.device.opener import Opener
    from binderd.device.pace import Pace
    from binderd.device.replies import Replies
    from binderd.engine.completion import Paused
    from binderd.engine.engine import Engine
    from binderd.engine.ports import Charged, ClientMemory, NotYet
    from binderd.engine.ports import OpenFile as EngineFile
    from binderd.fuse.directory import Directory
    from binderd.fuse.turns import Turns


class OpenFiles:
    """All open files of all devices.

    Args:
        engine: the driver.
        directory: the devices, for their policies.
        opener: makes the outside half of a new open file.
        turns: of all users; they are told which user pays for an open file.
        pace: how long the engine works in one go.
        start_timer: called with a number and milliseconds; ``expire`` takes the number later. With
            negative milliseconds: stop it.
        wake: called when something waits for its turn, and the loop that serves turns may sleep.
        report_bug: called with what was done and the exception when that failed.
    """

    __slots__ = (
        "_directory",
        "_drain",
        "_engine",
        "_files",
        "_lanes",
        "_next_handle",
        "_opener",
        "_report_bug",
        "_turns",
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
        self._report_bug = report_bug
        self._turns = turns
        self._directory = directory
        self._opener = opener
        self._drain = Drain(engine, opener, turns, pace, start_timer, wake, self._take_turn)
        self._next_handle = CONTROL_HANDLE + 1
        self._files: dict[int, OpenFile] = {}  # by handle
        self._lanes: Lanes | None = None

    def __len__(self) -> int:
        """How many files are open?"""
        return len(self._files)

    def connect(self, replies: Replies) -> None:
        """Serve one more connection; the first is that of the file system."""
        self._drain.connect(replies)

    def offer_lanes(self, lanes: Lanes) -> None:
        """Let threads have lanes."""
        self._lanes = lanes
        self._drain.connect_lanes(lanes)

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
        client.adopt(self._engine, process)
        handle = self._next_handle
        self._next_handle += 1
        file = OpenFile(handle, nodeid, client, process, replies)
        self._files[handle] = self._drain.open[process] = file
        self._turns.opened(handle, uid, client.payer, client.pid)
        return file

    def _admits(self, context: str, tid: int) -> bool:
        """Whether the device's policy lets a thread open it."""
        policy = self._directory.policy_of(context)
        return policy.is_open() or policy.admits(*self._opener.credentials(tid))

    def refuse_foreign_pid(self) -> int:
        """Return the errno for an OPEN by a program that has no thread id here.

        Differs: a client outside our pid namespace has no number here, so there is no way to its
        memory.
        """
        return self._opener.refuse_foreign_pid()

    def ioctl(
        self,
        file: OpenFile,
        tid: int,
        uid: int,
        request: int,
        argument: bytes,
        ticket: int,
    ) -> None:
        """Do an ioctl (binder_ioctl), which is answered through its connection, maybe later."""
        if file.lanes and self._lanes is not None:
            self._lanes.settle(file, tid)
        self._engine.ioctl(file.process, tid, uid, request, argument, ticket)
        self._drain.run()

    def extension_ioctl(
        self, file: OpenFile, tid: int, request: int, argument: bytes, ticket: int
    ) -> None:
        """Do an ioctl that is in ``EXTENSION``, as ``ioctl`` does the engine's."""
        self.begin_extension(file, tid, request, argument, ticket)
        self._drain.run()

    def use_lane(
        self, file: OpenFile, tid: int, uid: int, request: int, argument: bytes, ticket: int
    ) -> None:
        """Do one of the ioctls about lanes, as ``ioctl`` does the engine's."""
        if self._lanes is not None:
            self._lanes.ioctl(file, tid, uid, request, argument, ticket)
        else:
            self.complete(ticket, -EINVAL, b"")
        self._drain.run()

    def run(self, step: Paused) -> None:
        """Do a step of an ioctl whose argument the kernel did not bring."""
        step.go_on()
        self._drain.run()

    def poll(self, file: OpenFile, tid: int, kernel_handle: int) -> int:
        """Return what a poll of an open file finds (binder_poll).

        Args:
            kernel_handle: what to notify when it may find more; 0: nothing.
        """
        if kernel_handle:
            file.kernel_handle = kernel_handle
        events = self._engine.poll(file.process, tid, wake=bool(kernel_handle))
        self._drain.run()
        return events

    def flush(self, file: OpenFile, tid: int) -> None:
        """Thread ``tid`` has closed some descriptor of the file (binder_flush)."""
        # A device file on its way to another process is open here as well (O10); that is no
        # descriptor that anybody has closed.
        if not self._opener.is_own(tid):
            self._engine.flush(file.process)
            self._drain.run()

    def release(self, file: OpenFile) -> None:
        """The last descriptor of an open file is gone (binder_release)."""
        del self._files[file.handle], self._drain.open[file.process]
        self._turns.closed(file.handle)
        self._drain.closing[file.process] = file.client
        try:
            self._engine.release(file.process)
        except BaseException:
            self._drain.closing.pop(file.process).close()
            raise
        self._drain.run()
        if file.lanes and self._lanes is not None:
            self._lanes.release(file)

    def interrupt(self, ticket: int) -> None:
        """A signal arrived for the thread whose request has that ticket."""
        if self._lanes is not None and self._lanes.interrupt(ticket):
            return
        self._engine.interrupt(ticket)
        self._drain.run()

    # Parts of a step of ``run``, which drains

    def memory_of(self, file: OpenFile, tid: int) -> ClientMemory | int:
        """Return the memory of a thread that has a request open, or an errno: too many threads."""
        try:
            return self._engine.memory_of(file.process, tid)
        except KernelErrno as error:
            return error.errno

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
        self._engine.outbox.append(Completion(ticket, result, payload))

    def await_fetch(self, step: Paused, reason: NotYet) -> None:
        """Have a step go on once a worker has made its access."""
        self._engine.await_fetch(step, reason)

    # For lanes

    def charge_lane(self, file: OpenFile) -> Charged | None:
        """Charge who pays for an open file for one more lane; None if there is no room for it."""
        return self._engine.charge(file.client.payer, LANES)

    def reach_through(
        self, file: OpenFile, tid: int, memory: ClientMemory, *, is_quiet: bool
    ) -> None:
        """See ``Engine.reach_through``."""
        self._engine.reach_through(file.process, tid, memory, is_quiet=is_quiet)

    def lane_ioctl(self, file: OpenFile, tid: int, uid: int, argument: bytes, ticket: int) -> None:
        """Do a BINDER_WRITE_READ of a lane."""
        self._engine.ioctl(file.process, tid, uid, BINDER_WRITE_READ, argument, ticket)
        self._drain.run()

    def interrupt_lane(self, ticket: int) -> None:
        """Interrupt a request of a lane."""
        self._engine.interrupt(ticket)
        self._drain.run()

    def fail_lane(self, ticket: int) -> None:
        """A request of a lane has met a bug of ours: if that has not answered it, we do."""
        self._give_up(ticket)
        self._drain.run()

    # What the outside noticed by itself

    def thread_gone(self, process: EngineFile, tid: int) -> None:
        """A thread that had used the file has ended."""
        if process in self._drain.open:
            self._engine.thread_gone(process, tid)
            self._drain.run()
            if self._lanes is not None:
                self._lanes.forget(self._drain.open[process], tid)

    def unmapped(self, process: EngineFile) -> None:
        """The opener no longer has the file mapped."""
        if process in self._drain.open:
            self._engine.unmapped(process)
            self._drain.run()

    def stopped(self, number: int) -> None:
        """See ``Engine.stopped``."""
        if self._lanes is not None:
            self._lanes.is_stopping = True
        self._engine.stopped(number)
        self._drain.run()
        if self._lanes is not None:
            self._lanes.is_stopping = False

    def installed(self, number: int, numbers: Sequence[int] | None) -> None:
        """See ``Engine.installed``."""
        self._engine.installed(number, numbers)
        self._drain.run()

    def expire(self, timer: int) -> None:
        """A timer has run out."""
        self._engine.expire(timer)
        self._drain.run()

    def fetched(self, ticket: int) -> None:
        """See ``Engine.fetched``."""
        self._engine.fetched(ticket)
        self._drain.run()

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
            self._drain.run()

    def _give_up(self, ticket: int) -> None:
        engine = self._engine
        is_known = (
            ticket < 0
            or ticket in engine.paused
            or ticket in engine.parked
            or ticket in engine.fetching
        )
        if not is_known and not any(completion.ticket == ticket for completion in engine.outbox):
            self.complete(ticket, -EIO, b"")

    def _take_turn(self, ticket: int) -> None:
        """It is the turn of something that has paused, whichever connection is served now."""
        try:
            self.go_on(ticket)
        except Exception as error:
            self._report_bug("a request that had paused", error)
        self.write_replies()

    # Results

    def drain(self) -> None:
        """Hand on what the engine has completed."""
        self._drain.run()

    def write_replies(self) -> None:
        """Write what is due on every connection; to be called behind what is no request."""
        self._drain.write_replies()
