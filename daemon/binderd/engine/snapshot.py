# SPDX-License-Identifier: Apache-2.0
"""Taking a snapshot: what is true of the whole engine at one moment, for introspection.

Taking it stops the engine, so it only copies what is asked for; making text of it is the business
of whoever asked, who may take all the time that needs while the engine goes on.

Nothing here may change anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderd.engine import views
from binderd.engine.stats import Words
from binderd.engine.views import (
    BufferRow,
    NodeRow,
    ObjectCount,
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

if TYPE_CHECKING:
    from collections.abc import Iterable

    from binderd.engine.buffers import Buffer
    from binderd.engine.engine import Engine
    from binderd.engine.node import Node
    from binderd.engine.process import Process
    from binderd.engine.thread import Thread
    from binderd.engine.work import WorkQueue

_COMPLETIONS: Final = (
    views.TRANSACTION_COMPLETE,
    views.TRANSACTION_PENDING,
    views.TRANSACTION_SPAM_SUSPECT,
)


def pids_of(engine: Engine) -> list[int]:
    """Return the ids of all processes that have a device open."""
    return sorted(dict.fromkeys(process.pid for process in engine.processes))


def take_state(engine: Engine, *, pid: int | None = None, only_busy: bool = False) -> State:
    """Return the state as it is now.

    Args:
        pid: only of this process' open files, and no dead nodes.
        only_busy: no refs, no dead nodes, and no nodes without a one-way call.
    """
    now = engine.clock()
    found = list(reversed(engine.processes))
    if pid is not None:
        found = [process for process in found if process.pid == pid]
    dead = [] if only_busy or pid is not None else _dead_nodes(found, now)
    return State(dead, [_view_process(process, now, only_busy=only_busy) for process in found])


def take_statistics(engine: Engine, page_size: int) -> Statistics:
    """Return the figures as they are now.

    Args:
        page_size: bytes.
    """
    words = Words()
    words.add(engine.stats.words)
    for process in engine.processes:
        words.add(process.words)
    processes = [_measure(process, page_size) for process in reversed(engine.processes)]
    return Statistics(_word_counts(words), _count_objects(engine), processes)


# States


def _view_process(process: Process, now: int, *, only_busy: bool) -> ProcessView:
    nodes = [process.nodes[ptr] for ptr in sorted(process.nodes)]
    if only_busy:
        nodes = [node for node in nodes if node.has_one_way]
    refs: list[RefRow] = []
    if not only_busy:
        for handle in sorted(process.handles.refs):
            ref = process.handles.refs[handle]
            node, has_death = ref.node, ref.death is not None
            is_dead = not node.has_owner()
            refs.append(
                (ref.debug_id, handle, is_dead, node.debug_id, ref.strong, ref.weak, has_death)
            )
    return ProcessView(
        process.pid,
        process.context.name,
        [_view_thread(process.threads[tid], now) for tid in sorted(process.threads)],
        [_view_node(node, now) for node in nodes],
        refs,
        [_view_buffer(buffer) for buffer in _buffers(process)],
        _view_queue(process.todo, process, None, now),
        bool(process.delivered_deaths),
        bool(process.delivered_freezes),
        process.client.euid,
    )


def _view_thread(thread: Thread, now: int) -> ThreadView:
    stack: list[tuple[bool, TransactionView]] = []
    call = thread.stack
    while call is not None:
        is_outgoing = call.sender is thread
        stack.append((is_outgoing, call.as_seen_by(thread.process, None, now)))
        call = call.sender_parent if is_outgoing else call.target_parent
    todo = _view_queue(thread.todo, thread.process, thread, now)
    return ThreadView(thread.tid, thread.looper, thread.need_return, stack, todo)


def _view_queue(
    queue: WorkQueue, process: Process, thread: Thread | None, now: int
) -> list[WorkView]:
    return [work.view(process, thread, now) for work in queue]


def _view_node(node: Node, now: int) -> NodeRow:
    todo: tuple[WorkView, ...] = ()
    if node.one_way_todo and node.process is not None:
        todo = tuple(_view_queue(node.one_way_todo, node.process, None, now))
    return (
        node.debug_id,
        node.ptr,
        node.cookie,
        node.has_strong,
        node.has_weak,
        node.local_strong,
        node.local_weak,
        node.internal_strong,
        tuple([holder.pid for holder in reversed(node.refs) if not holder.is_dead]),
        todo,
    )


def _dead_nodes(processes: Iterable[Process], now: int) -> list[NodeRow]:
    """Return the nodes whose owner is gone; only refs lead to them."""
    dead: dict[int, Node] = {}  # by debug id
    for process in processes:
        for ref in process.handles.refs.values():
            if not ref.node.has_owner():
                dead[ref.node.debug_id] = ref.node
    return [_view_node(dead[debug_id], now) for debug_id in sorted(dead, reverse=True)]


def _view_buffer(buffer: Buffer) -> BufferRow:
    extra_size = buffer.extra_size + (buffer.context_size + 7 & ~7)
    is_active = buffer.transaction is not None
    return (
        buffer.debug_id,
        buffer.offset,
        buffer.data_size,
        buffer.offsets_size,
        extra_size,
        is_active,
    )


def _buffers(process: Process) -> list[Buffer]:
    """Return the buffers of a process, lowest address first."""
    if process.area is None:
        return []
    buffers = process.area.buffers
    return [buffers[address] for address in sorted(buffers)]


# Statistics


def _measure(process: Process, page_size: int) -> ProcessStatistics:
    area, refs = process.area, process.handles.refs.values()
    buffers = _buffers(process)
    return ProcessStatistics(
        process.pid,
        process.context.name,
        len(process.threads),
        process.requested_threads,
        process.started_threads,
        process.max_threads,
        len(process.waiting),
        0 if area is None else area.free_one_way,
        len(process.nodes),
        len(refs),
        sum(ref.strong for ref in refs),
        sum(ref.weak for ref in refs),
        len(buffers),
        _count_pages(process, buffers, page_size),
        0 if area is None else -(-area.end_max // page_size),
        sum(work.kind() == views.TRANSACTION for work in process.todo),
        _word_counts(process.words),
    )


def _count_pages(process: Process, buffers: list[Buffer], page_size: int) -> tuple[int, int, int]:
    """Return how many pages have buffers in them, are kept for later, are not there."""
    area = process.area
    if area is None:
        return 0, 0, 0
    active, end = 0, 0  # pages counted; the page behind the last of them
    for buffer in buffers:
        first = max(buffer.offset // page_size, end)
        end = max(-(-(buffer.offset + buffer.size) // page_size), end)
        active += end - first if end > first else 0
    present = max(process.client.arena.allocated_bytes() // page_size, active)
    return active, present - active, max(area.size // page_size - present, 0)


def _count_objects(engine: Engine) -> list[ObjectCount]:
    """Return the kinds in the driver's order (binder_objstat_strings)."""
    stats = engine.stats
    completes = sum(
        work.kind() in _COMPLETIONS
        for process in engine.processes
        for thread in process.threads.values()
        for work in thread.todo
    )
    return [
        ObjectCount("proc", stats.processes, stats.processes_made),
        ObjectCount("thread", stats.threads, stats.threads_made),
        ObjectCount("node", stats.nodes, stats.nodes_made),
        ObjectCount("ref", stats.refs, stats.refs_made),
        ObjectCount("death", stats.deaths, stats.deaths_made),
        ObjectCount("transaction", stats.transactions, stats.transactions_made),
        # The driver makes one with every transaction.
        ObjectCount("transaction_complete", completes, stats.transactions_made),
        ObjectCount("freeze", stats.freezes, stats.freezes_made),
    ]


def _word_counts(words: Words) -> WordCounts:
    return WordCounts(
        [counter.count for counter in words.commands], [counter.count for counter in words.returns]
    )
