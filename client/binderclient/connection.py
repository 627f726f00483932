# SPDX-License-Identifier: Apache-2.0
"""The client's side of the binder protocol, without any input or output.

``Connection`` is what a process has agreed on with the driver over one open device file: handles,
local objects, death notifications.  ``ThreadState`` is what one thread has: the driver keeps a
transaction stack for each thread, so a reply must be sent by the thread that got the call, and a
thread has at most one call outstanding, below which it may serve calls that come back to it.

How to drive it, from whatever does the input and output::

    thread.call(...)  /  thread.reply(...)  /  connection.free_buffer(...)
    BINDER_WRITE_READ with thread.data_to_write()
    thread.written(write_consumed)
    events = thread.receive(the bytes that were read)

``receive`` settles calls (``OutgoingCall.outcome``), counts references and answers what the driver
wants answered; the events it returns are what only the surroundings can do.

Rules of this file: nothing here blocks, reads a clock, knows a file descriptor or an address space,
or takes a lock.  Threads that share a ``Connection`` serialise every call of these two classes.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from binderclient.deaths import DeathRegistry, Mortal, Obituary
from binderclient.errors import (
    CallAbandoned,
    DeadObject,
    FailedTransaction,
    FrozenObject,
    MisuseError,
    ProtocolError,
)
from binderclient.handles import HandleTable
from binderclient.nodes import NodeTable
from binderwire.binder_abi import (
    BC_ACQUIRE_DONE,
    BC_ENTER_LOOPER,
    BC_EXIT_LOOPER,
    BC_FREE_BUFFER,
    BC_INCREFS_DONE,
    BC_REGISTER_LOOPER,
    BC_REPLY,
    BC_REPLY_SG,
    BC_TRANSACTION,
    BC_TRANSACTION_SG,
    BR_ACQUIRE,
    BR_CLEAR_DEATH_NOTIFICATION_DONE,
    BR_DEAD_BINDER,
    BR_DEAD_REPLY,
    BR_DECREFS,
    BR_ERROR,
    BR_FAILED_REPLY,
    BR_FROZEN_REPLY,
    BR_INCREFS,
    BR_NOOP,
    BR_OK,
    BR_ONEWAY_SPAM_SUSPECT,
    BR_RELEASE,
    BR_REPLY,
    BR_SPAWN_LOOPER,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
    BR_TRANSACTION_PENDING_FROZEN,
    BR_TRANSACTION_SEC_CTX,
    COMMANDS,
    RETURNS,
    TF_ONE_WAY,
    binder_ptr_cookie,
    binder_transaction_data,
)
from binderwire.commands import WORD_SIZE, StreamError, append, read_stream

if TYPE_CHECKING:
    from binderclient.objects import Service
    from binderwire.codec import Buffer

_P = TypeVar("_P", bound=Mortal)

_NO_REPLY: Final = {
    BR_DEAD_REPLY: DeadObject,
    BR_FAILED_REPLY: FailedTransaction,
    BR_FROZEN_REPLY: FrozenObject,
}


_WITH_BUFFERS: Final = {BC_TRANSACTION: BC_TRANSACTION_SG, BC_REPLY: BC_REPLY_SG}
_OF_CALLS: Final = frozenset({*_WITH_BUFFERS, *_WITH_BUFFERS.values(), BC_EXIT_LOOPER})


class Payload(NamedTuple):
    """Where a transaction's data lies in this process, and what must live until it is accepted."""

    data: int  # address
    data_size: int  # bytes
    offsets: int  # address of the table of 8-byte object offsets
    offsets_size: int  # bytes
    nodes: tuple[int, ...] = ()  # numbers of the local objects in it, exported once for each
    keep: object = None  # whatever owns the memory areas
    buffers_size: int = 0  # bytes beside the data, each buffer rounded up to 8


class Delivery(NamedTuple):
    """A BR_TRANSACTION or BR_REPLY; the fields of binder_transaction_data, in its order."""

    target: int  # number of the local object
    cookie: int
    code: int
    flags: int
    sender_pid: int  # 0 for one-way calls and replies
    sender_euid: int
    data_size: int  # bytes
    offsets_size: int  # bytes
    buffer: int  # address of the data; what BC_FREE_BUFFER wants
    offsets: int  # address
    secctx: int = 0  # address of the sender's security context, 0 if not asked for


