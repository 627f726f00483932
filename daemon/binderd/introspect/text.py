# SPDX-License-Identifier: Apache-2.0
"""Views of the engine as text, in the formats of the driver, which tools parse.

A process is an open file of a device here, as in the driver; all that one program has open are in
``proc/PID``. Every function yields its file piece by piece, a few lines at most, so that the writer
of a long one can let others work in between. Mirrors the driver's ``_show`` functions and what they
call.

Differs, everywhere: where the driver prints a kernel address (of a transaction, of a death
notification) there is the object's debug id instead, which is as good for telling two apart and
gives nothing away; and the last field of a log entry, which is a line number of the driver's
source, is 0. What clients call their objects by, ``u`` and ``c``, are addresses in them: like %pK
it is 0 for all readers but root, and here the user that opened the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderd.engine import views
from binderd.engine.views import (
    CALL,
    COMMANDS_COUNT,
    NUMBER_MASK,
    ONE_WAY,
    REPLY,
    RETURNS_COUNT,
)
from binderwire.binder_abi import BR_TRANSACTION_SEC_CTX, COMMANDS, RETURNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from binderd.engine.views import (
        BufferRow,
        LoggedTransaction,
        NodeRow,
        ProcessStatistics,
        ProcessView,
        RefRow,
        State,
        Statistics,
        ThreadView,
        TransactionView,
        WordCounts,
        WorkView,
    )
    from binderwire.binder_abi import Message

_ROOT: Final = 0
_KINDS: Final = {CALL: "call ", ONE_WAY: "async", REPLY: "reply"}

# What is printed of work that has nothing to it but its kind. The driver has no words for the two
# kinds that are missing here.
_WORK: Final = {
    views.TRANSACTION_COMPLETE: "transaction complete",
    views.DEAD_BINDER: "has dead binder",
    views.DEAD_BINDER_AND_CLEAR: "has cleared dead binder",
    views.CLEAR_DEATH_NOTIFICATION: "has cleared death notification",
    views.FROZEN_BINDER: "has frozen binder",
    views.CLEAR_FREEZE_NOTIFICATION: "has cleared freeze notification",
}


def _names(table: Mapping[int, Message], count: int) -> list[str]:
    """Return the words' names by their number."""
    names = {word & NUMBER_MASK: row.name for word, row in table.items()}
    return [names[number] for number in range(count)]


_COMMAND_NAMES: Final = _names(COMMANDS, COMMANDS_COUNT)
# BR_TRANSACTION_SEC_CTX has the number of BR_TRANSACTION and is counted with it.
_RETURN_NAMES: Final = _names(
    {word: row for word, row in RETURNS.items() if word != BR_TRANSACTION_SEC_CTX}, RETURNS_COUNT
)


# The files


def state(view: State, reader: int) -> Iterator[str]:
    """``state``: everything (state_show).

    Args:
        reader: the user who reads it.
    """
    yield "binder state:\n"
    if view.dead_nodes:
        yield "dead nodes:\n"
        yield from _nodes(view.dead_nodes, reader == _ROOT)
    for process in view.processes:
        yield from _process(process, _sees_pointers(reader, process))


def transactions(view: State, reader: int) -> Iterator[str]:
    """``transactions``: what is under way (transactions_show); arguments as ``state``."""
    yield "binder transactions:\n"
    for process in view.processes:
        yield from _busy_process(process, _sees_pointers(reader, process))


def process_state(view: State, reader: int) -> Iterator[str]:
    """``proc/PID``: all open files of one process (proc_show); arguments as ``state``."""
    for process in view.processes:
        yield "binder proc state:\n"
        yield from _process(process, _sees_pointers(reader, process))


def stats(view: Statistics) -> Iterator[str]:
    """``stats``: figures (stats_show)."""
    yield "binder stats:\n"
    yield _words("", view.words)
    for kind, active, total in view.objects:
        if total:
            yield f"{kind}: active {active} total {total}\n"
    for process in view.processes:
        yield _process_statistics(process)


def transaction_log(entries: Iterable[LoggedTransaction]) -> Iterator[str]:
    """``transaction_log`` and ``failed_transaction_log`` (transaction_log_show)."""
    for entry in entries:
        yield (
            f"{entry.debug_id}: {_KINDS[entry.kind]}"
            f" from {entry.sender_pid}:{entry.sender_tid} to {entry.target_pid}:{entry.target_tid}"
            f" context {entry.context} node {entry.node_id} handle {_as_int(entry.handle)}"
            f" size {_as_int(entry.data_size)}:{_as_int(entry.offsets_size)}"
            f" ret {entry.reply}/{entry.param} l=0\n"
        )


def feature(is_there: bool) -> Iterator[str]:
    """``features/*`` (binder_features_show)."""
    yield f"{is_there:d}\n"


# Processes


def _sees_pointers(reader: int, process: ProcessView) -> bool:
    return reader in {_ROOT, process.uid}


def _process(process: ProcessView, shows: bool) -> Iterator[str]:
    """print_binder_proc with everything."""
    yield f"proc {process.pid}\ncontext {process.context}\n"
    for thread in process.threads:
        yield _thread_head(thread)
        yield from _thread_body(thread, shows)
    yield from _nodes(process.nodes, shows)
    for ref in process.refs:
        yield _ref(ref)
    yield from _process_rest(process, shows)


def _busy_process(process: ProcessView, shows: bool) -> Iterator[str]:
    """print_binder_proc without what is at rest; nothing at all if everything is."""
    head = f"proc {process.pid}\ncontext {process.context}\n"
    for line in _busy_lines(process, shows):
        yield head + line
        head = ""


