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

from binderd.engine import installation, views
from binderd.engine.errors import BinderFailure
from binderd.engine.kinds import CALLS, NOTICES
from binderd.engine.log import CALL, ONE_WAY, REPLY, note
from binderd.engine.ports import NoAnswer, NotYet
from binderd.engine.translate import Translation
from binderd.engine.views import TransactionView, WorkView
from binderd.engine.work import (
    LAST,
    MORE,
    UNREADY,
    Notice,
    SpamNotice,
    UpdateKey,
    Work,
    enqueue,
    pack_word,
)
from binderwire.binder_abi import (
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_FROZEN_REPLY,
    BR_OK,
    BR_REPLY,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    BR_TRANSACTION_PENDING_FROZEN,
    BR_TRANSACTION_SEC_CTX,
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
    from binderd.engine.process import Process
    from binderd.engine.thread import Thread, WriteRead
    from binderd.engine.user import Share

_unpack: Final = binder_transaction_data.unpack_from
_pack: Final = binder_transaction_data.pack
_CALL: Final = (pack_word(BR_TRANSACTION), pack_word(BR_TRANSACTION_SEC_CTX))
_REPLY: Final = pack_word(BR_REPLY)
_HANDLE_MASK: Final = 0xFFFFFFFF
_UPDATE: Final = TF_ONE_WAY | TF_UPDATE_TXN


class Transaction(Work):
    """A call, one-way call or reply that is under way."""

    __slots__ = (
        "_calls",
        "_stats",
        "buffer",
        "code",
        "debug_id",
        "flags",
        "nice",
        "saved_nice",
        "sender",
        "sender_euid",
        "sender_parent",
        "sender_pid",
        "sender_tid",
        "started_ns",
        "target_parent",
        "target_process",
        "target_thread",
    )

    def __init__(
        self,
        thread: Thread,
        euid: int,
        debug_id: int,
        code: int,
        flags: int,
        buffer: Buffer,
        target: Process,
    ) -> None:
        self.queue = None
        self._calls: Share | None = None  # who is charged for a call that waits for its reply
        self.debug_id = debug_id
        self.code = code
        self.flags = flags
        self.sender: Thread | None = None  # who waits for the reply; None: nobody
        self.sender_parent: Transaction | None = None
        self.sender_euid = euid  # the opener's even if somebody else has the file in hand (I1)
        self.sender_pid = thread.pid  # who did send it; to compare only
        self.sender_tid = thread.tid
        self.started_ns = 0  # when its call was sent, by the engine's clock
        self.nice = 0  # of the sender of a call
        self.saved_nice = 0  # of the receiving thread, before it took the call
        self.target_process: Process | None = target
        target.outstanding += 1
        self.target_thread: Thread | None = None  # set once somebody has read it
        self.target_parent: Transaction | None = None
        self.buffer: Buffer | None = buffer  # None once the receiver freed it
        buffer.transaction = self
        buffer.debug_id = debug_id
        self._stats = target.engine.stats
        self._stats.transactions += 1
        self._stats.transactions_made += 1

    # What the receiver sees

    def deliver(self, thread: Thread, out: bytearray) -> int:
        """BR_TRANSACTION or BR_REPLY; ends the read (R4)."""
        buffer, client = self.buffer, thread.process.client
        assert buffer is not None
        if buffer.files:
            attempt = thread.installation
            if attempt is None:
                return UNREADY
            thread.installation = None
            if attempt.numbers is None:
                return self._refuse(thread, out)
            buffer.fill_in(attempt.numbers, thread.process)
        node, sender = buffer.target_node, self.sender
        try:
            pid = 0 if sender is None else sender.shown_pid(client, self.sender_euid)
            euid = client.uid_of(self.sender_euid) if client.is_foreign else self.sender_euid
        except NoAnswer:
            return self._refuse(thread, out)
        if node is not None:
            self._lend_nice(thread, node)
        if node is None:
            out += _REPLY
            thread.process.count_return(BR_REPLY)
        else:
            out += _CALL[bool(buffer.context_size)]
            thread.process.count_return(BR_TRANSACTION)
        out += _pack(
            0 if node is None else node.ptr,
            0 if node is None else node.cookie,
            self.code,
            self.flags,
            pid,
            euid,
            buffer.data_size,
            buffer.offsets_size,
            buffer.address,
            buffer.address + (buffer.data_size + 7 & ~7),  # B7
        )
        if buffer.context_size:
            out += binder_uintptr_t.pack(buffer.context_address)  # I2
        return LAST

    def begin_installation(self, thread: Thread, request: WriteRead) -> bool:
        """Begin to give the reader the files of the payload (O7)."""
        assert self.buffer is not None
        return installation.begin(thread, request, self.buffer)

    def stored(self, thread: Thread, *, ok: bool) -> None:
        """The reader has it; or its read buffer could not be written to (E1)."""
        if self.buffer is None:
            return  # was refused
        if ok:
            self._delivered(thread)
        else:
            self._fail(BR_FAILED_REPLY)  # binder_cleanup_transaction

    def withdraw(self, thread: Thread) -> bool:
        """Its addresses mean something else to the new program, or nothing."""
        if self.buffer is None:
            return False  # was refused
        self._fail(BR_DEAD_REPLY if thread.process.is_unmapped else BR_FAILED_REPLY)
        return True

    def arrive(self, thread: Thread, out: bytearray, before: int) -> bool:
        """Bring the payload where its reader has pages of its own."""
        word = BR_OK if self.buffer is None else thread.process.bring(self.buffer)
        if word != BR_OK:
            del out[before:]
            self._refuse(thread, out, word)
        return word == BR_OK

    def _refuse(self, thread: Thread, out: bytearray, word: int = BR_FAILED_REPLY) -> int:
        """The payload, its files or its sender's number cannot be given to the reader (O8).

        Who waits for a reply learns it here, who called learns it as a failed call, and the reader
        of a call sees nothing.
        """
        assert self.buffer is not None
        is_reply = self.buffer.target_node is None
        self._fail(word)
        if is_reply:
            thread.process.count_return(word)
            out += pack_word(word)
        return LAST if is_reply else MORE

    def _lend_nice(self, thread: Thread, node: Node) -> None:
        """The receiver works at the caller's nice value, bounded by the node's (I3)."""
        self.saved_nice = thread.nice()
        one_way = self.flags & TF_ONE_WAY
        if self.nice < node.min_priority and not one_way:
            thread.set_nice(self.nice)
        elif not one_way or self.saved_nice > node.min_priority:
            thread.set_nice(node.min_priority)

    def _delivered(self, thread: Thread) -> None:
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

    def cancel(self) -> None:
        """The thread, process or node that should have read it is going."""
        self._fail(BR_DEAD_REPLY)

    def update_key(self) -> UpdateKey | None:
        if self.flags & _UPDATE != _UPDATE:
            return None
        # The user as well: a number may be somebody else's by now.
        return self.code, self.flags, self.sender_pid, self.sender_euid

    def replaced(self) -> None:
        """A later one-way call has taken its place (F4)."""
        buffer, receiver = self.buffer, self.target_process
        assert buffer is not None and receiver is not None
        self.free()
        receiver.discard_buffer(buffer)

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

    # What introspection sees

    def kind(self) -> int:
        return views.TRANSACTION

    def view(self, process: Process, thread: Thread | None, now: int) -> WorkView:
        return WorkView(views.TRANSACTION, call=self.as_seen_by(process, thread, now))

    def as_seen_by(self, process: Process, thread: Thread | None, now: int) -> TransactionView:
        """Return what ``process`` has of it, in a queue or stack of ``thread`` or in its own."""
        buffer, target = self.buffer, self.target_process
        is_reply = buffer is not None and buffer.target_node is None
        tid = 0 if self.target_thread is None else self.target_thread.tid
        if self.queue is not None and thread is not None and (is_reply or thread.stack is not None):
            tid = thread.tid  # it was sent to this very thread
        place = None
        if buffer is not None:
            node_id = 0 if buffer.target_node is None else buffer.target_node.debug_id
            place = (node_id, buffer.data_size, buffer.offsets_size, buffer.offset)
        return TransactionView(
            self.debug_id,
            self.sender_pid,
            self.sender_tid,
            0 if target is None else target.pid,
            tid,
            self.code,
            self.flags,
            self.nice,
            not is_reply and not self.flags & TF_ONE_WAY,
            (now - self.started_ns) // 1_000_000,
            target is process,
            place,
        )

    # Its end

    def wait_for_reply(self, thread: Thread) -> None:
        """It is a call, and the innermost of its sender."""
        self.nice = thread.nice()
        self.sender = thread
        self.sender_parent = thread.stack
        thread.stack = self
        self._calls = thread.process.user.of(CALLS)
        self._calls.add(1)

    def uncharge(self) -> None:
        """Nobody waits for the reply any more."""
        if self._calls is not None:
            self._calls.remove(1)
            self._calls = None

    def free(self) -> None:
        """Forget the transaction; its buffer, if it has one still, belongs to the receiver."""
        self.uncharge()
        if self.buffer is not None:
            self.buffer.transaction = None
            self.buffer = None
        self._leave_target()
        self.sender_parent = self.target_parent = None
        self._stats.transactions -= 1

    def lose_target(self) -> None:
        """The thread that was to answer is going; the receiver keeps the buffer."""
        self._leave_target()
        if self.buffer is not None:
            self.buffer.transaction = None
            self.buffer = None

    def _leave_target(self) -> None:
        if self.target_process is not None:
            self.target_process.end_transaction()
        self.target_process = self.target_thread = None

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


# The two commands, each in two forms


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
    target, _, code, flags, _, _, data_size, offsets_size, address, offsets = _unpack(data, offset)
    one_way = bool(flags & TF_ONE_WAY)
    handle, sizes = target & _HANDLE_MASK, (data_size, offsets_size, extra_size)
    debug_id = thread.process.engine.next_id()
    thread.extended_error = (debug_id, BR_OK, 0)  # E8
    found = (0, 0, 0)
    try:
        euid = thread.sending_user(one_way=one_way)
        node, receiver = _find_target(thread.process, handle)
        found = (0, 0, node.debug_id)
        target_thread = None if one_way else _find_nested(thread, receiver)
        found = (receiver.pid, 0 if target_thread is None else target_thread.tid, node.debug_id)
        buffer = _fill_call(thread, node, receiver, sizes, flags, (address, offsets))
    except BinderFailure as failure:
        thread.extended_error = (debug_id, failure.reply, failure.param)
        note(thread, debug_id, ONE_WAY if one_way else CALL, found, handle, sizes, failure)
        thread.fail(failure.reply)
        return
    note(thread, debug_id, ONE_WAY if one_way else CALL, found, handle, sizes, None)
    call = Transaction(thread, euid, debug_id, code, flags, buffer, receiver)
    call.started_ns = receiver.engine.clock()
    if one_way:
        _queue_one_way(thread, call, node, receiver)
        return
    enqueue(thread.todo, Notice(BR_TRANSACTION_COMPLETE, thread.process.user.of(NOTICES)))
    call.wait_for_reply(thread)
    _queue(call, receiver, target_thread)


def _fill_call(
    thread: Thread,
    node: Node,
    receiver: Process,
    sizes: tuple[int, int, int],
    flags: int,
    addresses: tuple[int, int],
) -> Buffer:
    """Return the receiver's buffer with the payload of a call in it.

    Args:
        sizes: of data, offsets and the room for pieces of memory, in bytes.
        addresses: of data and offsets, in the sender.
    """
    one_way = bool(flags & TF_ONE_WAY)
    context = thread.process.security_context() if node.wants_security_context else b""
    buffer = receiver.allocate(
        (sizes[0], sizes[1], sizes[2], len(context)), thread.pid if one_way else None
    )
    node.local_strong += 1
    buffer.target_node = node
    if context:
        arena_offset = buffer.offset + buffer.context_address - buffer.address
        receiver.client.arena.write(arena_offset, context)
    buffer.clear = bool(flags & TF_CLEAR_BUF)
    _fill(thread, receiver, buffer, addresses[0], addresses[1], accepts_fds=node.accepts_fds)
    if receiver.is_frozen and not one_way:
        receiver.received_sync = True
        receiver.discard_buffer(buffer)
        raise BinderFailure(BR_FROZEN_REPLY, 0)  # E3
    return buffer


def _send_reply(thread: Thread, data: bytes, offset: int, extra_size: int) -> None:
    """Answer the innermost call that this thread has read.

    The call is over even if the reply fails: then the caller gets the error and the replier a plain
    BR_TRANSACTION_COMPLETE (E4, E5). Only with nothing to reply to does the replier get an error.
    """
    target, _, code, flags, _, _, data_size, offsets_size, address, offsets = _unpack(data, offset)
    handle, sizes = target & _HANDLE_MASK, (data_size, offsets_size, extra_size)
    call, debug_id = thread.stack, thread.process.engine.next_id()
    thread.extended_error = (debug_id, BR_OK, 0)  # E8
    found = (0, 0, 0)
    if call is None or call.target_thread is not thread:
        failed = BinderFailure(BR_FAILED_REPLY, -EPROTO)
        thread.extended_error = (debug_id, failed.reply, failed.param)
        note(thread, debug_id, REPLY, found, handle, sizes, failed)
        thread.fail(BR_FAILED_REPLY)
        return
    thread.set_nice(call.saved_nice)
    caller = call.sender
    try:
        if caller is None or caller.process.is_dead:
            raise BinderFailure(BR_DEAD_REPLY, 0)
        assert caller.stack is call, "a caller waits for its innermost call only"
        receiver = caller.process
        found = (receiver.pid, caller.tid, 0)
        euid = thread.sending_user(one_way=True)
        buffer = receiver.allocate((data_size, offsets_size, extra_size, 0), None)
        buffer.clear = bool(flags & TF_CLEAR_BUF)
        accepts_fds = bool(call.flags & TF_ACCEPT_FDS)
        _fill(thread, receiver, buffer, address, offsets, accepts_fds=accepts_fds)
    except BinderFailure as failure:
        thread.stack = call.target_parent
        if caller is not None and caller.extended_error[1] == BR_OK:  # E4
            caller.extended_error = (debug_id, failure.reply, failure.param)
        note(thread, debug_id, REPLY, found, handle, sizes, failure)
        thread.fail(BR_TRANSACTION_COMPLETE)
        call.send_failed_reply(failure.reply)
        return
    note(thread, debug_id, REPLY, found, handle, sizes, None)
    thread.stack = call.target_parent
    thread.enqueue(Notice(BR_TRANSACTION_COMPLETE, thread.process.user.of(NOTICES)))
    reply = Transaction(thread, euid, debug_id, code, flags, buffer, receiver)
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


def _fill(
    thread: Thread,
    receiver: Process,
    buffer: Buffer,
    address: int,
    offsets: int,
    *,
    accepts_fds: bool,
) -> None:
    """Move the payload into ``buffer``; if that fails the buffer is gone again (B9)."""
    try:
        if buffer.offsets_size or buffer.extra_size:
            translation = Translation(thread, receiver, buffer, accepts_fds=accepts_fds)
            translation.run(address, offsets)
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
    share = thread.process.user.of(NOTICES)
    thread.enqueue(SpamNotice(word, share) if is_spam else Notice(word, share))


def _queue(call: Transaction, receiver: Process, thread: Thread | None) -> None:
    """Give ``call`` to ``thread``, or to whoever fell asleep last, or to the process (Q1)."""
    if thread is None and receiver.waiting:
        thread, _ = receiver.waiting.popitem()
    if thread is not None:
        thread.enqueue(call)
    else:
        enqueue(receiver.todo, call)
        receiver.wake_pollers()
