# SPDX-License-Identifier: Apache-2.0
"""What must hold in an engine between any two calls, recounted the slow and obvious way.

``check`` walks everything that can be reached from the open files and compares each count that the
engine keeps with what it stands for.  It only reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.engine.death import Death
from binderd.engine.freeze import Freezing
from binderd.engine.freeze_notice import FreezeNotice
from binderd.engine.installation import ASKED, STOPPED
from binderd.engine.kinds import CALLS, KINDS, NOTICES
from binderd.engine.node import Node
from binderd.engine.paused_ioctl import PausedIoctl
from binderd.engine.read import HandingOver
from binderd.engine.release import Release
from binderd.engine.send import Sending
from binderd.engine.transaction import Transaction
from binderd.engine.work import Notice

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from binderd.engine.buffers import Buffer, BufferArea
    from binderd.engine.engine import Engine
    from binderd.engine.process import Process
    from binderd.engine.ref import Ref
    from binderd.engine.thread import Thread
    from binderd.engine.work import Work, WorkQueue


def check(
    engine: Engine, processes: Iterable[Process], *, lost_threads: Container[Process] = ()
) -> None:
    """Assert every invariant.

    Args:
        processes: those that are open, all of them. Those that are being released are known.
        lost_threads: those that had threads which are gone.  As in the driver, news of a node that
            only such a thread could have read are gone with it, and so may a node be left over.
    """
    alive = list(processes)
    dying = [found.process for found in engine.paused.values() if isinstance(found, Release)]
    for process in alive:
        assert not process.is_dead
        _check_process(process, alive + dying)
        if process not in lost_threads:
            for node in process.nodes.values():
                _check_news(node)
    _check_waiting(engine, alive)
    _check_paused(engine, alive)
    assert all(process.is_dead for process in dying)
    alive += dying
    _check_freezes(engine, alive)
    _check_files(engine, alive)
    _check_counts(engine, alive)
    _check_users(engine, alive)
    _check_totals(engine)


# Walking


def queues_of(process: Process) -> Iterator[WorkQueue]:
    yield process.todo
    for thread in process.threads.values():
        yield thread.todo
    for node in process.nodes.values():
        yield node.one_way_todo
    yield from process.abandoned


def works_of(processes: Iterable[Process]) -> Iterator[Work]:
    for process in processes:
        for queue in queues_of(process):
            yield from queue
    for process in processes:
        hub = process.hub
        for found in (*hub.paused.values(), *hub.fetching.values()):
            if isinstance(found, HandingOver) and found.thread.process is process:
                # What else ends a read has happened by then, and may be over.
                yield from [found.last] if isinstance(found.last, Transaction) else []


def refs_of(processes: Iterable[Process]) -> Iterator[Ref]:
    for process in processes:
        yield from process.handles.refs.values()


def threads_of(processes: Iterable[Process]) -> Iterator[Thread]:
    for process in processes:
        yield from process.threads.values()


def area_of(process: Process) -> BufferArea | None:
    return process._area


def buffers_of(process: Process) -> list[Buffer]:
    area = area_of(process)
    return [] if area is None else list(area.buffers.values())


def on_their_way(alive: list[Process]) -> list[Buffer]:
    """Return the buffers whose payload is not all there."""
    unfinished = [thread.unfinished for thread in threads_of(alive)]
    return [each._rest.buffer for each in unfinished if isinstance(each, Sending)]


def stack_of(thread: Thread) -> list[Transaction]:
    """Return the calls that the thread is in, innermost first."""
    calls, call = [], thread.stack
    while call is not None:
        assert call not in calls, "a stack runs in a circle"
        calls.append(call)
        if call.target_thread is thread:
            call = call.target_parent
        else:
            assert call.sender is thread, "a call in a stack that is not the thread's"
            call = call.sender_parent
    return calls


def chain_of(call: Transaction | None) -> Iterator[Transaction]:
    """Yield a call and those that its sender was in: whom a failure is passed on to (E5)."""
    while call is not None:
        yield call
        call = call.sender_parent


# One process


def _check_process(process: Process, alive: list[Process]) -> None:
    assert process.requested_threads >= 0
    for queue in queues_of(process):
        for work in queue:
            assert work.queue is queue, "work that does not know its queue"
    for tid, thread in process.threads.items():
        assert (thread.tid, thread.process, thread.is_dead) == (tid, process, False)
        _check_thread(thread)
    for handle, ref in process.handles.refs.items():
        assert ref.handle == handle
        _check_ref(process, ref)
    for ptr, node in process.nodes.items():
        assert (node.ptr, node.process) == (ptr, process)
        _check_node(process, node, alive)
    for work in process.todo:
        assert not isinstance(work, Node) or work.process is process
    _check_area(process)


def _check_thread(thread: Thread) -> None:
    for call in stack_of(thread):
        if call.target_thread is not None:
            assert call in stack_of(call.target_thread)
        if call.sender is not None:
            assert call in stack_of(call.sender)
    for work in thread.todo:
        if isinstance(work, Transaction):
            assert work.target_process is thread.process
            assert work.target_thread is None
    if thread.parked is None:
        assert thread not in thread.process.waiting


def _check_ref(process: Process, ref: Ref) -> None:
    assert ref.process is process
    assert ref.strong >= 0
    assert ref.weak >= 0
    assert ref.strong + ref.weak > 0, "a ref that nobody counts"
    assert ref.node.refs[process] is ref
    node = ref.node
    assert node.process is not process, "a handle to an own node"
    if node.process is None:
        assert not node.one_way_todo
        assert node.queue is None
    else:
        assert node.process.nodes[node.ptr] is node


def _check_node(process: Process, node: Node, alive: list[Process]) -> None:
    for holder, ref in node.refs.items():
        assert holder in alive, "a dead process still refers to a node"
        assert holder.handles.refs[ref.handle] is ref
    assert node.internal_strong == sum(ref.strong > 0 for ref in node.refs.values())
    buffers = buffers_of(process)
    sent = [each for each in buffers if each not in on_their_way(alive)]
    held = [entry for buffer in buffers for entry in buffer.held or []]
    granted = node is process.context.manager
    targeted = sum(buffer.target_node is node for buffer in buffers)
    strong = sum(target is node and is_strong for is_strong, target in held)
    weak = sum(target is node and not is_strong for is_strong, target in held)
    assert node.local_strong == targeted + strong + node.pending_strong + granted
    assert node.local_weak == weak + node.pending_weak + granted
    assert node.has_strong or not node.pending_strong
    assert node.has_weak or not node.pending_weak
    assert node.has_one_way == any(
        (buffer.one_way_from is not None) and buffer.target_node is node for buffer in sent
    )
    assert node.has_one_way or not node.one_way_todo


def _check_news(node: Node) -> None:
    needed = node.refs or node.local_strong or node.local_weak
    assert needed or node.queue is not None, "a node that nobody needs and nobody will remove"
    news = node.has_strong and not (node.internal_strong or node.local_strong)
    assert not news or node.queue is not None, "the owner will never hear of the release"


def _check_area(process: Process) -> None:
    area = area_of(process)
    if area is None:
        return
    assert process.mapping is not None
    pieces = [(offset, size) for offset, size in area.free_ranges()]
    one_way = 0
    for address, buffer in area.buffers.items():
        assert address == buffer.address == process.mapping.address + buffer.offset
        assert buffer.size % 8 == 0 < buffer.size
        pieces.append((buffer.offset, buffer.size))
        one_way += buffer.size if (buffer.one_way_from is not None) else 0
        if buffer.transaction is not None:
            assert buffer.transaction.buffer is buffer
        assert not (buffer.files and buffer.allow_user_free), "files that were never handed over"
    assert area.free_one_way == area.size // 2 - one_way
    assert area._flood._shares == _shares(area)
    position = 0
    for offset, size in sorted(pieces):
        assert offset == position, "buffers and free ranges overlap or leave a gap"
        position += size
    assert position == area.size & ~7
    free_starts = {offset for offset, _ in area.free_ranges()}
    assert not any(offset + size in free_starts for offset, size in area.free_ranges())


def _shares(area: BufferArea) -> dict[int, tuple[int, int]]:
    """Return how many one-way buffers each sender holds, and their bytes."""
    shares: dict[int, tuple[int, int]] = {}
    for buffer in area.buffers.values():
        if buffer.one_way_from is not None:
            count, size = shares.get(buffer.one_way_from, (0, 0))
            shares[buffer.one_way_from] = (count + 1, size + buffer.size)
    return shares


# All together


def _check_freezes(engine: Engine, alive: list[Process]) -> None:
    """A freeze is waited for as long as it must be; a report is in one place at a time."""
    assert not engine._hub.drained
    assert list(engine._hub.timed.values()) == list(engine._hub.waiting.values())
    for ticket, freezing in engine._hub.waiting.items():
        process = freezing.processes[0]
        assert (freezing.ticket, engine._hub.timed[freezing.timer]) == (ticket, freezing)
        assert process.freezings[ticket] is freezing
        assert process.outstanding or not process.is_frozen, "a freeze sleeps on"
    notices = [ref.freeze for ref in refs_of(alive) if ref.freeze is not None]
    assert not any(notice.cleared for notice in notices)
    notices += [w for w in works_of(alive) if isinstance(w, FreezeNotice) and w.cleared]
    delivered = [
        notice
        for process in alive
        for group in process.delivered_freezes.values()
        for notice in group
    ]
    assert all(notice.sent and notice.queue is None for notice in delivered)
    assert all(notice in delivered for notice in notices if notice.sent)
    assert not any(notice.resend and not notice.sent for notice in notices)
    assert engine.counts()["freezes"] == len({id(notice) for notice in notices + delivered})


def _check_files(engine: Engine, alive: list[Process]) -> None:
    """Files on their way are counted; what is installed is at the front of its reader's queue."""
    queued = [(process, buffer) for process in alive for buffer in buffers_of(process)]
    for process in alive:
        assert process.files_queued == sum(len(b.files) for p, b in queued if p is process)
    assert engine.counts()["files"] == sum(len(buffer.files) for _, buffer in queued)
    for number, installation in engine._roster.installations.items():
        assert (installation.number, installation.is_over) == (number, False)
        assert installation.thread.process.installations[number] is installation
        if not installation.thread.is_dead:
            assert installation.thread.installation is installation
    for number, close in engine._roster.deferred_closes.items():
        assert (close.number, close.state) in {(number, ASKED), (number, STOPPED)}
    for thread in threads_of(alive):
        assert not thread.closes or thread.paused is not None
        if thread.installation is not None:
            front = next(iter(thread.todo))
            assert isinstance(front, Transaction)
            assert front.buffer is not None
            assert len(front.buffer.files) == thread.installation.count


