# SPDX-License-Identifier: Apache-2.0
"""What a client chooses costs no more per piece the more there is of it, in built-ins as well.

``hostile/simulation.py`` counts lines, and cannot see how long one of them takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.engine_world import EngineWorld


def test_nodes_are_not_kept_in_order(world: EngineWorld) -> None:
    """Only BINDER_GET_NODE_DEBUG_INFO wants them so.

    A new one in front of 65,000 others would move half a megabyte, 8,192 of them in one call.
    """
    process = world.open().file.process
    for ptr in (5, 3, 9):
        process.node_for(ptr, 0, 0)
    assert [process.ptr_after(ptr) for ptr in (0, 3, 5, 9)] == [3, 5, 9, None]
    process.node_for(1, 0, 0)
    assert process._sorted_ptrs is None
    assert process.ptr_after(0) == 1
    process.nodes[3].put()
    assert process._sorted_ptrs is None
    assert process.ptr_after(1) == 5
    for ptr in (1, 5, 9):
        process.nodes[ptr].put()
