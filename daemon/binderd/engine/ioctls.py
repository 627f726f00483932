# SPDX-License-Identifier: Apache-2.0
"""The ioctls beside BINDER_WRITE_READ: one function and one table row each.

A function gets the caller's thread and the argument as the client passed it, and returns the
argument as it goes back. A size check comes before it; the errno for an argument that cannot be
read differs from ioctl to ioctl in the driver, so it is a column of the table.

Mirrors binder_ioctl.
"""

from __future__ import annotations

from errno import EBUSY, EFAULT, EINVAL, ENOMEM, EPERM
from typing import TYPE_CHECKING, Final, NamedTuple

from binderd.engine.completion import Completion, Paused
from binderd.engine.errors import BinderFailure, KernelErrno
from binderd.engine.freeze import Freezing, has_calls
from binderd.engine.installation import report
from binderd.engine.ports import GONE, NoAnswer, NotYet
from binderd.engine.user import ROOT
from binderwire.binder_abi import (
    BINDER_CURRENT_PROTOCOL_VERSION,
    BINDER_ENABLE_ONEWAY_SPAM_DETECTION,
    BINDER_FREEZE,
    BINDER_GET_EXTENDED_ERROR,
    BINDER_GET_FROZEN_INFO,
    BINDER_GET_NODE_DEBUG_INFO,
    BINDER_GET_NODE_INFO_FOR_REF,
    BINDER_SET_CONTEXT_MGR,
    BINDER_SET_CONTEXT_MGR_EXT,
    BINDER_SET_MAX_THREADS,
    BINDER_THREAD_EXIT,
    BINDER_VERSION,
    BINDER_WRITE_READ,
    BR_OK,
    binder_extended_error,
    binder_freeze_info,
    binder_frozen_status_info,
    binder_node_debug_info,
    binder_node_info_for_ref,
    binder_version,
    binder_write_read,
    flat_binder_object,
    u32_value,
)
from binderwire.extension_abi import BINDERD_INSTALLED, binderd_installed

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.engine.process import Process
    from binderd.engine.thread import Thread

    # Returns the argument for the client, or what has to come first.
    Handler = Callable[[Thread, bytes], "bytes | Freezing"]


def _set_max_threads(thread: Thread, argument: bytes) -> bytes:
    thread.process.max_threads = u32_value.unpack_from(argument)[0]
    return b""


def _set_context_manager(thread: Thread, argument: bytes) -> bytes:
    """A node with ptr and cookie 0; the argument is ignored (N8)."""
    _become_manager(thread, 0, 0, 0)
    return b""


def _set_context_manager_ext(thread: Thread, argument: bytes) -> bytes:
    _, flags, ptr, cookie = flat_binder_object.unpack_from(argument)
    _become_manager(thread, ptr, cookie, flags)
    return b""


def _become_manager(thread: Thread, ptr: int, cookie: int, flags: int) -> None:
    """Make a node of the caller handle 0 (binder_ioctl_set_ctx_mgr, I5).

    Raises:
        KernelErrno: EBUSY, there is a manager; EPERM, the administrator does not let this user, or
            if nothing is settled the first one had another user.
    """
    process, context = thread.process, thread.process.context
    if context.manager is not None:
        raise KernelErrno(EBUSY)
    allowed = process.hub.managers(context.name)
    if allowed is None and context.manager_uid is not None:
        allowed = frozenset((context.manager_uid,))
    if allowed is not None and thread.uid not in allowed:
        raise KernelErrno(EPERM)
    context.manager_uid = thread.uid
    node = process.nodes.get(ptr)
    if node is None:
        try:
            node = process.node_for(ptr, cookie, flags)
        except BinderFailure:
            raise KernelErrno(ENOMEM) from None
    node.hold_as_manager()
    context.manager = node


def _thread_exit(thread: Thread, argument: bytes) -> bytes:
    thread.release()
    return b""


