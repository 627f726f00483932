# SPDX-License-Identifier: Apache-2.0
"""A log of very much is taken row by row, while the engine goes on."""

from __future__ import annotations

import pytest

from binderd.introspect import text
from binderd.introspect.tree import LOGS, PROCESSES, LogTree
from support.engine_world import EngineProc, EngineWorld

MANY = 5000


class Plain(EngineWorld):
    """An engine world in which nodes may be that nobody needs."""

    def check(self) -> None:
        """Nothing."""


def crowded(count: int) -> tuple[EngineProc, LogTree]:
    """Return a process with so many nodes, and what is shown of it."""
    proc = Plain().open()
    proc.seasoned()
    for number in range(count):
        proc.file.process.node_for(16 * number + 16, 0, 0)
    return proc, LogTree(proc.world.engine, 4096)


def inode_of(proc: EngineProc, tree: LogTree, name: str) -> int:
    found = tree.find(LOGS, name) or tree.find(PROCESSES, str(proc.pid))
    assert found is not None
    return found.inode


@pytest.mark.parametrize("name", ["state", "transactions", "its own"])
def test_others_have_their_turn_before_there_is_text(name: str) -> None:
    proc, tree = crowded(MANY)
    pieces = tree.read(inode_of(proc, tree, name))
    assert pieces is not None
    before = 0
    while not next(pieces):
        before += 1
    assert before >= MANY


def test_it_says_the_same_if_nothing_happens_meanwhile() -> None:
    proc, tree = crowded(MANY)
    expected = "".join(text.state(proc.world.engine.take_state(), 0))
    assert "".join(tree.read(inode_of(proc, tree, "state")) or ()) == expected
    assert expected.count("node ") >= MANY


def test_what_goes_meanwhile_is_left_out() -> None:
    proc, tree = crowded(MANY)
    pieces = tree.read(inode_of(proc, tree, "state"))
    assert pieces is not None
    seen = [next(pieces) for _ in range(MANY // 2)]
    proc.kill()
    seen += pieces
    assert MANY // 4 < "".join(seen).count("node ") < MANY
    assert not any(proc.world.engine.counts().values())


def test_a_usual_log_is_of_one_moment() -> None:
    proc, tree = crowded(100)
    expected = "".join(text.state(proc.world.engine.take_state(), 0))
    pieces = tree.read(inode_of(proc, tree, "state"))
    proc.kill()
    assert "".join(pieces or ()) == expected
