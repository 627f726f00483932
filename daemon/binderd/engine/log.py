# SPDX-License-Identifier: Apache-2.0
"""The latest transactions, and the latest that failed: two rings of 32 (binder_transaction_log).

Every transaction is noted, so every call pays for it. That is why the entries of a ring are made
once and filled in again and again: compiled, that is some ten stores and no allocation. An entry is
filled in when the transaction's fate is known, so that none is ever seen incomplete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from binderd.engine.errors import BinderFailure
    from binderd.engine.thread import Thread

ENTRIES_COUNT: Final = 32  # a power of two; as the driver has

CALL: Final = 0
ONE_WAY: Final = 1
REPLY: Final = 2


class LoggedTransaction(NamedTuple):
    """One entry, as it was when somebody asked."""

    debug_id: int
    kind: int  # CALL, ONE_WAY or REPLY
    sender_pid: int
    sender_tid: int
    target_pid: int  # 0: there was none
    target_tid: int  # 0: none was chosen when it was sent
    context: str
    node_id: int  # the target's debug id; 0: none, or it was a reply
    handle: int  # what the sender called it
    data_size: int  # bytes
    offsets_size: int  # bytes
    reply: int  # BR_ code of the failure, 0: none
    param: int  # negative errno of the failure


class LogEntry:
    """One place in a ring; the fields are those of ``LoggedTransaction``."""

    __slots__ = LoggedTransaction._fields

    def __init__(self) -> None:
        self.debug_id = self.kind = 0
        self.sender_pid = self.sender_tid = 0
        self.target_pid = self.target_tid = 0
        self.context = ""
        self.node_id = self.handle = 0
        self.data_size = self.offsets_size = 0
        self.reply = self.param = 0

    def view(self) -> LoggedTransaction:
        """Return what the entry says now."""
        return LoggedTransaction(
            self.debug_id,
            self.kind,
            self.sender_pid,
            self.sender_tid,
            self.target_pid,
            self.target_tid,
            self.context,
            self.node_id,
            self.handle,
            self.data_size,
            self.offsets_size,
            self.reply,
            self.param,
        )


class TransactionLog:
    """A ring of entries."""

    __slots__ = ("_entries", "count")

    def __init__(self) -> None:
        self._entries = [LogEntry() for _ in range(ENTRIES_COUNT)]
        self.count = 0  # of all that were ever noted

    def next_entry(self) -> LogEntry:
        """Return the entry to fill in, which was the oldest; every field must be set."""
        entry = self._entries[self.count & (ENTRIES_COUNT - 1)]
        self.count += 1
        return entry

    def entries(self) -> list[LoggedTransaction]:
        """Return what is in the ring, the oldest first."""
        first = max(0, self.count - ENTRIES_COUNT)
        numbers = range(first, self.count)
        return [self._entries[number & (ENTRIES_COUNT - 1)].view() for number in numbers]


def note(
    thread: Thread,
    debug_id: int,
    kind: int,
    found: tuple[int, int, int],
    handle: int,
    sizes: tuple[int, int, int],
    failure: BinderFailure | None,
) -> None:
    """Note a transaction that is on its way; or one that has failed, in both logs.

    Args:
        thread: the sender's.
        kind: CALL, ONE_WAY or REPLY.
        found: process id and thread id of the target and debug id of its node, as far as known.
        handle: what the sender calls the target.
        sizes: of data, offsets and the room for pieces of memory, in bytes.
        failure: why it has failed.
    """
    engine = thread.process.engine
    _fill_in(engine.log.next_entry(), thread, debug_id, kind, found, handle, sizes, failure)
    if failure is not None:
        entry = engine.failed_log.next_entry()
        _fill_in(entry, thread, debug_id, kind, found, handle, sizes, failure)
        if found[0]:  # the driver makes a transaction object once it knows the target
            engine.stats.transactions_made += 1


def _fill_in(
    entry: LogEntry,
    thread: Thread,
    debug_id: int,
    kind: int,
    found: tuple[int, int, int],
    handle: int,
    sizes: tuple[int, int, int],
    failure: BinderFailure | None,
) -> None:
    process = thread.process
    entry.debug_id = debug_id
    entry.kind = kind
    entry.sender_pid = process.pid
    entry.sender_tid = thread.tid
    entry.target_pid, entry.target_tid, entry.node_id = found
    entry.context = process.context.name
    entry.handle = handle
    entry.data_size = sizes[0]
    entry.offsets_size = sizes[1]
    entry.reply = 0 if failure is None else failure.reply
    entry.param = 0 if failure is None else failure.param
