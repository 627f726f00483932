# SPDX-License-Identifier: Apache-2.0
"""A transaction: from the sender's command to the receiver's read, and back as a reply.

``send_call`` and ``send_reply`` are the two commands; ``_fill`` moves the payload; a
``Transaction`` is then a work item of its target until it is delivered, and the innermost entry of
both threads' stacks until it is answered.

The stacks: a thread's ``stack`` is its innermost call.  For an outgoing call the next one out is
``sender_parent``, for an incoming call it is ``target_parent``; one transaction is thus linked into
two stacks at once.

Mirrors binder_transaction and binder_proc_transaction.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, EPROTO
from typing import TYPE_CHECKING, Final

from binderd.engine.errors import BinderFailure
from binderd.engine.translate import fill_objects
from binderd.engine.work import Notice, Work, enqueue, pack_word
from binderwire.binder_abi import (
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_REPLY,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    TF_ONE_WAY,
    binder_transaction_data,
)

if TYPE_CHECKING:
    from binderd.engine.buffers import Buffer
    from binderd.engine.node import Node
    from binderd.engine.process import Process
    from binderd.engine.thread import Thread

_unpack: Final = binder_transaction_data.unpack_from
_pack: Final = binder_transaction_data.pack
_TRANSACTION: Final = pack_word(BR_TRANSACTION)
_REPLY: Final = pack_word(BR_REPLY)
_HANDLE_MASK: Final = 0xFFFFFFFF


class Transaction(Work):
    """A call, one-way call or reply that is under way."""

    __slots__ = (
        "_stats",
        "buffer",
        "code",
        "debug_id",
        "flags",
        "sender",
        "sender_euid",
        "sender_parent",
        "target_parent",
        "target_process",
        "target_thread",
    )

    def __init__(self, thread: Thread, code: int, flags: int, buffer: Buffer) -> None:
        engine = thread.process.engine
        self.queue = None
        self.debug_id = engine.next_id()
        self.code = code
        self.flags = flags
        self.sender: Thread | None = None  # who waits for the reply; None: nobody
        self.sender_parent: Transaction | None = None
        self.sender_euid = thread.uid
        self.target_process: Process | None = None
        self.target_thread: Thread | None = None  # set once somebody has read it
        self.target_parent: Transaction | None = None
        self.buffer: Buffer | None = buffer  # None once the receiver freed it
        buffer.transaction = self
        self._stats = engine.stats
        self._stats.transactions += 1

    # What the receiver sees

    def deliver(self, thread: Thread, out: bytearray) -> bool:
        """BR_TRANSACTION or BR_REPLY; ends the read (R4)."""
        buffer = self.buffer
        assert buffer is not None
        node, sender = buffer.target_node, self.sender
        out += _REPLY if node is None else _TRANSACTION
        out += _pack(
            0 if node is None else node.ptr,
            0 if node is None else node.cookie,
            self.code,
            self.flags,
            0 if sender is None else sender.process.pid,  # I1
            self.sender_euid,
            buffer.data_size,
            buffer.offsets_size,
            buffer.address,
            buffer.address + (buffer.data_size + 7 & ~7),  # B7
        )
        return True

    def delivered(self, thread: Thread) -> None:
        """``thread`` has it: the buffer is its to free, a call is its to answer."""
        buffer = self.buffer
        assert buffer is not None
        buffer.allow_user_free = True
        if buffer.target_node is not None and not self.flags & TF_ONE_WAY:
            self.target_parent = thread.stack
            self.target_thread = thread
            thread.stack = self
        else:
            self.free()

    def undeliverable(self) -> None:
        """The reader's buffer could not be written to (E1, binder_cleanup_transaction)."""
        self._fail(BR_FAILED_REPLY)

    def cancel(self) -> None:
        """The thread, process or node that should have read it is going."""
        self._fail(BR_DEAD_REPLY)

    def _fail(self, word: int) -> None:
        """Nobody will read it: tell the caller, and leave nothing behind.

        Differs: the driver keeps the buffer until its process goes, and with it, for a one-way
        call, all later ones to the same node.  We give both back.
        """
        buffer, process = self.buffer, self.target_process
        assert buffer is not None
        wants_reply = buffer.target_node is not None and not self.flags & TF_ONE_WAY
        if process is not None and not process.is_dead:
            process.free_buffer(buffer)
        if wants_reply:
            self.send_failed_reply(word)
        else:
            self.free()

    # Its end

    def free(self) -> None:
        """Forget the transaction; its buffer, if it has one still, belongs to the receiver."""
        if self.buffer is not None:
            self.buffer.transaction = None
            self.buffer = None
        self.target_process = self.target_thread = None
        self.sender_parent = self.target_parent = None
        self._stats.transactions -= 1

    def lose_target(self) -> None:
        """The thread that was to answer is going; the receiver keeps the buffer."""
        self.target_process = None
        self.target_thread = None
        if self.buffer is not None:
            self.buffer.transaction = None
            self.buffer = None

    def send_failed_reply(self, word: int) -> None:
        """Tell the caller, or if that is gone the next one out, that no reply will come (E5)."""
        call: Transaction | None = self
        while call is not None:
            sender, outer = call.sender, call.sender_parent
            if sender is not None:
                assert sender.stack is call
                sender.stack = outer
                call.sender = None
                call.free()
                sender.fail_reply(word)
                return
            call.free()
            call = outer