# Commands with the word before them.
_SEND: Final = struct.Struct("=I" + binder_transaction_data.struct.format[1:])
_SEND_BUFFERS: Final = struct.Struct(_SEND.format + "Q")
_FREE: Final = struct.Struct("=IQ")
_unpack_word: Final = struct.Struct("=I").unpack_from
_delivery_of: Final = Delivery._make


class OutgoingCall:
    """A transaction that this thread sent.

    ``outcome`` is None until it is known; then the Delivery of the reply, the exception that takes
    its place, or where no reply is wanted the BR_ word with which the driver took it over.
    """

    __slots__ = ("outcome", "payload", "wants_reply")

    def __init__(self, payload: Payload, *, wants_reply: bool) -> None:
        self.payload = payload
        self.wants_reply = wants_reply
        self.outcome: Delivery | Exception | int | None = None


# Events: what only the surroundings can do


class Incoming(NamedTuple):
    """A call for a local object.  Unless it is one-way, ``reply`` must follow on this thread."""

    delivery: Delivery


class SpawnLooper(NamedTuple):
    """The driver wants one more thread, which starts with ``register_looper``."""


class Unreferenced(NamedTuple):
    """No other process needs this local object any more; let it go outside of any lock."""

    service: Service


Event = Incoming | SpawnLooper | Unreferenced | Obituary
_Fields = tuple[Any, ...]  # of a message's payload
_Handler = Callable[["ThreadState", _Fields, list[Event]], None]


class Connection(Generic[_P]):
    """The state of one open device file.

    Args:
        make_proxy: builds the proxy for a handle that was not known before.
    """

    def __init__(self, make_proxy: Callable[[int], _P]) -> None:
        self.handles: HandleTable[_P] = HandleTable(make_proxy)
        self.nodes = NodeTable()
        self.deaths = DeathRegistry()
        self._freed: deque[int] = deque()
        # Has a delivered buffer, by its address, freed with the next write of any thread: the one
        # method that may be called at any point of any thread, by a finalizer for example.
        self.free_buffer: Callable[[int], None] = self._freed.append

    def thread(self) -> ThreadState:
        """Return the state of one more thread."""
        return ThreadState(self)

    def lost(self) -> list[Event]:
        """Handle the end of the driver: every proxy is dead, no local object is needed.

        Returns:
            ``Obituary`` and ``Unreferenced`` events.
        """
        for proxy in self.handles.living():
            proxy.dead = True
        events: list[Event] = list(self.deaths.all_dead())
        events += map(Unreferenced, self.nodes.clear())
        return events

    def release_dropped(self, out: bytearray) -> None:
        """Append what ``free_buffer`` and the finalizers of proxies have left to be done."""
        free = self._freed
        while free:
            out += _FREE.pack(BC_FREE_BUFFER, free.popleft())
        if self.handles.dropped:
            self.handles.release_dropped(out)


