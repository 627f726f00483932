# SPDX-License-Identifier: Apache-2.0
"""The latest transactions, and the latest that failed: two rings of 32 (binder_transaction_log).

Every transaction is noted, so every call pays for it. That is why the entries of a ring are made
once and filled in again and again: compiled, that is some ten stores and no allocation. An entry is
filled in when the transaction's fate is known, so that none is ever seen incomplete.
"""

from __future__ import annotations

from typing import Final

from binderd.engine.views import LoggedTransaction

ENTRIES_COUNT: Final = 32  # a power of two; as the driver has


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
