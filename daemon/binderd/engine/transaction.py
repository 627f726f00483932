# SPDX-License-Identifier: Apache-2.0
"""A transaction: from the time its sender has sent it (``send.py``) to its end.

It is a work item of its target until it is delivered, and then the innermost entry of both threads'
stacks until it is answered.

The stacks: a thread's ``stack`` is its innermost call.  For an outgoing call the next one out is
``sender_parent``, for an incoming call it is ``target_parent``; one transaction is thus linked into
two stacks at once.

Mirrors struct binder_transaction and what binder_thread_read does with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderd.engine import installation, views
from binderd.engine.buffers import Delivery
from binderd.engine.kinds import CALLS
from binderd.engine.payload import offsets_at
from binderd.engine.ports import NoAnswer
from binderd.engine.thread import Thread
from binderd.engine.views import TransactionView, WorkView
from binderd.engine.work import (
    LAST,
    MORE,
    UNREADY,
    UpdateKey,
    pack_word,
)
from binderwire.binder_abi import (
    BR_DEAD_REPLY,
    BR_FAILED_REPLY,
    BR_OK,
    BR_REPLY,
    BR_TRANSACTION,
    BR_TRANSACTION_SEC_CTX,
    TF_ONE_WAY,
    TF_UPDATE_TXN,
    binder_transaction_data,
    binder_uintptr_t,
)

if TYPE_CHECKING:
    from binderd.engine.buffers import Buffer
    from binderd.engine.completion import WriteRead
    from binderd.engine.owner import Owner, Reader
    from binderd.engine.process import Process
    from binderd.engine.returns import Returns
    from binderd.engine.stats import Stats
    from binderd.engine.user import Share

_pack: Final = binder_transaction_data.pack
_CALL: Final = (pack_word(BR_TRANSACTION), pack_word(BR_TRANSACTION_SEC_CTX))
_REPLY: Final = pack_word(BR_REPLY)
_UPDATE: Final = TF_ONE_WAY | TF_UPDATE_TXN


class Transaction(Delivery):
    """A call, one-way call or reply that is under way."""

    __slots__ = (
        "_calls",
        "_stats",
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
        super().__init__(buffer)
        self._calls: Share | None = None  # of the caller's user; None: no call that waits
        self.debug_id = debug_id
        self.code = code
        self.flags = flags
        self.sender: Thread | None = None  # the thread that waits for the reply, if any
        self.sender_parent: Transaction | None = None
        self.sender_euid = euid  # the opener's even if somebody else has the file in hand (I1)
        self.sender_pid = thread.pid  # the sender's; to compare only
        self.sender_tid = thread.tid
        self.started_ns = 0  # when its call was sent, by the engine's clock
        self.nice = 0  # of the sender of a call
        self.saved_nice = 0  # of the receiving thread, before it took the call
        self.target_process: Process | None = target
        target.outstanding += 1
        self.target_thread: Thread | None = None  # set once somebody has read it
        self.target_parent: Transaction | None = None
        buffer.debug_id = debug_id
        self._stats: Stats = target.hub.stats
        self._stats.transactions += 1
        self._stats.transactions_made += 1

    # What the receiver sees

    def deliver(self, thread: Reader, out: Returns) -> int:
        """BR_TRANSACTION or BR_REPLY; ends the read (R4)."""
        assert isinstance(thread, Thread)
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
            one_way = bool(self.flags & TF_ONE_WAY)
            self.saved_nice = thread.nice.borrow(self.nice, node.min_priority, one_way=one_way)
        if node is None:
            out.add(_REPLY)
            thread.process.count_return(BR_REPLY)
        else:
            out.add(_CALL[bool(buffer.context_size)])
            thread.process.count_return(BR_TRANSACTION)
        out.add(
            _pack(
                0 if node is None else node.ptr,
                0 if node is None else node.cookie,
                self.code,
                self.flags,
                pid,
                euid,
                buffer.data_size,
                buffer.offsets_size,
                buffer.address,
                buffer.address + offsets_at(buffer.data_size),
            )
        )
        if buffer.context_size:
            out.add(binder_uintptr_t.pack(buffer.context_address))  # I2
        return LAST

    def begin_installation(self, thread: Reader, request: WriteRead) -> bool:
        """Begin to give the reader the files of the payload (O7)."""
        assert isinstance(thread, Thread) and self.buffer is not None
        return installation.begin(thread, request, self.buffer)

    def stored(self, thread: Reader, *, ok: bool) -> None:
        """The reader has it; or its read buffer could not be written to (E1)."""
        assert isinstance(thread, Thread)
        if self.buffer is None:
            return  # was refused
        if ok:
            self._delivered(thread)
        else:
            self._fail(BR_FAILED_REPLY)  # binder_cleanup_transaction

    def withdraw(self, thread: Reader) -> bool:
        """Its addresses mean something else to the new program, or nothing."""
        assert isinstance(thread, Thread)
        if self.buffer is None:
            return False  # was refused
        self._fail(BR_DEAD_REPLY if thread.process.is_unmapped else BR_FAILED_REPLY)
        return True

    def arrive(self, thread: Reader, out: Returns, before: int) -> bool:
        """Bring the payload where its reader has pages of its own."""
        assert isinstance(thread, Thread)
        word = BR_OK if self.buffer is None else thread.process.bring(self.buffer)
        if word != BR_OK:
            out.cut(before)
            self._refuse(thread, out, word)
        return word == BR_OK

    def _refuse(self, thread: Thread, out: Returns, word: int = BR_FAILED_REPLY) -> int:
        """The payload, its files or its sender's number cannot be given to the reader (O8).

        Who waits for a reply learns it here, who called learns it as a failed call, and the reader
        of a call sees nothing.
        """
        assert self.buffer is not None
        is_reply = self.buffer.target_node is None
        self._fail(word)
        if is_reply:
            thread.process.count_return(word)
            out.add(pack_word(word))
        return LAST if is_reply else MORE

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

    def view(self, process: Owner, thread: Reader | None, now: int) -> WorkView:
        assert thread is None or isinstance(thread, Thread)
        return WorkView(views.TRANSACTION, call=self.as_seen_by(process, thread, now))

    def as_seen_by(self, process: Owner, thread: Thread | None, now: int) -> TransactionView:
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
        self.nice = thread.nice.get()
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