def _busy_lines(process: ProcessView, shows: bool) -> Iterator[str]:
    for thread in process.threads:
        if thread.stack or thread.todo:
            yield _thread_head(thread)
            yield from _thread_body(thread, shows)
    yield from _nodes(process.nodes, shows)
    yield from _process_rest(process, shows)


def _process_rest(process: ProcessView, shows: bool) -> Iterator[str]:
    for buffer in process.buffers:
        yield _buffer(buffer)
    for work in process.todo:
        yield _work("  ", "  pending transaction", work, shows)
    if process.has_delivered_death:
        yield "  has delivered dead binder\n"
    if process.has_delivered_freeze:
        yield "  has delivered freeze binder\n"


def _thread_head(thread: ThreadView) -> str:
    """print_binder_thread_ilocked; nobody holds a thread for a moment here, so ``tr`` is 0."""
    head = f"  thread {thread.tid}: l {thread.looper:02x}"
    return f"{head} need_return {thread.need_return:d} tr 0\n"


def _thread_body(thread: ThreadView, shows: bool) -> Iterator[str]:
    for is_outgoing, call in thread.stack:
        yield _transaction(f"    {'outgoing' if is_outgoing else 'incoming'} transaction", call)
    for work in thread.todo:
        yield _work("    ", "    pending transaction", work, shows)


# Parts of a process


def _transaction(prefix: str, call: TransactionView) -> str:
    """print_binder_transaction_ilocked."""
    text = (
        f"{prefix} {call.debug_id}: {call.debug_id:016x}"
        f" from {call.sender_pid}:{call.sender_tid} to {call.target_pid}:{call.target_tid}"
        f" code {call.code:x} flags {call.flags:x} pri {call.nice} r{call.needs_reply:d}"
        f" elapsed {call.elapsed_ms}ms"
    )
    if not call.is_here:
        return f"{text}\n"
    if call.buffer is None:
        return f"{text} buffer free\n"
    node_id, data_size, offsets_size, offset = call.buffer
    node = f" node {node_id}" if node_id else ""
    return f"{text}{node} size {data_size}:{offsets_size} offset {offset:x}\n"


def _work(prefix: str, transaction_prefix: str, work: WorkView, shows: bool) -> str:
    """print_binder_work_ilocked."""
    if work.call is not None:
        return _transaction(transaction_prefix, work.call)
    if work.kind == views.RETURN_ERROR:
        return f"{prefix}transaction error: {work.number}\n"
    if work.kind == views.NODE:
        ptr, cookie = (work.ptr, work.cookie) if shows else (0, 0)
        return f"{prefix}node work {work.number}: u{ptr:016x} c{cookie:016x}\n"
    return f"{prefix}{_WORK.get(work.kind, f'unknown work: type {work.kind}')}\n"


def _nodes(nodes: Iterable[NodeRow], shows: bool) -> Iterator[str]:
    """print_binder_node_nilocked; the driver holds a node while it prints it, so ``tr`` is 1."""
    for node in nodes:
        debug_id, ptr, cookie, has_strong, has_weak, strong, weak, internal, holders, todo = node
        if not shows:
            ptr = cookie = 0
        whom = "".join(f" {pid}" for pid in holders)
        yield (
            f"  node {debug_id}: u{ptr:016x} c{cookie:016x} hs {has_strong:d} hw {has_weak:d}"
            f" ls {strong} lw {weak} is {internal} iw {len(holders)} tr 1"
            f"{' proc' if holders else ''}{whom}\n"
        )
        for work in todo:
            yield _work("    ", "    pending async transaction", work, shows)


def _ref(ref: RefRow) -> str:
    """print_binder_ref_olocked."""
    debug_id, handle, is_dead, node_id, strong, weak, has_death = ref
    return (
        f"  ref {debug_id}: desc {handle} {'dead ' if is_dead else ''}node {node_id}"
        f" s {strong} w {weak} d {debug_id if has_death else 0:016x}\n"
    )


def _buffer(buffer: BufferRow) -> str:
    """binder_alloc_print_allocated."""
    debug_id, offset, data_size, offsets_size, extra_size, is_active = buffer
    return (
        f"  buffer {debug_id}: {offset:x} size {data_size}:{offsets_size}:{extra_size}"
        f" {'active' if is_active else 'delivered'}\n"
    )


# Figures


def _process_statistics(process: ProcessStatistics) -> str:
    """print_binder_proc_stats."""
    active, kept, free = process.pages
    return (
        f"proc {process.pid}\n"
        f"context {process.context}\n"
        f"  threads: {process.threads}\n"
        f"  requested threads: {process.requested_threads}+{process.started_threads}"
        f"/{process.max_threads}\n"
        f"  ready threads {process.waiting_threads}\n"
        f"  free async space {process.free_one_way}\n"
        f"  nodes: {process.nodes}\n"
        f"  refs: {process.refs} s {process.strong} w {process.weak}\n"
        f"  buffers: {process.buffers}\n"
        f"  pages: {active}:{kept}:{free}\n"
        f"  pages high watermark: {process.pages_max}\n"
        f"  pending transactions: {process.queued_transactions}\n"
    ) + _words("  ", process.words)


def _words(prefix: str, words: WordCounts) -> str:
    """print_binder_stats, the words; those that were never seen are left out."""
    lines = [
        f"{prefix}{name}: {count}\n"
        for names, counts in (
            (_COMMAND_NAMES, words.commands),
            (_RETURN_NAMES, words.returns),
        )
        for name, count in zip(names, counts, strict=True)
        if count
    ]
    return "".join(lines)


def _as_int(number: int) -> int:
    """Return a number as a C ``int`` holds it: the log's fields are no wider."""
    return (number & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
