# SPDX-License-Identifier: Apache-2.0
"""The engine's facade: what a transport calls, and what it must do afterwards.

Every call runs to completion.  Each ioctl ends as exactly one ``Completion`` in ``outbox``, at once
or when a later call gives a blocked read something to return; the transport drains ``outbox`` and
``poll_wakes`` after every call and keeps their order.

The engine does no I/O, knows no clock and starts nothing.  Debug ids come from a counter of the
instance, so that two engines with the same inputs produce the same bytes.
"""

from __future__ import annotations

from collections import deque
from errno import EBUSY, EFAULT, EINTR, EINVAL, ENOMEM, EPERM
from typing import TYPE_CHECKING, Final

from binderd.engine import read, write
from binderd.engine.completion import Completion
from binderd.engine.context import Context
from binderd.engine.errors import BinderFailure, KernelErrno
from binderd.engine.limits import Limits
from binderd.engine.process import Process
from binderd.engine.stats import Stats
from binderd.engine.thread import POLL, WAITING, Thread, WriteRead
from binderwire.binder_abi import (
    BINDER_CURRENT_PROTOCOL_VERSION,
    BINDER_SET_CONTEXT_MGR,
    BINDER_SET_CONTEXT_MGR_EXT,
    BINDER_SET_MAX_THREADS,
    BINDER_THREAD_EXIT,
    BINDER_VERSION,
    BINDER_WRITE_READ,
    binder_version,
    binder_write_read,
    flat_binder_object,
    u32_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.engine.ports import Client

POLLIN: Final = 1
POLLERR: Final = 8

_unpack_write_read = binder_write_read.unpack_from


class Engine:
    """All contexts of one daemon.

    Args:
        limits: how much a client can make the engine keep.
    """

    __slots__ = (
        "_contexts",
        "_last_id",
        "limits",
        "outbox",
        "parked",
        "poll_wakes",
        "runnable",
        "stats",
    )

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.stats = Stats()
        self.outbox: list[Completion] = []
        self.poll_wakes: list[Process] = []
        self.parked: dict[int, Thread] = {}  # blocked reads by ticket
        self.runnable: deque[Thread] = deque()  # blocked threads that have something to look at
        self._contexts: dict[str, Context] = {}
        self._last_id = 0

    # Calls of the transport

    def open(self, context: str, pid: int, client: Client, *, nonblocking: bool = False) -> Process:
        """A device was opened (binder_open).

        Args:
            context: the device's name; equal names share a context.
            pid: the opener's process id in the daemon's pid namespace.
            client: its pages and memory.
            nonblocking: opened with O_NONBLOCK.

        Raises:
            KernelErrno: ENOMEM, too many open files.
        """
        if self.stats.processes >= self.limits.processes:
            raise KernelErrno(ENOMEM)
        shared = self._contexts.get(context)
        if shared is None:
            shared = self._contexts[context] = Context(context)
        return Process(self, shared, pid, client, nonblocking=nonblocking)

    def ioctl(
        self,
        process: Process,
        tid: int,
        uid: int,
        request: int,
        argument: bytes | memoryview,
        ticket: int,
    ) -> None:
        """An ioctl; its end appears in ``outbox``.

        Args:
            tid: the calling thread, in the daemon's pid namespace.
            uid: its effective user.
            request: the ioctl number.
            argument: the bytes that the number's size stands for; fewer if the client passed a
                pointer that cannot be read.
            ticket: any number that no open request has.
        """
        try:
            thread = process.threads.get(tid) or process.thread(tid)
            thread.uid = uid
            if request == BINDER_WRITE_READ:
                self._write_read(thread, argument, ticket)
            else:
                handler = _IOCTLS.get(request)
                if handler is None:
                    thread.need_return = False
                    raise KernelErrno(EINVAL)
                try:
                    payload = handler(self, thread, argument)
                finally:
                    thread.need_return = False
                self.outbox.append(Completion(ticket, 0, payload))
        except KernelErrno as failure:
            self.outbox.append(Completion(ticket, -failure.errno, bytes(argument)))
        if self.runnable:
            self._run()

    def poll(self, process: Process, tid: int, *, wake: bool) -> int:
        """Return POLLIN if the thread's next read would not block, else 0 (R15, binder_poll).

        Args:
            wake: if the answer is 0, put ``process`` into ``poll_wakes`` once that may change.

        Returns:
            POLLERR where there are too many threads.
        """
        try:
            thread = process.thread(tid)
        except KernelErrno:
            return POLLERR
        thread.looper |= POLL
        has_work = thread.process_todo or thread.need_return
        if has_work or (thread.stack is None and not thread.todo and process.todo):
            return POLLIN
        process.poll_armed = process.poll_armed or wake
        return 0

    def interrupt(self, ticket: int) -> None:
        """A signal reached the thread whose read is blocked under ``ticket`` (R9)."""
        thread = self.parked.get(ticket)
        if thread is not None and thread.parked is not None:
            thread.process.waiting.pop(thread, None)
            self.complete(thread, thread.parked, -EINTR)
            if thread.process.todo:
                thread.process.wake_one()
            self._run()

    def flush(self, process: Process) -> None:
        """Some descriptor of the file was closed (I4, binder_flush)."""
        process.flush()
        self._run()

    def thread_gone(self, process: Process, tid: int) -> None:
        """A thread died without BINDER_THREAD_EXIT.

        Differs: the driver keeps the thread object until the file is closed (I8).  Behind FUSE a
        BINDER_THREAD_EXIT with a NULL argument, which is the usual form, never reaches us; so its
        thread's death stands for it.
        """
        thread = process.threads.get(tid)
        if thread is not None:
            thread.release()
            self._run()

    def unmapped(self, process: Process) -> None:
        """The opener's pages are no longer mapped; senders get BR_DEAD_REPLY from now on (B8)."""
        process.unmap()

    def release(self, process: Process) -> None:
        """The file's last reference is gone (binder_release)."""
        process.release()
        self._run()

    def counts(self) -> dict[str, int]:
        """Return the number of live objects by kind; all zero when no file is open."""
        return {**self.stats.as_dict(), "parked": len(self.parked)}

    # Services for the nouns

    def next_id(self) -> int:
        """Return the next debug id."""
        self._last_id += 1
        return self._last_id

    def complete(self, thread: Thread, request: WriteRead, result: int) -> None:
        """End a BINDER_WRITE_READ; the argument goes back even with an errno (R8, R9)."""
        if thread.parked is not None:
            del self.parked[request.ticket]
            thread.parked = None
            thread.looper &= ~WAITING
        thread.need_return = False
        self.outbox.append(Completion(request.ticket, result, request.pack()))

    def abandon(self, thread: Thread) -> None:
        """End the read of a thread that is being released; only a broken transport sees this."""
        if thread.parked is not None:
            self.complete(thread, thread.parked, -EINTR)

    # Inside

    def _write_read(self, thread: Thread, argument: bytes | memoryview, ticket: int) -> None:
        if thread.parked is not None:
            raise KernelErrno(EBUSY)  # one thread, two requests: no kernel does this
        if len(argument) < binder_write_read.size:
            raise KernelErrno(EFAULT)
        request = WriteRead(ticket, _unpack_write_read(argument))
        if request.write_size:
            result = write.run(thread, request)
            if result:
                request.read_consumed = 0  # Q11
                self.complete(thread, request, result)
                return
        if request.read_size:
            read.begin(thread, request)
        else:
            self.complete(thread, request, 0)

    def _run(self) -> None:
        """Take up the reads of all threads that were woken."""
        runnable = self.runnable
        while runnable:
            thread = runnable.popleft()
            if thread.parked is not None:
                read.resume(thread, thread.parked)


# The other ioctls: each returns the argument as it goes back to the client.


def _set_max_threads(engine: Engine, thread: Thread, argument: bytes | memoryview) -> bytes:
    if len(argument) < u32_value.size:
        raise KernelErrno(EINVAL)  # not EFAULT
    thread.process.max_threads = u32_value.unpack_from(argument)[0]
    return b""


def _set_context_manager(engine: Engine, thread: Thread, argument: bytes | memoryview) -> bytes:
    """BINDER_SET_CONTEXT_MGR: a node with ptr and cookie 0 (N8)."""
    _become_manager(thread, 0, 0, 0)
    return b""


def _set_context_manager_ext(
    engine: Engine,
    thread: Thread,
    argument: bytes | memoryview,
) -> bytes:
    if len(argument) < flat_binder_object.size:
        raise KernelErrno(EINVAL)  # not EFAULT
    _, flags, ptr, cookie = flat_binder_object.unpack_from(argument)
    _become_manager(thread, ptr, cookie, flags)
    return b""


def _become_manager(thread: Thread, ptr: int, cookie: int, flags: int) -> None:
    """Make a node of the caller handle 0 (binder_ioctl_set_ctx_mgr, I5).

    Raises:
        KernelErrno: EBUSY, there is a manager; EPERM, the first one had another user.
    """
    process, context = thread.process, thread.process.context
    if context.manager is not None:
        raise KernelErrno(EBUSY)
    if context.manager_uid is None:
        context.manager_uid = thread.uid
    elif context.manager_uid != thread.uid:
        raise KernelErrno(EPERM)
    node = process.nodes.get(ptr)
    if node is None:
        try:
            node = process.node_for(ptr, cookie, flags)
        except BinderFailure:
            raise KernelErrno(ENOMEM) from None
    node.local_weak += 1
    node.local_strong += 1
    node.has_strong = node.has_weak = True
    context.manager = node


def _thread_exit(engine: Engine, thread: Thread, argument: bytes | memoryview) -> bytes:
    thread.release()
    return b""


def _version(engine: Engine, thread: Thread, argument: bytes | memoryview) -> bytes:
    return binder_version.pack(BINDER_CURRENT_PROTOCOL_VERSION)


# Whatever has no row is EINVAL, the two that were never implemented among them.
_IOCTLS: Final[dict[int, Callable[[Engine, Thread, bytes | memoryview], bytes]]] = {
    BINDER_SET_MAX_THREADS: _set_max_threads,
    BINDER_SET_CONTEXT_MGR: _set_context_manager,
    BINDER_SET_CONTEXT_MGR_EXT: _set_context_manager_ext,
    BINDER_THREAD_EXIT: _thread_exit,
    BINDER_VERSION: _version,
}
