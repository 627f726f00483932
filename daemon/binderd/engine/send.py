# SPDX-License-Identifier: Apache-2.0
"""Sending: BC_TRANSACTION and BC_REPLY, from the sender's command to the receiver's queue.

``send_call`` and ``send_reply`` are the two commands, each in two forms; ``_fill`` moves the
payload. What comes of it is a ``Transaction``. A command that raises ``NotYet`` has left nothing
behind, and is run again.

Mirrors binder_transaction and binder_proc_transaction.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, EPROTO
from typing import TYPE_CHECKING, Final

from binderd.engine.errors import BinderFailure
from binderd.engine.kinds import NOTICES
from binderd.engine.log import note
from binderd.engine.pause import Unfinished
from binderd.engine.ports import NotYet
from binderd.engine.process import Process
from binderd.engine.spam import SpamNotice
from binderd.engine.transaction import Transaction
from binderd.engine.translate import Translation
from binderd.engine.unfinished import Emptying
from binderd.engine.views import CALL, ONE_WAY, REPLY
from binderd.engine.work import Notice, enqueue
from binderwire.binder_abi import (
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_FROZEN_REPLY,
    BR_OK,
    BR_TRANSACTION_COMPLETE,
    BR_TRANSACTION_PENDING_FROZEN,
    TF_ACCEPT_FDS,
    TF_CLEAR_BUF,
    TF_ONE_WAY,
    TF_UPDATE_TXN,
    binder_transaction_data,
    binder_uintptr_t,
)

if TYPE_CHECKING:
    from binderd.engine.buffers import Buffer
    from binderd.engine.node import Node
    from binderd.engine.thread import Thread

_unpack: Final = binder_transaction_data.only(
    "target", "code", "flags", "data_size", "offsets_size", "buffer", "offsets"
)
_HANDLE_MASK: Final = 0xFFFFFFFF


def send_call(thread: Thread, data: bytes, offset: int) -> None:
    """BC_TRANSACTION: a call or, with TF_ONE_WAY, a one-way call."""
    _send_call(thread, data, offset, 0)


def send_call_sg(thread: Thread, data: bytes, offset: int) -> None:
    """BC_TRANSACTION_SG: a call with room for pieces of memory beside the data."""
    _send_call(thread, data, offset, _extra_size(data, offset))


def send_reply(thread: Thread, data: bytes, offset: int) -> None:
    """BC_REPLY: answer the innermost call that this thread has read."""
    _send_reply(thread, data, offset, 0)


def send_reply_sg(thread: Thread, data: bytes, offset: int) -> None:
    """BC_REPLY_SG: a reply with room for pieces of memory beside the data."""
    _send_reply(thread, data, offset, _extra_size(data, offset))


def _extra_size(data: bytes, offset: int) -> int:
    size: int = binder_uintptr_t.unpack_from(data, offset + binder_transaction_data.size)[0]
    return size


def _send_call(thread: Thread, data: bytes, offset: int, extra_size: int) -> None:
    """Queue a call at its target and a BR_TRANSACTION_COMPLETE at the sender.

    For a call that waits for a reply the latter is deferred until that is there (Q2). Failure
    leaves no trace at the target (B9) and gives the sender BR_FAILED_REPLY, BR_DEAD_REPLY or
    BR_FROZEN_REPLY (Q9).
    """
    target: int
    code: int
    flags: int
    data_size: int
    offsets_size: int
    address: int
    offsets: int
    target, code, flags, data_size, offsets_size, address, offsets = _unpack(data, offset)
    one_way = bool(flags & TF_ONE_WAY)
    handle, sizes = target & _HANDLE_MASK, (data_size, offsets_size, extra_size)
    debug_id = thread.process.hub.next_id()
    thread.extended_error = (debug_id, BR_OK, 0)  # E8
    target_ids = (0, 0, 0)
    try:
        euid = thread.sending_user(one_way=one_way)
        node, receiver = _find_target(thread.process, handle)
        target_ids = (0, 0, node.debug_id)
        target_thread = None if one_way else _find_nested(thread, receiver)
        target_tid = 0 if target_thread is None else target_thread.tid
        target_ids = (receiver.pid, target_tid, node.debug_id)
        buffer = _allocate_call(thread, node, receiver, sizes, flags)
        accepts_fds = node.accepts_fds
        rest = _fill(thread, receiver, buffer, address, offsets, accepts_fds=accepts_fds)
        if rest is not None:
            thread.unfinished = SendingCall(
                rest, (debug_id, code, flags, handle), sizes, euid, node
            )
            return
        if _is_frozen_for(receiver, one_way=one_way):
            receiver.discard_buffer(buffer)
            raise BinderFailure(BR_FROZEN_REPLY, 0)
    except BinderFailure as failure:
        _fail_call(thread, debug_id, target_ids, (handle, sizes), failure, one_way=one_way)
        return
    note(thread, debug_id, ONE_WAY if one_way else CALL, target_ids, handle, sizes, None)
    call = Transaction(thread, euid, debug_id, code, flags, buffer, receiver)
    _queue_call(thread, call, node, receiver, target_thread)


def _fail_call(
    thread: Thread,
    debug_id: int,
    target_ids: tuple[int, int, int],
    asked: tuple[int, tuple[int, int, int]],
    failure: BinderFailure,
    *,
    one_way: bool,
) -> None:
    """A call has failed: log it and tell the sender.

    Args:
        target_ids: of what it was sent to; see ``log.note``.
        asked: its handle and its sizes.
    """
    thread.extended_error = (debug_id, failure.reply, failure.param)
    note(thread, debug_id, ONE_WAY if one_way else CALL, target_ids, asked[0], asked[1], failure)
    thread.fail(failure.reply)


def _queue_call(
    thread: Thread, call: Transaction, node: Node, receiver: Process, target_thread: Thread | None
) -> None:
    """A call is at its target; the sender waits for the reply if there will be one."""
    call.started_ns = receiver.hub.clock()
    if call.flags & TF_ONE_WAY:
        _queue_one_way(thread, call, node, receiver)
        return
    enqueue(thread.todo, Notice(BR_TRANSACTION_COMPLETE, thread.process.user.of(NOTICES)))
    call.wait_for_reply(thread)
    _queue(call, receiver, target_thread)


def _is_frozen_for(receiver: Process, *, one_way: bool) -> bool:
    """Return whether a call is refused as its receiver is frozen, which is noted there (E3)."""
    if not receiver.is_frozen or one_way:
        return False
    receiver.received_sync = True
    return True


def _allocate_call(
    thread: Thread, node: Node, receiver: Process, sizes: tuple[int, int, int], flags: int
) -> Buffer:
    """Return the receiver's buffer for a call, with the sender's security context in it.

    Args:
        sizes: of data, offsets and the room for pieces of memory, in bytes.
    """
    one_way = bool(flags & TF_ONE_WAY)
    context = thread.process.security_context() if node.wants_security_context else b""
    buffer = receiver.allocate(
        (sizes[0], sizes[1], sizes[2], len(context)), thread.pid if one_way else None
    )
    node.acquire_local(strong=True)
    buffer.target_node = node
    if context:
        arena_offset = buffer.offset + buffer.context_address - buffer.address
        receiver.client.arena.write(arena_offset, context)
    buffer.clear = bool(flags & TF_CLEAR_BUF)
    return buffer


def _send_reply(thread: Thread, data: bytes, offset: int, extra_size: int) -> None:
    """Answer the innermost call that this thread has read.

    The call is over even if the reply fails: then the caller gets the error and the replier a plain
    BR_TRANSACTION_COMPLETE (E4, E5). Only with nothing to reply to does the replier get an error.
    """
    target: int
    code: int
    flags: int
    data_size: int
    offsets_size: int
    address: int
    offsets: int
    target, code, flags, data_size, offsets_size, address, offsets = _unpack(data, offset)
    handle, sizes = target & _HANDLE_MASK, (data_size, offsets_size, extra_size)
    call, debug_id = thread.stack, thread.process.hub.next_id()
    thread.extended_error = (debug_id, BR_OK, 0)  # E8
    target_ids = (0, 0, 0)
    if call is None or call.target_thread is not thread:
        failed = BinderFailure(BR_FAILED_REPLY, -EPROTO)
        thread.extended_error = (debug_id, failed.reply, failed.param)
        note(thread, debug_id, REPLY, target_ids, handle, sizes, failed)
        thread.fail(BR_FAILED_REPLY)
        return
    thread.nice.set(call.saved_nice)
    caller = call.sender
    try:
        if caller is None or caller.process.is_dead:
            raise BinderFailure(BR_DEAD_REPLY, 0)
        assert caller.stack is call, "a caller waits for its innermost call only"
        receiver = caller.process
        target_ids = (receiver.pid, caller.tid, 0)
        euid = thread.sending_user(one_way=True)
        buffer = receiver.allocate((data_size, offsets_size, extra_size, 0), None)
        buffer.clear = bool(flags & TF_CLEAR_BUF)
        accepts_fds = bool(call.flags & TF_ACCEPT_FDS)
        rest = _fill(thread, receiver, buffer, address, offsets, accepts_fds=accepts_fds)
        if rest is not None:
            thread.unfinished = SendingReply(
                rest, (debug_id, code, flags, handle), sizes, euid, call
            )
            return
    except BinderFailure as failure:
        _fail_reply(thread, debug_id, target_ids, (handle, sizes), failure, call)
        return
    note(thread, debug_id, REPLY, target_ids, handle, sizes, None)
    reply = Transaction(thread, euid, debug_id, code, flags, buffer, receiver)
    _queue_reply(thread, reply, call, caller, offsets_size)


def _fail_reply(
    thread: Thread,
    debug_id: int,
    target_ids: tuple[int, int, int],
    asked: tuple[int, tuple[int, int, int]],
    failure: BinderFailure,
    call: Transaction,
) -> None:
    """A reply to ``call`` has failed; arguments as ``_fail_call``."""
    caller = call.sender
    thread.stack = call.target_parent
    if caller is not None and caller.extended_error[1] == BR_OK:  # E4
        caller.extended_error = (debug_id, failure.reply, failure.param)
    note(thread, debug_id, REPLY, target_ids, asked[0], asked[1], failure)
    if not thread.is_quiet or asked[1][1]:
        thread.fail(BR_TRANSACTION_COMPLETE)
    call.send_failed_reply(failure.reply)


def _queue_reply(
    thread: Thread, reply: Transaction, call: Transaction, caller: Thread, offsets_size: int
) -> None:
    """Queue a reply at ``caller``, which waits for it.

    One with objects is confirmed in any case, as the thread may have to hear of their references.
    """
    thread.stack = call.target_parent
    if not thread.is_quiet or offsets_size:
        thread.enqueue(Notice(BR_TRANSACTION_COMPLETE, thread.process.user.of(NOTICES)))
    reply.started_ns = call.started_ns
    caller.stack = call.sender_parent
    call.sender = None
    call.free()
    caller.enqueue(reply)


def _find_target(process: Process, handle: int) -> tuple[Node, Process]:
    """Return the node that ``handle`` means to ``process``, and its owner (E1, E2)."""
    if handle:
        ref = process.handles.find(handle, strong=True)
        if ref is None:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        node = ref.node
    else:
        manager = process.context.manager  # handle 0 needs no ref (N1)
        if manager is None:
            raise BinderFailure(BR_DEAD_REPLY, -EINVAL)
        node = manager
    owner = node.process
    if owner is None or owner.is_dead:
        raise BinderFailure(BR_DEAD_REPLY, -EINVAL)
    if owner is process or (handle == 0 and owner.client.shares_opener(process.client)):
        raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
    assert isinstance(owner, Process)
    return node, owner


def _find_nested(thread: Thread, receiver: Process) -> Thread | None:
    """Return the thread of ``receiver`` that waits, however indirectly, for ``thread`` (Q4).

    Raises:
        BinderFailure: -EPROTO, this thread must first see to the call that it is in (Q6).
    """
    if isinstance(thread.todo.first, Transaction):
        raise BinderFailure(BR_FAILED_REPLY, -EPROTO)
    call = thread.stack
    if call is None:
        return None
    if call.target_thread is not thread:
        raise BinderFailure(BR_FAILED_REPLY, -EPROTO)
    return _waiting_for(call, receiver)


def _waiting_for(call: Transaction | None, receiver: Process) -> Thread | None:
    """Return the thread of ``receiver`` that waits for the innermost call of a stack."""
    while call is not None:
        if call.sender is not None and call.sender.process is receiver:
            return call.sender
        call = call.sender_parent
    return None


def _fill(
    thread: Thread,
    receiver: Process,
    buffer: Buffer,
    address: int,
    offsets: int,
    *,
    accepts_fds: bool,
) -> Translation | None:
    """Move the payload into ``buffer``; if that fails the buffer is gone again (B9).

    Returns:
        What is left to do if that is to go on later; else None.
    """
    try:
        if buffer.offsets_size or buffer.extra_size:
            translation = Translation(
                thread, receiver, buffer, address, offsets, accepts_fds=accepts_fds
            )
            if not translation.go_on():
                return translation
        elif buffer.data_size and not thread.memory.copy(
            address, buffer.data_size, receiver.client.arena, buffer.offset
        ):
            raise BinderFailure(BR_FAILED_REPLY, -EFAULT)
    except BinderFailure:
        receiver.discard_buffer(buffer)
        raise
    except NotYet:
        receiver.take_back_buffer(buffer)
        raise
    return None


class Sending(Unfinished):
    """A call or reply whose objects are not all translated.

    If that fails, what the objects hold is let go of step by step as well.

    Args:
        rest: what is left to do.
        header: its number, code, flags and handle.
        sizes: of data, offsets and the room for pieces of memory, in bytes.
        euid: the user that the receiver is shown.
    """

    __slots__ = ("_emptying", "_failure", "_rest", "euid", "header", "sizes")

    def __init__(
        self,
        rest: Translation,
        header: tuple[int, int, int, int],
        sizes: tuple[int, int, int],
        euid: int,
    ) -> None:
        super().__init__()
        self._rest = rest
        self._failure: BinderFailure | None = None
        self._emptying: Emptying | None = None
        self.header = header
        self.sizes = sizes
        self.euid = euid

    def go_on(self) -> bool:
        rest = self._rest
        receiver = rest.receiver
        if receiver.is_dead and self._failure is None:
            self._failure = BinderFailure(BR_DEAD_REPLY, 0)  # its buffers go with it
        if self._failure is None:
            try:
                if not rest.go_on():
                    return False
                self.check(rest.buffer)
            except BinderFailure as failure:
                self._failure = failure
                self._emptying = Emptying(receiver, rest.buffer)
            except NotYet:
                receiver.take_back_buffer(rest.buffer)
                raise
        if self._failure is not None and not rest.let_go():
            return False
        if self._emptying is not None and not self._emptying.go_on():
            return False
        if self._failure is not None:
            self.fail(self._failure)
        else:
            number, code, flags, _ = self.header
            sent = Transaction(rest.thread, self.euid, number, code, flags, rest.buffer, receiver)
            self.send(sent)
        return True

    def abandon(self) -> None:
        rest = self._rest
        if self._emptying is not None:
            self._emptying.abandon()
        elif not rest.receiver.is_dead:
            rest.receiver.discard_buffer(rest.buffer)

    def check(self, buffer: Buffer) -> None:
        """See whether it can still be delivered.

        Raises:
            BinderFailure: it cannot.
        """
        raise NotImplementedError

    def fail(self, failure: BinderFailure) -> None:
        """Tell that it has failed; the buffer is gone."""
        raise NotImplementedError

    def send(self, sent: Transaction) -> None:
        """Queue it."""
        raise NotImplementedError


class SendingCall(Sending):
    """A call; arguments as ``Sending`` has them, and its node."""

    __slots__ = ("_node",)

    def __init__(
        self,
        rest: Translation,
        header: tuple[int, int, int, int],
        sizes: tuple[int, int, int],
        euid: int,
        node: Node,
    ) -> None:
        super().__init__(rest, header, sizes, euid)
        self._node = node

    def check(self, buffer: Buffer) -> None:
        if _is_frozen_for(self._rest.receiver, one_way=bool(self.header[2] & TF_ONE_WAY)):
            raise BinderFailure(BR_FROZEN_REPLY, 0)

    def fail(self, failure: BinderFailure) -> None:
        number, _, flags, handle = self.header
        target_ids = (self._rest.receiver.pid, 0, self._node.debug_id)
        one_way = bool(flags & TF_ONE_WAY)
        asked = (handle, self.sizes)
        _fail_call(self._rest.thread, number, target_ids, asked, failure, one_way=one_way)

    def send(self, sent: Transaction) -> None:
        thread, receiver = self._rest.thread, self._rest.receiver
        number, _, flags, handle = self.header
        one_way = bool(flags & TF_ONE_WAY)
        # The thread that waited for this one when the call was begun may have gone.
        target = None if one_way else _waiting_for(thread.stack, receiver)
        target_ids = (receiver.pid, 0 if target is None else target.tid, self._node.debug_id)
        note(thread, number, ONE_WAY if one_way else CALL, target_ids, handle, self.sizes, None)
        _queue_call(thread, sent, self._node, receiver, target)


class SendingReply(Sending):
    """A reply; arguments as ``Sending`` has them, and the call that it answers."""

    __slots__ = ("_call",)

    def __init__(
        self,
        rest: Translation,
        header: tuple[int, int, int, int],
        sizes: tuple[int, int, int],
        euid: int,
        call: Transaction,
    ) -> None:
        super().__init__(rest, header, sizes, euid)
        self._call = call

    def check(self, buffer: Buffer) -> None:
        if self._call.sender is None:
            raise BinderFailure(BR_DEAD_REPLY, 0)

    def fail(self, failure: BinderFailure) -> None:
        number, _, _, handle = self.header
        caller = self._call.sender
        target_ids = (self._rest.receiver.pid, 0 if caller is None else caller.tid, 0)
        asked = (handle, self.sizes)
        _fail_reply(self._rest.thread, number, target_ids, asked, failure, self._call)

    def send(self, sent: Transaction) -> None:
        thread, caller = self._rest.thread, self._call.sender
        assert caller is not None
        number, _, _, handle = self.header
        target_ids = (self._rest.receiver.pid, caller.tid, 0)
        note(thread, number, REPLY, target_ids, handle, self.sizes, None)
        _queue_reply(thread, sent, self._call, caller, self.sizes[1])


def _queue_one_way(thread: Thread, call: Transaction, node: Node, receiver: Process) -> None:
    """Queue a one-way call, behind the others to its node (Q7), and tell the sender."""
    assert call.buffer is not None
    suspect = call.buffer.spam_suspect
    word = BR_TRANSACTION_COMPLETE
    if receiver.is_frozen:
        receiver.received_one_way = True
        word = BR_TRANSACTION_PENDING_FROZEN  # F3
    if node.has_one_way:
        if receiver.is_frozen and call.flags & TF_UPDATE_TXN:
            outdated = node.take_outdated(call)
            if outdated is not None:
                outdated.replaced()
        node.queue_one_way(call)  # its turn comes with BC_FREE_BUFFER
    else:
        node.has_one_way = True
        _queue(call, receiver, None)
    is_spam = suspect and word == BR_TRANSACTION_COMPLETE
    process = thread.process
    share = process.user.of(NOTICES)
    thread.enqueue(SpamNotice(word, process) if is_spam else Notice(word, share))


def _queue(call: Transaction, receiver: Process, thread: Thread | None) -> None:
    """Queue ``call`` for ``thread``, the thread that fell asleep last, or the process (Q1)."""
    if thread is None and receiver.waiting:
        thread, _ = receiver.waiting.popitem()
    if thread is not None:
        thread.enqueue(call)
    else:
        enqueue(receiver.todo, call)
        receiver.wake_pollers()
