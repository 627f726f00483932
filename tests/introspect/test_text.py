# SPDX-License-Identifier: Apache-2.0
"""Lines of the logs that the life in ``test_life.py`` does not lead to, and the views they show."""

from __future__ import annotations

import re

import pytest

from binderd.engine import views
from binderd.engine.rings import ENTRIES_COUNT, TransactionLog
from binderd.engine.views import ProcessView, State, ThreadView, TransactionView, WorkView
from binderd.introspect import text
from binderd.introspect.tree import FEATURES, LOGS, PROCESSES, ROOT, LogTree
from support import bc
from support.engine_world import EngineWorld
from support.scenes import answer, get_call, give, manager_and_client, round_trip

PAGE = 4096


def one_process(**fields: object) -> State:
    """A process with nothing in it but what is named."""
    empty: dict[str, list[object]] = {
        name: [] for name in ("threads", "nodes", "refs", "buffers", "todo")
    }
    values = {"pid": 1, "context": "binder", **empty}
    values |= {"uid": 1000, "has_delivered_death": False, "has_delivered_freeze": False, **fields}
    return State([], [ProcessView(**values)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("work", "line"),
    [
        (WorkView(views.TRANSACTION_COMPLETE), "transaction complete"),
        (WorkView(views.TRANSACTION_PENDING), "unknown work: type 3"),
        (WorkView(views.TRANSACTION_SPAM_SUSPECT), "unknown work: type 4"),
        (WorkView(views.RETURN_ERROR, 29201), "transaction error: 29201"),
        (
            WorkView(views.NODE, 7, 0x7F00, 0xABC),
            "node work 7: u0000000000007f00 c0000000000000abc",
        ),
        (WorkView(views.DEAD_BINDER), "has dead binder"),
        (WorkView(views.DEAD_BINDER_AND_CLEAR), "has cleared dead binder"),
        (WorkView(views.CLEAR_DEATH_NOTIFICATION), "has cleared death notification"),
        (WorkView(views.FROZEN_BINDER), "has frozen binder"),
        (WorkView(views.CLEAR_FREEZE_NOTIFICATION), "has cleared freeze notification"),
    ],
)
def test_work_of_a_process_and_of_a_thread(work: WorkView, line: str) -> None:
    thread = ThreadView(9, 0x11, True, [], [work])
    view = one_process(threads=[thread], todo=[work])
    assert "".join(text.transactions(view, 0)) == (
        "binder transactions:\nproc 1\ncontext binder\n"
        f"  thread 9: l 11 need_return 1 tr 0\n    {line}\n  {line}\n"
    )


@pytest.mark.parametrize(
    ("is_here", "place", "end"),
    [
        (False, None, ""),
        (False, (3, 16, 8, 0x40), ""),
        (True, None, " buffer free"),
        (True, (3, 16, 8, 0x40), " node 3 size 16:8 offset 40"),
        (True, (0, 16, 0, 0), " size 16:0 offset 0"),
    ],
)
def test_a_transaction_shows_its_buffer_where_it_is(
    is_here: bool, place: tuple[int, int, int, int] | None, end: str
) -> None:
    call = TransactionView(0x1F, 1, 2, 3, 4, 0x5F, 0x11, -5, True, 1234, is_here, place)
    view = one_process(threads=[ThreadView(2, 0, False, [(True, call)], [])])
    assert "".join(text.state(view, 0)).splitlines()[-1] == (
        "    outgoing transaction 31: 000000000000001f from 1:2 to 3:4"
        f" code 5f flags 11 pri -5 r1 elapsed 1234ms{end}"
    )


@pytest.mark.parametrize(("reader", "sees", "sees_dead"), [(0, 1, 1), (1000, 1, 0), (1001, 0, 0)])
def test_pointers_wherever_they_are(reader: int, sees: bool, sees_dead: bool) -> None:
    """A dead node's process is gone: its pointers are root's."""
    work = WorkView(views.NODE, 4, 0x77AA, 0x77BB)
    node = (4, 0x77CC, 0x77DD, True, False, 1, 2, 3, (7, 8), (work,))
    thread = ThreadView(2, 0, False, [], [work])
    view = one_process(threads=[thread], nodes=[node], todo=[work])
    for shown in (text.state(view, reader), text.process_state(view, reader)):
        pointers = re.findall(r"77aa|77bb|77cc|77dd", "".join(shown))
        assert len(pointers) == 8 * sees
    assert len(re.findall("77", "".join(text.transactions(view, reader)))) == 8 * sees
    dead = view._replace(dead_nodes=[node], processes=[])
    assert len(re.findall("77", "".join(text.state(dead, reader)))) == 4 * sees_dead


def test_dead_nodes_and_what_was_delivered() -> None:
    queued = WorkView(
        views.TRANSACTION, call=TransactionView(5, 1, 2, 3, 0, 0, 1, 0, False, 0, False, None)
    )
    node = (4, 0x10, 0x20, True, False, 1, 2, 3, (7, 8), (queued,))
    view = one_process(has_delivered_death=True, has_delivered_freeze=True)
    assert "".join(text.state(view._replace(dead_nodes=[node]), 0)) == (
        "binder state:\ndead nodes:\n"
        "  node 4: u0000000000000010 c0000000000000020"
        " hs 1 hw 0 ls 1 lw 2 is 3 iw 2 tr 1 proc 7 8\n"
        "    pending async transaction 5: 0000000000000005 from 1:2 to 3:0"
        " code 0 flags 1 pri 0 r0 elapsed 0ms\n"
        "proc 1\ncontext binder\n  has delivered dead binder\n  has delivered freeze binder\n"
    )
    assert "".join(text.transactions(view, 0)).count("\n") == 5
    assert "".join(text.transactions(one_process(), 0)) == "binder transactions:\n"


def test_the_log_s_numbers_are_those_of_c() -> None:
    log = TransactionLog()
    entry = log.next_entry()
    entry.debug_id, entry.context, entry.handle = 1, "hw", 0xFFFFFFFF
    entry.data_size, entry.offsets_size = 1 << 31, (1 << 40) + 5
    entry.reply, entry.param = 29189, -22
    assert "".join(text.transaction_log(log.entries())) == (
        "1: call  from 0:0 to 0:0 context hw node 0 handle -1 size -2147483648:5"
        " ret 29189/-22 l=0\n"
    )


@pytest.mark.parametrize("count", [0, 1, ENTRIES_COUNT - 1, ENTRIES_COUNT, ENTRIES_COUNT + 5, 100])
def test_a_log_keeps_the_latest(count: int) -> None:
    log = TransactionLog()
    for number in range(count):
        log.next_entry().debug_id = number
    expected = list(range(max(0, count - ENTRIES_COUNT), count))
    assert [entry.debug_id for entry in log.entries()] == expected


# Views


def test_a_view_does_not_change_any_more() -> None:
    world = EngineWorld()
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0, b"x" * 100))
    state = world.engine.take_state()
    figures = world.engine.take_statistics(PAGE)
    log = world.engine.logged_transactions(failed=False)
    before = ["".join(text.state(state, 0)), "".join(text.stats(figures)), list(log)]
    answer(scene.server, get_call(scene.server))
    started.result()
    world.close()
    assert ["".join(text.state(state, 0)), "".join(text.stats(figures)), list(log)] == before
    assert "incoming" not in before[0]
    assert "outgoing transaction" in before[0]