def _version(thread: Thread, argument: bytes) -> bytes:
    return binder_version.pack(BINDER_CURRENT_PROTOCOL_VERSION)


def _node_debug_info(thread: Thread, argument: bytes) -> bytes:
    """The caller's own node with the next higher ptr, all zero behind the last."""
    ptr = binder_node_debug_info.read(argument).ptr
    nodes = thread.process.nodes
    following = thread.process.ptr_after(ptr)
    if following is None:
        return bytes(binder_node_debug_info.size)
    node = nodes[following]
    return binder_node_debug_info.pack(node.ptr, node.cookie, node.has_strong, node.has_weak)


def _node_info_for_ref(thread: Thread, argument: bytes) -> bytes:
    """How often a node is referred to; for the context manager only.

    Raises:
        KernelErrno: EINVAL, a field beside the handle is set or the handle is not strong; EPERM.
    """
    handle, *others = binder_node_info_for_ref.unpack_from(argument)
    if any(others):
        raise KernelErrno(EINVAL)
    manager = thread.process.context.manager
    if manager is None or manager.process is not thread.process:
        raise KernelErrno(EPERM)
    ref = thread.process.handles.find(handle, strong=True)
    if ref is None:
        raise KernelErrno(EINVAL)
    strong = ref.node.local_strong + ref.node.internal_strong
    return binder_node_info_for_ref.pack(handle, strong, ref.node.local_weak, 0, 0, 0)


def _freeze(thread: Thread, argument: bytes) -> Freezing:
    """Freeze or thaw every open file of a process (F1, F2).

    Differs: the driver takes the pid as the initial namespace has it. Ours is the caller's, so that
    a container freezes its own processes and nobody else's.

    Raises:
        KernelErrno: EINVAL, the process has no open file; EAGAIN, calls are under way; EPERM, it is
            another user's and the administrator forbids that.
    """
    pid, enable, timeout_ms = binder_freeze_info.unpack_from(argument)
    processes = _processes_of(thread, pid)
    if not thread.process.hub.freezes_others and not _may_freeze(thread, processes):
        raise KernelErrno(EPERM)
    return Freezing(thread, processes, frozen=bool(enable), timeout_ms=timeout_ms)


def _may_freeze(thread: Thread, processes: list[Process]) -> bool:
    """Return whether processes are of the caller's user, or that is root."""
    try:
        return thread.uid == ROOT or all(one.client.user() == thread.uid for one in processes)
    except NoAnswer:
        raise KernelErrno(ENOMEM) from None


def _frozen_info(thread: Thread, argument: bytes) -> bytes:
    """What has arrived at a process since it was frozen.

    Raises:
        KernelErrno: EINVAL, the process has no open file.
    """
    pid = binder_frozen_status_info.read(argument).pid
    sync = one_way = 0
    for process in _processes_of(thread, pid):
        sync |= process.received_sync | has_calls(process) << 1
        one_way |= process.received_one_way
    return binder_frozen_status_info.pack(pid, sync, one_way)


def _processes_of(thread: Thread, pid: int) -> list[Process]:
    """Return the open files of a process, in all contexts, the latest first.

    Differs: the driver also finds those of a dead process that had the number before.

    Raises:
        KernelErrno: EINVAL, there are none; ENOMEM, it could not be asked whose they are.
    """
    client, processes = thread.process.client, reversed(thread.process.roster.processes)
    try:
        if client.is_foreign:
            found = [one for one in processes if client.pid_of(one.client) == pid != 0]
        else:
            found = [one for one in processes if one.pid == pid]
        found = [one for one in found if one.client.user() != GONE]
    except NoAnswer:
        raise KernelErrno(ENOMEM) from None
    if not found:
        raise KernelErrno(EINVAL)
    return found


def _enable_spam_detection(thread: Thread, argument: bytes) -> bytes:
    thread.process.detects_spam = bool(u32_value.unpack_from(argument)[0])
    return b""


