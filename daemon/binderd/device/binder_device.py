# SPDX-License-Identifier: Apache-2.0
"""The meeting point: requests on open device files become engine calls, and back.

Theory of operation. A request's ``unique`` is the engine's ticket, so there is no table of
requests in flight: whatever the engine completes, now or much later, says itself which request
it answers. After every engine call ``drain`` turns the engine's outbox and poll wakes into
frames, in order.

The handlers have the signature and the return values that ``fuse/session.py`` describes.  Nothing
here may know file descriptors, memory mappings or trio; what must be made for an open file comes
through the ``Opener`` port.
"""

from __future__ import annotations

from errno import EACCES, EBADF, EINVAL, EIO, EMFILE, ENFILE, ENOENT, ENOTTY, ESTALE
from typing import TYPE_CHECKING, Final, Protocol

from binderd.device.control import POLL_EVENTS, control_ioctl
from binderd.device.extension import EXTENSION, extension_ioctl
from binderd.engine.completion import Completion, Paused
from binderd.engine.errors import KernelErrno
from binderd.fuse.frames import (
    BODY,
    USUAL_ARGUMENT_SIZE,
    ioctl_reply,
    ioctl_request,
    ioctl_result,
    poll_wakeup,
)
from binderd.fuse.pages import AGAIN, PRIVATE, Choice
from binderd.fuse.tree import CONTROL_ID
from binderwire.extension_abi import BINDERD_FLUSH
from binderwire.fuse_abi import (
    FILE_ATTRIBUTE_IOCTLS,
    FOPEN_DIRECT_IO,
    FOPEN_NONSEEKABLE,
    FOPEN_PASSTHROUGH,
    FUSE_POLL_SCHEDULE_NOTIFY,
    O_DIRECT,
    O_NONBLOCK,
    O_RDONLY,
    fuse_flush_in,
    fuse_interrupt_in,
    fuse_ioctl_in,
    fuse_open_in,
    fuse_open_out,
    fuse_poll_in,
    fuse_poll_out,
    fuse_release_in,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.device.opener import OpenedClient, Opener
    from binderd.device.pace import Pace
    from binderd.engine.engine import Engine
    from binderd.engine.ports import ClientMemory, NotYet
    from binderd.engine.ports import OpenFile as EngineFile
    from binderd.fuse.directory import Directory
    from binderd.fuse.tree import Tree
    from binderd.fuse.turns import Turns

# PASSTHROUGH gives the client's mmap the backing file's pages; DIRECT_IO beside it keeps read(2)
# and write(2) away from them: those come to us and are refused, as the driver refuses them.
_OPEN_FLAGS: Final = FOPEN_PASSTHROUGH | FOPEN_DIRECT_IO
_OPEN_FLAGS_WITHOUT_MMAP: Final = FOPEN_DIRECT_IO
# The flags of an open that no 64-bit program can make, as it has no O_LARGEFILE: the kernel itself
# opens the inode, to ask for what lsattr shows.
_LSATTR: Final = O_RDONLY

_CONTROL_HANDLE: Final = 1  # of every open file of binder-control
_CONTROL_FLAGS: Final = FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE

_ARGUMENT: Final = BODY + fuse_ioctl_in.size  # where an ioctl's argument starts in its frame
_REPLY_SIZE: Final = ioctl_reply.size

_unpack_ioctl = ioctl_request.unpack_from
_pack_ioctl = ioctl_reply.pack
_unpack_poll = fuse_poll_in.unpack_from


class Outlet(Protocol):
    """A channel beside that of the file system: what is put there must be flushed."""

    outgoing: list[bytes]

    def flush(self) -> None:
        """Write what was put there; never waits."""


class Reply(Paused):
    """A request whose argument the kernel did not bring along; it may wait for that, or to end."""

    __slots__ = ()

    def finish(self, result: int, payload: bytes) -> None:
        """Write the argument back and answer; arguments as ``Completion`` has them."""
        raise NotImplementedError


class OpenFile:
    """One open file of a device, from FUSE_OPEN to FUSE_RELEASE.

    Args:
        nodeid: of its inode; 0: of none, it is CUSE's.
        outlet: the channel that it was opened through; None: that of the file system.
    """

    __slots__ = ("client", "kernel_handle", "nodeid", "outlet", "process")

    def __init__(
        self, nodeid: int, client: OpenedClient, process: EngineFile, outlet: Outlet | None
    ) -> None:
        self.nodeid = nodeid
        self.client = client
        self.process = process
        self.outlet = outlet
        self.kernel_handle = 0  # under which handle do its pollers wait, if any wait?


class BinderDevice:
    """All open files of all devices.

    Args:
        engine: the driver.
        tree: for the inode that is being opened.
        directory: the devices, for binder-control.
        opener: makes the outside half of a new open file.
        outgoing: where frames for the kernel are put; the session has the same list.
        start_timer: called with a number and milliseconds; ``expire`` takes the number later. With
            negative milliseconds: stop it.
        pace: how long the engine works in one go.
        have_paused: called while something is paused; ``go_on`` must be called for each ticket.
        turns: everybody's; told who pays for an open file.
    """

    __slots__ = (
        "_by_process",
        "_closing",
        "_directory",
        "_engine",
        "_files",
        "_have_paused",
        "_next_handle",
        "_opener",
        "_outbox",
        "_pace",
        "_paused",
        "_poll_wakes",
        "_released",
        "_start_timer",
        "_timers",
        "_tree",
        "_turns",
        "_unusual",
        "choice",
        "outgoing",
    )

    def __init__(
        self,
        engine: Engine,
        tree: Tree,
        directory: Directory,
        opener: Opener,
        outgoing: list[bytes],
        start_timer: Callable[[int, int], None],
        pace: Pace,
        have_paused: Callable[[], None],
        turns: Turns,
    ) -> None:
        self.outgoing = outgoing
        self._engine = engine
        self._pace = pace
        engine.set_pace(pace.is_over)
        self._paused = engine.paused
        self._released = engine.released
        self._have_paused = have_paused
        self._outbox = engine.outbox
        self._poll_wakes = engine.poll_wakes
        self._timers = engine.timers
        self._start_timer = start_timer
        self._turns = turns
        self._tree = tree
        self._directory = directory
        self._opener = opener
        self.choice = Choice()
        self._next_handle = _CONTROL_HANDLE + 1
        self._files: dict[int, OpenFile] = {}
        self._by_process: dict[EngineFile, OpenFile] = {}
        self._closing: dict[EngineFile, OpenedClient] = {}  # of files that are being released
        # ticket -> how to reply, for requests whose argument has an unusual size (then it is the
        # room in the reply, in bytes) or is not brought by the kernel
        self._unusual: dict[int, int | Reply] = {}

    def __len__(self) -> int:
        """How many files are open?"""
        return len(self._files)

    def lack_passthrough(self) -> None:
        """The kernel maps nothing that we give it; to be called before anything is opened."""
        self.choice.can_share = False
        self._tree.shows_zeros = True
        self._opener.lack_passthrough()

    def try_passthrough(self) -> None:
        """See whether the kernel takes from us what it says that it can map."""
        if self.choice.can_share and not self._opener.can_back():
            self.lack_passthrough()

    # Requests

    def open(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_OPEN (binder_open)."""
        node = self._tree.node(nodeid)
        if node is None:
            if nodeid == CONTROL_ID:
                return fuse_open_out.pack(_CONTROL_HANDLE, _CONTROL_FLAGS, 0)
            return ENOENT
        flags, _ = fuse_open_in.unpack_from(frame, BODY)
        if not node.device.is_listed and not node.opens:
            return ENOENT  # unlinked since it was looked up
        if flags & O_DIRECT:
            return EINVAL
        if not tid:
            # Differs: a client outside our pid namespace has no number here, so there is no way
            # to its memory.
            return self.refuse_stranger()
        pages = self.choice.of(node, nodeid, tid)
        if pages == AGAIN:
            return EINVAL if flags == _LSATTR else ESTALE
        handle = self.open_file(
            node.device.context, nodeid, uid, tid, flags, None, is_private=pages == PRIVATE
        )
        if handle < 0:
            return -handle
        backing_id = self._files[handle].client.backing_id
        self._tree.opened(nodeid, node.pages or pages)
        open_flags = _OPEN_FLAGS if backing_id else _OPEN_FLAGS_WITHOUT_MMAP
        return fuse_open_out.pack(handle, open_flags, backing_id)

    def open_file(
        self,
        context: str,
        nodeid: int,
        uid: int,
        tid: int,
        flags: int,
        outlet: Outlet | None,
        *,
        is_private: bool = False,
    ) -> int:
        """Open a device for the thread ``tid`` of the user ``uid``.

        Args:
            context: the device's.
            nodeid: its inode, 0 if there is none.
            flags: of open(2).
            outlet: the channel through which it is asked for, None: that of the file system.
            is_private: do clients of that inode have pages of their own?

        Returns:
            The handle (positive) or a negative errno.
        """
        policy = self._directory.policy_of(context)
        try:
            if not policy.is_open() and not policy.admits(*self._opener.credentials(tid)):
                return -EACCES
            client = self._opener.open(tid, nodeid, is_private=is_private)
        except OSError as error:
            # EMFILE is about our table of descriptors; to the client it would mean its own.
            return -ENFILE if error.errno == EMFILE else -(error.errno or EIO)
        try:
            process = self._engine.open(
                context, client.pid, client, nonblocking=bool(flags & O_NONBLOCK)
            )
        except KernelErrno as error:
            client.close()
            return -error.errno
        except BaseException:
            client.close()
            raise
        client.adopt(self._engine, process)
        handle = self._next_handle
        self._next_handle += 1
        file = OpenFile(nodeid, client, process, outlet)
        self._files[handle] = self._by_process[process] = file
        self._turns.opened(handle, uid, client.payer, client.pid)
        return handle

    def refuse_stranger(self) -> int:
        """Return the errno for who opens a device and has no thread id; see ``open``."""
        return self._opener.refuse_stranger()

    def file(self, handle: int) -> OpenFile | None:
        """Return the open file of that handle."""
        return self._files.get(handle)

    def ioctl(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_IOCTL (binder_ioctl): the one request that matters for speed."""
        handle, _, request, _, in_size, out_size, argument = _unpack_ioctl(frame, BODY)
        file = self._files.get(handle)
        if _ARGUMENT + in_size > size:
            return EINVAL
        if file is None:
            if handle != _CONTROL_HANDLE:
                return ENOTTY  # a directory; the driver's files are all in the table
            argument = bytes(frame[_ARGUMENT : _ARGUMENT + in_size])
            self._control_ioctl(unique, request, argument, out_size)
            return None
        if not tid:
            return EACCES  # as in open
        if in_size != USUAL_ARGUMENT_SIZE or out_size != USUAL_ARGUMENT_SIZE:
            if request in FILE_ATTRIBUTE_IOCTLS:
                return EINVAL  # the kernel's own; it takes no other form of answer
            argument = bytes(frame[_ARGUMENT : _ARGUMENT + in_size])
            if request in EXTENSION:
                result, payload = self.extension_ioctl(file, tid, request, argument)
                self.outgoing.append(ioctl_result(unique, result, payload[:out_size]))
                return None
            self._unusual[unique] = out_size
        try:
            self._engine.ioctl(file.process, tid, uid, request, argument, unique)
        except BaseException:
            self._unusual.pop(unique, None)
            raise
        self.drain()
        return None

    def ioctl_from(
        self,
        file: OpenFile,
        tid: int,
        uid: int,
        request: int,
        argument: bytes,
        reply: Reply,
    ) -> None:
        """Do an ioctl whose argument the kernel did not bring; ``reply`` ends it."""
        ticket = reply.ticket
        self._unusual[ticket] = reply
        try:
            self._engine.ioctl(file.process, tid, uid, request, argument, ticket)
        except BaseException:
            self._unusual.pop(ticket, None)
            raise
        self.drain()

    def memory_of(self, file: OpenFile, tid: int) -> ClientMemory:
        """Return the memory of a thread that does such an ioctl; see ``Engine.memory_of``."""
        return self._engine.memory_of(file.process, tid)

    def await_errand(self, reply: Reply, reason: NotYet) -> None:
        """Such an ioctl goes on once somebody has fetched or stored its argument."""
        self._unusual[reply.ticket] = reply
        self._engine.await_errand(reply, reason)

    def has_ended(self, reply: Reply) -> None:
        """Such an ioctl is answered, after it had waited."""
        self._unusual.pop(reply.ticket, None)

    def extension_ioctl(
        self, file: OpenFile, tid: int, request: int, argument: bytes
    ) -> tuple[int, bytes]:
        """Do an ioctl of the extension; results as ``device/extension.py`` has them."""
        if request == BINDERD_FLUSH:
            self._engine.flush(file.process)
        answer = extension_ioctl(file.client, tid, request, argument)
        self.drain()  # attaching anew ends what waits for the socket before
        return answer

    def poll(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_POLL (binder_poll)."""
        handle, kernel_handle, flags, _ = _unpack_poll(frame, BODY)
        file = self._files.get(handle)
        if file is None:
            return fuse_poll_out.pack(POLL_EVENTS, 0) if handle == _CONTROL_HANDLE else EBADF
        if not tid:
            return EACCES  # as in open
        wake = bool(flags & FUSE_POLL_SCHEDULE_NOTIFY)
        return fuse_poll_out.pack(self.poll_file(handle, tid, kernel_handle if wake else 0), 0)

    def poll_file(self, handle: int, tid: int, kernel_handle: int) -> int:
        """Return what a poll of an open file finds.

        Args:
            kernel_handle: what to notify when it may find more; 0: nobody waits for that.
        """
        file = self._files[handle]
        if kernel_handle:
            file.kernel_handle = kernel_handle
        events = self._engine.poll(file.process, tid, wake=bool(kernel_handle))
        self.drain()
        return events

    def flush(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_FLUSH (binder_flush): one descriptor of the file was closed."""
        handle = fuse_flush_in.unpack_from(frame, BODY)[0]
        file = self._files.get(handle)
        if file is None:
            return b"" if handle == _CONTROL_HANDLE else EBADF
        # A device file on its way to another process is open here as well (O10); that is no
        # descriptor that anybody has closed.
        if not self._opener.is_own(tid):
            self._engine.flush(file.process)
            self.drain()
        return b""

    def release(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_RELEASE (binder_release): the last descriptor of the file is gone."""
        handle = fuse_release_in.unpack_from(frame, BODY)[0]
        if handle == _CONTROL_HANDLE:
            return b""
        return self.release_file(handle) or b""

    def release_file(self, handle: int) -> int:
        """The last descriptor of an open file is gone; return 0 or EBADF."""
        file = self._files.pop(handle, None)
        if file is None:
            return EBADF
        self._turns.closed(handle)
        del self._by_process[file.process]
        if file.nodeid:
            self._tree.closed(file.nodeid)
        self._closing[file.process] = file.client
        try:
            self._engine.release(file.process)
        except BaseException:
            self._closing.pop(file.process).close()
            raise
        self.drain()
        return 0

    def interrupt(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_INTERRUPT: a signal arrived for the thread whose request this names.

        The kernel wants the interrupted request answered, not the interruption. It always hands
        out a request before its interruption, so one that is unknown here has been answered.
        """
        self.interrupt_ticket(fuse_interrupt_in.unpack_from(frame, BODY)[0])
        return None

    def interrupt_ticket(self, ticket: int) -> None:
        """A signal arrived for the thread whose request has that ticket."""
        self._engine.interrupt(ticket)
        self.drain()

    def _control_ioctl(self, unique: int, request: int, argument: bytes, out_size: int) -> None:
        result, payload = control_ioctl(self._directory, request, argument)
        self.outgoing.append(ioctl_result(unique, result, payload[:out_size]))

    # What the outside noticed by itself

    def thread_gone(self, process: EngineFile, tid: int) -> None:
        """A thread that had used the file has ended."""
        if process in self._by_process:
            self._engine.thread_gone(process, tid)
            self.drain()

    def unmapped(self, process: EngineFile) -> None:
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
            self._outbox.append(Completion(ticket, -EIO, b""))

    # Results

    def drain(self) -> None:
        """Turn the engine's outbox and poll wakes into frames."""
        self._opener.heed_stalls()
        outbox = self._outbox
        if outbox:
            append = self.outgoing.append
            unusual = self._unusual
            for ticket, result, payload in outbox:
                if len(payload) == USUAL_ARGUMENT_SIZE and not unusual:
                    append(_pack_ioctl(_REPLY_SIZE, 0, ticket, result, 0, 0, 0, payload))
                else:
                    # More than the client asked for would make the kernel fail the whole reply.
                    reply = unusual.pop(ticket, USUAL_ARGUMENT_SIZE)
                    if isinstance(reply, int):
                        append(ioctl_result(ticket, result, payload[:reply]))
                    else:
                        reply.finish(result, payload)
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
            self._have_paused()

    def _close_released(self) -> None:
        """Close clients of which nothing will be used any more, each once whatever it does."""
        while self._released:
            self._closing.pop(self._released.pop(0)).close()

    def _wake_pollers(self) -> None:
        for process in self._poll_wakes:
            file = self._by_process.get(process)
            if file is not None and file.kernel_handle:
                wakeup = poll_wakeup(file.kernel_handle)
                file.kernel_handle = 0  # whoever still waits asks again, and says so
                if file.outlet is None:
                    self.outgoing.append(wakeup)
                else:
                    file.outlet.outgoing.append(wakeup)
                    file.outlet.flush()
        self._poll_wakes.clear()
