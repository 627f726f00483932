# SPDX-License-Identifier: Apache-2.0
"""What of each transaction is noted in the logs, whose rings are in ``rings.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from binderd.engine.errors import BinderFailure
    from binderd.engine.rings import LogEntry
    from binderd.engine.thread import Thread


def note(
    thread: Thread,
    debug_id: int,
    kind: int,
    target_ids: tuple[int, int, int],
    handle: int,
    sizes: tuple[int, int, int],
    failure: BinderFailure | None,
) -> None:
    """Note a transaction that is on its way; or one that has failed, in both logs.

    Args:
        thread: the sender's.
        kind: CALL, ONE_WAY or REPLY.
        target_ids: the target's process id and thread id, and its node's debug id; 0: not known.
        handle: what the sender calls the target.
        sizes: of data, offsets and the room for pieces of memory, in bytes.
        failure: why it has failed.
    """
    hub = thread.process.hub
    _fill_in(hub.log.next_entry(), thread, debug_id, kind, target_ids, handle, sizes, failure)
    if failure is not None:
        entry = hub.failed_log.next_entry()
        _fill_in(entry, thread, debug_id, kind, target_ids, handle, sizes, failure)
        if target_ids[0]:  # the driver makes a transaction object once it knows the target
            hub.stats.transactions_made += 1


def _fill_in(
    entry: LogEntry,
    thread: Thread,
    debug_id: int,
    kind: int,
    target_ids: tuple[int, int, int],
    handle: int,
    sizes: tuple[int, int, int],
    failure: BinderFailure | None,
) -> None:
    process = thread.process
    entry.debug_id = debug_id
    entry.kind = kind
    entry.sender_pid = process.pid
    entry.sender_tid = thread.tid
    entry.target_pid, entry.target_tid, entry.node_id = target_ids
    entry.context = process.context.name
    entry.handle = handle
    entry.data_size = sizes[0]
    entry.offsets_size = sizes[1]
    entry.reply = 0 if failure is None else failure.reply
    entry.param = 0 if failure is None else failure.param