def _extended_error(thread: Thread, argument: bytes) -> bytes:
    """Why the thread's latest transaction failed; reading resets it (E8)."""
    error, thread.extended_error = thread.extended_error, (0, BR_OK, 0)
    return binder_extended_error.pack(*error)


class Row(NamedTuple):
    """One ioctl."""

    handler: Handler
    size: int  # bytes of the argument that the driver reads
    bad_pointer: int = EFAULT  # errno if it cannot, or cannot write it


# Whatever has no row is EINVAL, the two that were never implemented among them.
IOCTLS: Final[dict[int, Row]] = {
    BINDER_SET_MAX_THREADS: Row(_set_max_threads, u32_value.size, EINVAL),
    BINDER_SET_CONTEXT_MGR: Row(_set_context_manager, 0),
    BINDER_SET_CONTEXT_MGR_EXT: Row(_set_context_manager_ext, flat_binder_object.size, EINVAL),
    BINDER_THREAD_EXIT: Row(_thread_exit, 0),
    BINDER_VERSION: Row(_version, binder_version.size, EINVAL),
    BINDER_GET_NODE_DEBUG_INFO: Row(_node_debug_info, binder_node_debug_info.size),
    BINDER_GET_NODE_INFO_FOR_REF: Row(_node_info_for_ref, binder_node_info_for_ref.size),
    BINDER_FREEZE: Row(_freeze, binder_freeze_info.size),
    BINDER_GET_FROZEN_INFO: Row(_frozen_info, binder_frozen_status_info.size),
    BINDER_ENABLE_ONEWAY_SPAM_DETECTION: Row(_enable_spam_detection, u32_value.size),
    BINDER_GET_EXTENDED_ERROR: Row(_extended_error, 0),
    BINDERD_INSTALLED: Row(report, binderd_installed.size),
}


def run(thread: Thread, request: int, argument: bytes, ticket: int) -> None:
    """Do an ioctl that is no BINDER_WRITE_READ; arguments as of ``Engine.ioctl``.

    Raises:
        KernelErrno: it fails.
    """
    row = IOCTLS.get(request)
    thread.memory.entered()
    try:
        if row is None:
            raise KernelErrno(EINVAL)
        if len(argument) < row.size:
            raise KernelErrno(row.bad_pointer)
        outcome = row.handler(thread, argument)
    except NotYet as reason:
        paused = PausedOther(thread, request, argument, ticket)
        thread.process.hub.await_fetch(paused, reason)
        return
    finally:
        thread.need_return = False
    if isinstance(outcome, Freezing):
        outcome.ticket = ticket
        outcome.go_on()
    else:
        thread.process.hub.outbox.append(Completion(ticket, 0, outcome))


class PausedOther(Paused):
    """An ioctl whose argument leads to what has to be fetched; it is done anew.

    Args:
        request, argument, ticket: as of ``Engine.ioctl``.
    """

    __slots__ = ("_argument", "_request", "thread")

    def __init__(self, thread: Thread, request: int, argument: bytes, ticket: int) -> None:
        super().__init__(ticket, thread.process.user.number)
        self.thread: Thread = thread
        self._request = request
        self._argument = argument

    def go_on(self) -> None:
        thread, hub, ticket = self.thread, self.thread.process.hub, self.ticket
        try:
            run(thread, self._request, self._argument, ticket)
        except KernelErrno as failure:
            hub.outbox.append(Completion(ticket, -failure.errno, self._argument))
        if ticket not in hub.fetching:
            thread.memory.forget()


def argument_of(request: int) -> tuple[int, int]:
    """Return how large an ioctl's argument is, and the errno where it cannot be written back.

    For a transport whose kernel leaves reading and writing it to us.

    Returns:
        (bytes that the driver reads, positive errno).
    """
    row = IOCTLS.get(request)
    if row is None:
        return binder_write_read.size if request == BINDER_WRITE_READ else 0, EFAULT
    return row.size, row.bad_pointer
