# SPDX-License-Identifier: Apache-2.0
"""Taking a snapshot: what is true of the whole engine at one moment, for introspection.

Taking it stops the engine, so it only copies what is asked for; ``introspect`` makes text of it,
while the engine goes on.

Where there is so much that clients would notice the stop, it is taken row by row instead. Each row
is then true of its moment, and the whole of the time that it took: always so with the driver.

Nothing here may change anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderd.engine import views
from binderd.engine.kinds import NOTICES
from binderd.engine.payload import extra_size_of
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
    from collections.abc import Iterable, Iterator, Sequence

    from binderd.engine.buffers import Buffer
    from binderd.engine.hub import Hub
    from binderd.engine.node import Node
    from binderd.engine.owner import Owner
    from binderd.engine.process import Process
    from binderd.engine.ref import Ref
    from binderd.engine.stats import Stats
    from binderd.engine.thread import Thread
    from binderd.engine.work import WorkQueue

_AT_ONCE: Final = 4000  # objects: some 6 ms

_COMPLETIONS: Final = (
    views.TRANSACTION_COMPLETE,
    views.TRANSACTION_PENDING,
    views.TRANSACTION_SPAM_SUSPECT,
)


def is_small(hub: Hub) -> bool:
    """Return whether the state of everything may be taken in one go."""
    notices = hub.users.total(NOTICES).count
    return sum(hub.stats.as_dict().values()) + notices <= _AT_ONCE


def take_rows(
    state: State, processes: Iterable[Process], now: int, pid: int | None, *, only_busy: bool
) -> Iterator[None]:
    """Fill in ``state``, a row between two steps; arguments as ``Engine.take_state`` has them.

    Args:
        processes: all open files, the latest first.
        now: by the engine's clock.
    """
    found = list(processes)
    if pid is not None:
        found = [process for process in found if process.pid == pid]
    if not only_busy and pid is None:
        yield from _take_dead_nodes(found, now, state.dead_nodes)
    for process in found:
        if not process.is_dead:
            view = _begin_view(process)
            state.processes.append(view)
            yield from _take_process(process, view, now, only_busy=only_busy)


def take_statistics(stats: Stats, processes: Sequence[Process], page_size: int) -> Statistics:
    """Return the figures as they are now.

    Args:
        processes: all open files, the latest first.
        page_size: bytes.
    """
    words = Words()
    words.add(stats.words)
    for process in processes:
        words.add(process.words)
    rows = [_measure(process, page_size) for process in processes]
    return Statistics(_word_counts(words), _count_objects(stats, processes), rows)


# States


def _begin_view(process: Process) -> ProcessView:
    return ProcessView(
        process.pid,
        process.context.name,
        [],
        [],
        [],
        [],
        [],
        bool(process.delivered_deaths),
        bool(process.delivered_freezes),
        process.client.euid,
    )


def _take_process(
    process: Process, view: ProcessView, now: int, *, only_busy: bool
) -> Iterator[None]:
    """Fill in the lists of ``view``; what has gone in between is left out."""
    for tid in sorted(process.threads):
        thread = process.threads.get(tid)
        if thread is not None:
            row = _view_thread(thread, now)
            view.threads.append(row)
            yield from _take_queue(thread.todo, process, thread, now, row.todo)
    for ptr in sorted(process.nodes):
        node = process.nodes.get(ptr)
        if node is not None and (node.has_one_way or not only_busy):
            view.nodes.append(_view_node(node, now))
        yield
    for handle in [] if only_busy else sorted(process.handles.refs):
        ref = process.handles.refs.get(handle)
        if ref is not None:
            view.refs.append(_view_ref(ref))
        yield
    for buffer in _buffers(process):
        view.buffers.append(_view_buffer(buffer))
        yield
    yield from _take_queue(process.todo, process, None, now, view.todo)


def _take_queue(
    queue: WorkQueue, process: Process, thread: Thread | None, now: int, rows: list[WorkView]
) -> Iterator[None]:
    for work in list(queue):
        if work.queue is queue:
            rows.append(work.view(process, thread, now))
        yield


def _view_ref(ref: Ref) -> RefRow:
    node = ref.node
    has_death, is_dead = ref.death is not None, not node.has_owner()
    return ref.debug_id, ref.handle, is_dead, node.debug_id, ref.strong, ref.weak, has_death


def _view_thread(thread: Thread, now: int) -> ThreadView:
    """Return what there is of a thread, but for what it is to read."""
    stack: list[tuple[bool, TransactionView]] = []
    call = thread.stack
    while call is not None:
        is_outgoing = call.sender is thread
        stack.append((is_outgoing, call.as_seen_by(thread.process, None, now)))
        call = call.sender_parent if is_outgoing else call.target_parent
    return ThreadView(thread.tid, thread.looper, thread.need_return, stack, [])


def _view_queue(
    queue: WorkQueue, process: Owner, thread: Thread | None, now: int
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


def _take_dead_nodes(processes: Iterable[Process], now: int, rows: list[NodeRow]) -> Iterator[None]:
    """Fill in the nodes whose owner is gone; only refs lead to them."""
    dead: dict[int, Node] = {}  # by debug id
    for process in processes:
        for ref in list(process.handles.refs.values()):
            if not ref.node.has_owner():
                dead[ref.node.debug_id] = ref.node
            yield
    for debug_id in sorted(dead, reverse=True):
        if dead[debug_id].refs:
            rows.append(_view_node(dead[debug_id], now))
        yield


def _view_buffer(buffer: Buffer) -> BufferRow:
    extra_size = extra_size_of(buffer.extra_size, buffer.context_size)
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


def _count_objects(stats: Stats, processes: Sequence[Process]) -> list[ObjectCount]:
    """Return the kinds in the driver's order (binder_objstat_strings)."""
    completes = sum(
        work.kind() in _COMPLETIONS
        for process in processes
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