class ThreadState:
    """The state of one thread of a ``Connection``."""

    __slots__ = (
        "_connection",
        "_expected",
        "_kept",
        "_out",
        "_serving",
        "_stack",
        "is_looper",
        "owes_answer",
    )

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._out = bytearray()
        self._kept: list[object] = []  # memory that commands in _out point to
        # What was sent and not yet accepted, oldest first: the driver answers in this order, with
        # one BR_TRANSACTION_COMPLETE or one error each (statement Q9).
        self._expected: deque[OutgoingCall] = deque()
        # The mirror of the driver's transaction stack: calls that wait for their reply here, and
        # deliveries that wait for ours.
        self._stack: list[OutgoingCall | Delivery] = []
        self._serving = 0  # how many of these are deliveries
        # Does the driver wait for a BC_*_DONE?  Until then it keeps others' deaths and releases
        # from us (statements N5, N11): do not go idle without writing it.
        self.owes_answer = False
        self.is_looper = False  # does this thread serve incoming calls?

    @property
    def idle(self) -> bool:
        """Is no call outstanding in either direction?"""
        return not self._stack

    @property
    def serving(self) -> bool:
        """Does a caller wait for a reply from this thread?"""
        return self._serving > 0

    @property
    def has_commands(self) -> bool:
        """Is anything queued?  The memory that it points to is in use then."""
        return bool(self._out)

    # Commands

    def call(self, handle: int, code: int, flags: int, payload: Payload) -> OutgoingCall:
        """Queue a BC_TRANSACTION.

        Raises:
            MisuseError: this thread waits for a reply already; the driver would refuse it (Q6).
        """
        call = OutgoingCall(payload, wants_reply=not flags & TF_ONE_WAY)
        if call.wants_reply and self._stack and isinstance(self._stack[-1], OutgoingCall):
            raise MisuseError("this thread waits for the reply to another call already")
        self._send(BC_TRANSACTION, handle, code, flags, call)
        if call.wants_reply:  # not before: what cannot be packed is not waited for
            self._stack.append(call)
        return call

    def reply(self, flags: int, payload: Payload) -> OutgoingCall:
        """Queue a BC_REPLY to the innermost incoming call.

        Raises:
            MisuseError: no caller waits for this thread, or an own call has to return first.
        """
        if not self._stack or not isinstance(self._stack[-1], Delivery):
            raise MisuseError("there is no call to reply to on this thread")
        self._stack.pop()
        self._serving -= 1
        reply = OutgoingCall(payload, wants_reply=False)
        self._send(BC_REPLY, 0, 0, flags, reply)
        return reply

    def proxy(self, handle: int) -> Any:  # noqa: ANN401 - Connection's type of proxy
        """Return the proxy of ``handle``; what a new one queues must be written at once."""
        return self._connection.handles.proxy(handle, self._out)

    def found_vacant(self) -> None:
        """Handle that nobody is context manager: the proxy of handle 0 is of none, or a dead one.

        The driver ignores references on a handle 0 that leads nowhere, so the next manager needs a
        new proxy.  One that is linked to its death stays until BR_DEAD_BINDER comes.
        """
        proxy = self._connection.handles.find(0)
        if proxy is not None and not self._connection.deaths.watches(proxy):
            proxy.dead = True
            self._connection.handles.disown(proxy, 0, self._out)

    def link_to_death(self, proxy: Any, callback: Callable[[Any], object]) -> None:  # noqa: ANN401
        """See ``DeathRegistry.link``."""
        self._connection.deaths.link(proxy, callback, self._out)

    def unlink_to_death(self, proxy: Any, callback: Callable[[Any], object]) -> bool:  # noqa: ANN401
        """See ``DeathRegistry.unlink``."""
        return self._connection.deaths.unlink(proxy, callback, self._out)

    def enter_looper(self) -> None:
        """Queue BC_ENTER_LOOPER: this thread serves because the program wants it to."""
        self.is_looper = True
        append(self._out, BC_ENTER_LOOPER)

    def register_looper(self) -> None:
        """Queue BC_REGISTER_LOOPER: this thread serves because the driver asked for one."""
        self.is_looper = True
        append(self._out, BC_REGISTER_LOOPER)

    def exit_looper(self) -> None:
        """Queue BC_EXIT_LOOPER."""
        self.is_looper = False
        append(self._out, BC_EXIT_LOOPER)

    def _send(self, word: int, handle: int, code: int, flags: int, call: OutgoingCall) -> None:
        # Freed buffers first: a reply to this may need the room.
        self._connection.release_dropped(self._out)
        data, data_size, offsets, offsets_size, _nodes, keep, buffers_size = call.payload
        sizes = data_size, offsets_size, data, offsets
        if buffers_size:
            word = _WITH_BUFFERS[word]
            self._out += _SEND_BUFFERS.pack(
                word, handle, 0, code, flags, 0, 0, *sizes, buffers_size
            )
        else:
            self._out += _SEND.pack(word, handle, 0, code, flags, 0, 0, *sizes)
        self._kept.append(keep)
        self._expected.append(call)

    # Input and output

    def data_to_write(self) -> bytearray:
        """Return the queued commands, with those that finalizers left; valid until the next call.

        They stay queued until ``written`` says that the driver consumed them.
        """
        self._connection.release_dropped(self._out)
        return self._out

    def written(self, consumed: int) -> None:
        """Forget the first ``consumed`` bytes of ``data_to_write``.

        The rest stays: the driver stops behind a transaction that failed (statement Q10).
        """
        del self._out[:consumed]
        if not self._out:
            self._kept.clear()
            self.owes_answer = False

    def drop_refused(self) -> str:
        """Remove the first queued command, which made the ioctl fail (Q11); return its name."""
        name = "nothing"
        for item in read_stream(COMMANDS, bytes(self._out)):
            payload = item.message.payload
            del self._out[: WORD_SIZE + (payload.size if payload else 0)]
            name = item.message.name
            break
        return name

    def receive(self, stream: Buffer) -> list[Event]:
        """Handle what the driver returned.

        Args:
            stream: whole BR_ messages, as one read delivers them.

        Raises:
            ProtocolError: an unknown message, or one that cannot come now.
        """
        events: list[Event] = []
        position, end = 0, len(stream)
        while position < end:
            try:
                size, unpack, handler = _ROWS[_unpack_word(stream, position)[0]]
                fields = () if unpack is None else unpack(stream, position + WORD_SIZE)
            except (KeyError, struct.error):
                raise _unreadable(stream, position) from None
            if handler is not None:
                handler(self, fields, events)
            position += size
        return events

    def abandon(self) -> list[Event]:
        """Forget all calls in both directions, because the thread leaves the driver.

        What is queued and has nothing to do with a call is kept for a later write.

        Returns:
            ``Unreferenced`` events for local objects that nobody needs any more.
        """
        kept = bytearray()
        for item in read_stream(COMMANDS, bytes(self._out)):
            if item.message.word not in _OF_CALLS:
                payload = item.message.payload
                end = item.offset + WORD_SIZE + (payload.size if payload else 0)
                kept += self._out[item.offset : end]
        self._out = kept
        self._kept.clear()
        for entry in self._stack:
            if isinstance(entry, OutgoingCall):
                entry.outcome = CallAbandoned("its thread has left the driver")
        self._stack.clear()
        self._serving = 0
        events: list[Event] = []
        while self._expected:
            self._settle(self._expected.popleft(), events)
        return events

    # Returns: one method per kind of message

    def _driver_error(self, fields: _Fields, _events: list[Event]) -> None:
        raise ProtocolError(f"BR_ERROR {fields[0]}")

    def _spawn_looper(self, _fields: _Fields, events: list[Event]) -> None:
        events.append(SpawnLooper())

    def _transaction(self, fields: _Fields, events: list[Event]) -> None:
        self._delivered(_delivery_of((*fields, 0)), events)

    def _transaction_with_context(self, fields: _Fields, events: list[Event]) -> None:
        self._delivered(_delivery_of(fields), events)

    def _delivered(self, delivery: Delivery, events: list[Event]) -> None:
        if not delivery.flags & TF_ONE_WAY:
            self._stack.append(delivery)
            self._serving += 1
        events.append(Incoming(delivery))

    def _reply(self, fields: _Fields, _events: list[Event]) -> None:
        call = self._stack[-1] if self._stack else None
        if not isinstance(call, OutgoingCall):
            call = self._waiting_call(BR_REPLY)
        if self._expected and call in self._expected:
            raise ProtocolError("BR_REPLY to a call that was not accepted")
        call.outcome = _delivery_of((*fields, 0))
        self._stack.pop()

    def _complete(self, _fields: _Fields, events: list[Event]) -> None:
        expected = self._expected
        if not expected or expected[0].payload.nodes:
            self._accepted(BR_TRANSACTION_COMPLETE, events)
            return
        call = expected.popleft()
        if not call.wants_reply:
            call.outcome = BR_TRANSACTION_COMPLETE

    def _complete_as_spam(self, _fields: _Fields, events: list[Event]) -> None:
        self._accepted(BR_ONEWAY_SPAM_SUSPECT, events)

    def _complete_frozen(self, _fields: _Fields, events: list[Event]) -> None:
        self._accepted(BR_TRANSACTION_PENDING_FROZEN, events)

    def _accepted(self, word: int, events: list[Event]) -> None:
        if not self._expected:
            raise ProtocolError(f"{RETURNS[word].name} for nothing")
        call = self._expected.popleft()
        if not call.wants_reply:
            call.outcome = word
        if call.payload.nodes:
            self._settle(call, events)

    def _dead_reply(self, _fields: _Fields, events: list[Event]) -> None:
        self._no_reply(BR_DEAD_REPLY, events)

    def _failed_reply(self, _fields: _Fields, events: list[Event]) -> None:
        self._no_reply(BR_FAILED_REPLY, events)

    def _frozen_reply(self, _fields: _Fields, events: list[Event]) -> None:
        self._no_reply(BR_FROZEN_REPLY, events)

    def _no_reply(self, word: int, events: list[Event]) -> None:
        # Refused when sent: takes the place of COMPLETE.  Otherwise the call was accepted before,
        # and this takes the place of its reply (statement Q9).
        call = self._expected[0] if self._expected else self._waiting_call(word)
        if call.wants_reply:
            if self._waiting_call(word) is not call:
                name = RETURNS[word].name
                raise ProtocolError(f"{name} for a call that is not the innermost")
            self._stack.pop()
        if self._expected:
            self._expected.popleft()
            self._settle(call, events)
        call.outcome = _NO_REPLY[word]()

    def _waiting_call(self, word: int) -> OutgoingCall:
        top = self._stack[-1] if self._stack else None
        if not isinstance(top, OutgoingCall):
            raise ProtocolError(f"{RETURNS[word].name} without a call that waits for it")
        return top

    def _settle(self, call: OutgoingCall, events: list[Event]) -> None:
        for number in call.payload.nodes:
            service = self._connection.nodes.settle(number)
            if service is not None:
                events.append(Unreferenced(service))

    def _needed_weakly(self, fields: _Fields, _events: list[Event]) -> None:
        self._needed(fields, BC_INCREFS_DONE, weak=True)

    def _needed_strongly(self, fields: _Fields, _events: list[Event]) -> None:
        self._needed(fields, BC_ACQUIRE_DONE, weak=False)

    def _needed(self, fields: _Fields, answer: int, *, weak: bool) -> None:
        self.owes_answer = True
        ptr, cookie = fields
        self._connection.nodes.acquire(ptr, weak=weak)
        append(self._out, answer, binder_ptr_cookie.pack(ptr, cookie))

    def _not_needed_weakly(self, fields: _Fields, events: list[Event]) -> None:
        self._not_needed(fields[0], events, weak=True)

    def _not_needed_strongly(self, fields: _Fields, events: list[Event]) -> None:
        self._not_needed(fields[0], events, weak=False)

    def _not_needed(self, ptr: int, events: list[Event], *, weak: bool) -> None:
        service = self._connection.nodes.release(ptr, weak=weak)
        if service is not None:
            events.append(Unreferenced(service))

    def _dead_binder(self, fields: _Fields, events: list[Event]) -> None:
        self.owes_answer = True
        obituary = self._connection.deaths.dead(fields[0], self._out)
        if obituary is None:
            return
        if obituary.proxy.handle == 0:
            # Handle 0 is the current context manager's: make room for the next one (N1).
            self._connection.handles.disown(obituary.proxy, 0, self._out)
        events.append(obituary)

    def _death_cleared(self, fields: _Fields, _events: list[Event]) -> None:
        self._connection.deaths.cleared(fields[0], self._out)

    HANDLERS: ClassVar[dict[int, _Handler | None]] = {
        BR_NOOP: None,  # these two say nothing
        BR_OK: None,
        BR_ERROR: _driver_error,
        BR_SPAWN_LOOPER: _spawn_looper,
        BR_TRANSACTION: _transaction,
        BR_TRANSACTION_SEC_CTX: _transaction_with_context,
        BR_REPLY: _reply,
        BR_TRANSACTION_COMPLETE: _complete,
        BR_ONEWAY_SPAM_SUSPECT: _complete_as_spam,
        BR_TRANSACTION_PENDING_FROZEN: _complete_frozen,
        BR_DEAD_REPLY: _dead_reply,
        BR_FAILED_REPLY: _failed_reply,
        BR_FROZEN_REPLY: _frozen_reply,
        BR_INCREFS: _needed_weakly,
        BR_ACQUIRE: _needed_strongly,
        BR_RELEASE: _not_needed_strongly,
        BR_DECREFS: _not_needed_weakly,
        BR_DEAD_BINDER: _dead_binder,
        BR_CLEAR_DEATH_NOTIFICATION_DONE: _death_cleared,
    }


# What a read may bring: how long it is with its word, in bytes, what unpacks its fields, and what
# handles them.
_ROWS: Final[dict[int, tuple[int, Callable[[Buffer, int], _Fields] | None, _Handler | None]]] = {}
for _word, _handler in ThreadState.HANDLERS.items():
    _record = RETURNS[_word].payload
    _ROWS[_word] = (
        WORD_SIZE + (_record.size if _record else 0),
        _record.unpack_from if _record else None,
        _handler,
    )


def _unreadable(stream: Buffer, position: int) -> ProtocolError:
    """Return what is raised about what is there."""
    try:
        for item in read_stream(RETURNS, stream, position):
            return ProtocolError(f"unexpected {item.message.name}")
    except StreamError as error:
        return ProtocolError(str(error))
    raise AssertionError("nothing is there")