def test_a_nested_call_names_its_thread_before_it_is_read() -> None:
    world = EngineWorld()
    scene = manager_and_client(world)
    number = give(scene, 0x10)
    started = scene.client.start(bc.call(0))
    call = get_call(scene.server)
    nested = scene.server.start(bc.call(number))
    logged = world.engine.logged_transactions(failed=False)[-1]
    assert (logged.target_pid, logged.target_tid) == (scene.client.proc.pid, scene.client.tid)
    inner = started.result().items[-1]
    assert f"to {scene.client.proc.pid}:{scene.client.tid}" in "".join(
        text.state(world.engine.take_state(), 0)
    )
    scene.client.write(bc.free(inner.buffer), bc.reply())
    scene.server.write(bc.free(nested.result().items[-1].buffer))
    scene.server.write(bc.free(call.buffer), bc.reply())
    world.close()
    world.assert_empty()


def test_elapsed_is_counted_from_the_call() -> None:
    world = EngineWorld()
    now = [5_000_000]
    world.engine._hub.clock = lambda: now[0]
    scene = manager_and_client(world)
    started = scene.client.start(bc.call(0))
    now[0] += 1_234_999_999
    assert "elapsed 1234ms" in "".join(text.transactions(world.engine.take_state(), 0))
    scene.client.signal()
    scene.server.write(bc.free(get_call(scene.server).buffer), bc.reply())
    now[0] += 1_000_000
    assert "elapsed 1235ms" in "".join(text.transactions(world.engine.take_state(), 0))
    assert started.result().errno
    world.close()