# The two commands


def send_call(thread: Thread, data: bytes, offset: int) -> None:
    """BC_TRANSACTION: a call or, with TF_ONE_WAY, a one-way call.

    Success queues it at the target and a BR_TRANSACTION_COMPLETE at the sender; for a call that is
    deferred until the reply is there (Q2).  Failure leaves no trace at the target (B9) and gives
    the sender BR_FAILED_REPLY or BR_DEAD_REPLY (Q9).
    """
    target, _, code, flags, _, _, data_size, offsets_size, address, offsets = _unpack(data, offset)
    one_way = bool(flags & TF_ONE_WAY)
    try:
        node, receiver = _find_target(thread.process, target & _HANDLE_MASK)
        target_thread = None if one_way else _find_nested(thread, receiver)
        buffer = receiver.allocate(data_size, offsets_size, 0, one_way=one_way)
        node.local_strong += 1
        buffer.target_node = node
        _fill(thread, receiver, buffer, address, offsets)
    except BinderFailure as failure:
        thread.fail(failure.reply)
        return
    call = Transaction(thread, code, flags, buffer)
    call.target_process = receiver
    complete = Notice(BR_TRANSACTION_COMPLETE)
    if one_way:
        if node.has_one_way:
            enqueue(node.one_way_todo, call)  # its turn comes with BC_FREE_BUFFER (Q7)
        else:
            node.has_one_way = True
            _queue(call, receiver, None)
        thread.enqueue(complete)
    else:
        enqueue(thread.todo, complete)
        call.sender = thread
        call.sender_parent = thread.stack
        thread.stack = call
        _queue(call, receiver, target_thread)


def send_reply(thread: Thread, data: bytes, offset: int) -> None:
    """BC_REPLY: answer the innermost call that this thread has read.

    The call is over even if the reply fails: then the caller gets the error and the replier a plain
    BR_TRANSACTION_COMPLETE (E4, E5).  Only with nothing to reply to does the replier get an error.
    """
    call = thread.stack
    if call is None or call.target_thread is not thread:
        thread.fail(BR_FAILED_REPLY)
        return
    _, _, code, flags, _, _, data_size, offsets_size, address, offsets = _unpack(data, offset)
    thread.stack = call.target_parent
    caller = call.sender
    try:
        if caller is None:
            raise BinderFailure(BR_DEAD_REPLY, 0)
        assert caller.stack is call, "a caller waits for its innermost call only"
        receiver = caller.process
        buffer = receiver.allocate(data_size, offsets_size, 0, one_way=False)
        _fill(thread, receiver, buffer, address, offsets)
    except BinderFailure as failure:
        thread.fail(BR_TRANSACTION_COMPLETE)
        call.send_failed_reply(failure.reply)
        return
    thread.enqueue(Notice(BR_TRANSACTION_COMPLETE))
    reply = Transaction(thread, code, flags, buffer)
    reply.target_process = receiver
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
    if owner is None:
        raise BinderFailure(BR_DEAD_REPLY, -EINVAL)
    if owner is process or (handle == 0 and owner.pid == process.pid):
        raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
    return node, owner


def _find_nested(thread: Thread, receiver: Process) -> Thread | None:
    """Return the thread of ``receiver`` that waits, however indirectly, for ``thread`` (Q4).

    Raises:
        BinderFailure: -EPROTO, this thread must first see to the call that it is in (Q6).
    """
    if thread.todo and isinstance(next(iter(thread.todo)), Transaction):
        raise BinderFailure(BR_FAILED_REPLY, -EPROTO)
    call = thread.stack
    if call is None:
        return None
    if call.target_thread is not thread:
        raise BinderFailure(BR_FAILED_REPLY, -EPROTO)
    while call is not None:
        if call.sender is not None and call.sender.process is receiver:
            return call.sender
        call = call.sender_parent
    return None


def _fill(thread: Thread, receiver: Process, buffer: Buffer, address: int, offsets: int) -> None:
    """Move the payload into ``buffer``; if that fails the buffer is gone again (B9)."""
    try:
        if buffer.offsets_size:
            fill_objects(thread, receiver, buffer, address, offsets)
        elif buffer.data_size and not thread.memory.copy(
            address, buffer.data_size, receiver.client.arena, buffer.offset
        ):
            raise BinderFailure(BR_FAILED_REPLY, -EFAULT)
    except BinderFailure:
        receiver.discard_buffer(buffer)
        raise


def _queue(call: Transaction, receiver: Process, thread: Thread | None) -> None:
    """Give ``call`` to ``thread``, or to whoever fell asleep last, or to the process (Q1)."""
    if thread is None and receiver.waiting:
        thread, _ = receiver.waiting.popitem()
    if thread is not None:
        thread.enqueue(call)
    else:
        enqueue(receiver.todo, call)
        receiver.wake_pollers()