def _check_waiting(engine: Engine, alive: list[Process]) -> None:
    """A read sleeps exactly as long as there is nothing for it to do."""
    assert not engine._roster.runnable
    parked = {t.parked.ticket: t for t in threads_of(alive) if t.parked is not None}
    assert engine.parked == parked
    for thread in parked.values():
        process = thread.process
        if thread.must_wait():
            assert thread not in process.waiting
            continue
        assert not thread.process_todo, "a read sleeps on its work"
        assert not thread.need_return, "a read sleeps that must return"
        assert not process.nonblocking
        assert (thread in process.waiting) == thread.for_process
        assert not (thread.for_process and process.todo), "a read sleeps on work of its process"
    for process in alive:
        assert all(thread in parked.values() for thread in process.waiting)


def _check_paused(engine: Engine, alive: list[Process]) -> None:
    """A thread between two of its commands is listed, and is in no read."""
    paused = {t.paused.ticket: t.paused for t in threads_of(alive) if t.paused is not None}
    listed = {
        ticket: found.request
        for ticket, found in (*engine.paused.items(), *engine.fetching.items())
        if isinstance(found, PausedIoctl | HandingOver)
    }
    assert listed == paused
    assert all(ticket == found.ticket for ticket, found in engine.paused.items())
    assert not engine.paused.keys() & engine.parked.keys()
    assert not engine.fetching.keys() & (engine.paused.keys() | engine.parked.keys())