def test_words_are_kept_when_their_process_goes() -> None:
    world = EngineWorld()
    scene = manager_and_client(world)
    round_trip(scene)
    before = world.engine.take_statistics(PAGE)
    world.close()
    after = world.engine.take_statistics(PAGE)
    assert after.processes == []
    assert after.words == before.words
    active = {kind: active for kind, active, _ in after.objects}
    assert not any(active.values())
    assert [total for *_, total in after.objects] == [total for *_, total in before.objects]


def test_pages_are_counted_once() -> None:
    world = EngineWorld()
    scene = manager_and_client(world)
    area_pages = (128 << 10) // PAGE
    started = [scene.client.start(bc.oneway(0, bytes(size))) for size in (100, PAGE, 3 * PAGE)]
    [manager] = [p for p in world.engine.take_statistics(PAGE).processes if p.buffers]
    assert (manager.buffers, manager.pages) == (3, (5, 0, area_pages - 5))
    assert manager.pages_max == 5
    assert manager.free_one_way == (64 << 10) - 104 - 4 * PAGE
    assert [pending.parked for pending in started] == [False] * 3
    world.close()


# The tree


def test_the_tree_has_the_driver_s_names() -> None:
    world = EngineWorld()
    tree = LogTree(world.engine, PAGE)

    def names(directory: int) -> list[str]:
        return [entry.name for entry in tree.entries(directory) or ()]

    assert names(ROOT) == ["features", "binder_logs"]
    assert names(FEATURES) == ["oneway_spam_detection", "extended_error", "freeze_notification"]
    logs = ["state", "stats", "transactions", "transaction_log", "failed_transaction_log", "proc"]
    assert names(LOGS) == logs
    assert names(PROCESSES) == []
    assert tree.entries(99) is None
    for entry in tree.entries(FEATURES) or ():
        pieces = tree.read(entry.inode)
        assert pieces is not None
        assert list(pieces) == ["1\n"]
    inodes = [e.inode for d in (ROOT, FEATURES, LOGS) for e in tree.entries(d) or ()]
    assert len(set(inodes)) == len(inodes)


def test_a_process_has_one_file_for_all_that_it_has_open() -> None:
    world = EngineWorld()
    tree = LogTree(world.engine, PAGE)
    proc = world.open()
    again = proc.open_again()
    other = world.open()
    assert world.engine.pids() == sorted([proc.pid, other.pid])
    entry = tree.find(PROCESSES, str(proc.pid))
    assert entry is not None
    assert not tree.is_directory(entry.inode)
    assert not tree.is_lasting(entry.inode)
    pieces = tree.read(entry.inode)
    assert pieces is not None
    part = f"binder proc state:\nproc {proc.pid}\ncontext binder\n"
    assert "".join(pieces) == part + part
    again.close()
    proc.close()
    assert tree.find(PROCESSES, str(proc.pid)) is None
    assert tree.read(entry.inode) is None
    world.close()
