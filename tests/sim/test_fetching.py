# SPDX-License-Identifier: Apache-2.0
"""Crowds whose requests pause between any two steps, and wait for memory in any of them."""

from __future__ import annotations

from random import Random

import pytest

from support.fetching import FetchingCrowd

STEPS = 300


def play(seed: int) -> FetchingCrowd:
    """Let others act and die while requests are paused, or wait for a fetch."""
    random = Random(seed)
    crowd = FetchingCrowd(random)
    world = crowd.world
    world.engine.set_pace(lambda: random.random() < 0.6)
    world.lets_pause = True
    crowd.join()
    for _ in range(STEPS):
        crowd.step()
        while world.fetching and random.random() < 0.5:
            world.end_fetch(random.choice(list(world.fetching)))
            crowd.settle()
        while world.engine.paused and random.random() < 0.6:
            world.go_on(random.choice(list(world.engine.paused)))
            world.drain()  # files are installed
            crowd.settle()
    crowd.end()
    return crowd


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_meanwhile_nothing_is_lost_or_left(seed: int) -> None:
    crowd = play(seed)
    assert crowd.world.fetches_made > 10
    assert crowd.world.pauses > 10