def _check_counts(engine: Engine, alive: list[Process]) -> None:
    refs = list(refs_of(alive))
    dead = {ref.node.debug_id for ref in refs if ref.node.process is None}
    works = list(works_of(alive))
    calls = [call for thread in threads_of(alive) for call in stack_of(thread)]
    calls += [work for work in works if isinstance(work, Transaction)]
    live = {outer.debug_id: outer for call in calls for outer in chain_of(call)}
    for process in alive:
        assert process.outstanding == sum(c.target_process is process for c in live.values())
    deaths = {id(ref.death) for ref in refs if ref.death is not None}
    deaths |= {id(work) for work in works if isinstance(work, Death)}
    for process in alive:
        deaths |= {id(death) for group in process.delivered_deaths.values() for death in group}
    counts = engine.counts()
    assert counts["processes"] == len(alive)
    assert counts["threads"] == sum(len(process.threads) for process in alive)
    assert counts["nodes"] == sum(len(process.nodes) for process in alive) + len(dead)
    assert counts["refs"] == len(refs)
    assert counts["buffers"] == sum(len(buffers_of(process)) for process in alive)
    assert counts["transactions"] == len(live)
    assert counts["deaths"] == len(deaths)
    assert counts["parked"] == len(engine.parked)
    assert counts["paused"] == len(engine.paused)


def _check_users(engine: Engine, alive: list[Process]) -> None:
    """What each user is charged for is what its open files have."""
    users = engine._hub.users._by_number
    assert {process.user.number for process in alive} <= set(users)
    queued = [(process.user, buffer) for process in alive for buffer in buffers_of(process)]
    calls = [call for thread in threads_of(alive) for call in stack_of(thread)]
    calls += [work for work in works_of(alive) if isinstance(work, Transaction)]
    paid = {outer.debug_id: outer for call in calls for outer in chain_of(call) if outer._calls}
    for number, user in users.items():
        own = [process for process in alive if process.user is user]
        shares = [work._share for work in works_of(own) if isinstance(work, Notice)]
        counts = user.counts()
        assert user.number == number
        assert not user.has_nothing()
        assert user.files_sent == sum(
            len(b.files) for _, b in queued if b.files_from and b.files_from.user is user
        )
        expected = {
            "areas": sum(area.size for area in map(area_of, own) if area is not None),
            "buffers": sum(len(buffers_of(process)) for process in own),
            "calls": sum(call._calls is user.of(CALLS) for call in paid.values()),
            "files": sum(len(b.files) for receiver, b in queued if receiver is user),
            "freezes": sum(
                found.payer == user.number
                for found in [*engine._hub.waiting.values(), *engine.paused.values()]
                if isinstance(found, Freezing)
            ),
            "nodes": sum(len(process.nodes) for process in own),
            "notices": len(shares) + len(_registrations(own)),
            "objects": sum(b.objects for receiver, b in queued if receiver is user),
            "open_files": len(own),
            "refs": sum(len(process.handles.refs) for process in own),
            "threads": sum(len(process.threads) for process in own),
        }
        assert {name: counts[name] for name in expected} == expected
        assert all(share is user.of(NOTICES) for share in shares)
        for sender, count in user.files_from.items():
            assert count == sum(
                len(b.files)
                for receiver, b in queued
                if receiver is user and b.files_from and b.files_from.user is sender
            )


def _check_totals(engine: Engine) -> None:
    for kind in KINDS:
        everybody = sum(user.of(kind).count for user in engine._hub.users._by_number.values())
        assert engine._hub.users.total(kind).count == everybody, kind.name


def _registrations(processes: list[Process]) -> set[int]:
    """Return the death and freeze notices of processes."""
    found = {id(work) for work in works_of(processes) if isinstance(work, (Death, FreezeNotice))}
    for ref in refs_of(processes):
        found |= {id(notice) for notice in (ref.death, ref.freeze) if notice is not None}
    for process in processes:
        found |= {id(death) for group in process.delivered_deaths.values() for death in group}
        found |= {id(notice) for group in process.delivered_freezes.values() for notice in group}
    return found
