# SPDX-License-Identifier: Apache-2.0
"""Crowds of clients whose requests pause between any two commands."""

from __future__ import annotations

from random import Random

import pytest

from support.crowd import Crowd

SEEDS = range(20)
STEPS = 300
OTHER_SEEDS = range(100, 160, 4)


def play(seed: int, *, pauses: bool) -> Crowd:
    """Play one simulation, with a pause wherever nobody can tell or with none."""
    crowd = Crowd(Random(seed).randrange)
    if pauses:
        crowd.world.pause_unnoticed()
    crowd.join()
    for _ in range(STEPS):
        crowd.step()
    crowd.end()
    return crowd


@pytest.mark.parametrize("seed", SEEDS)
def test_pauses_that_nobody_can_tell_change_no_byte(seed: int) -> None:
    plain, paused = play(seed, pauses=False), play(seed, pauses=True)
    assert paused.world.digest.hexdigest() == plain.world.digest.hexdigest()
    assert paused.world.pauses > 10
    assert not plain.world.pauses


def play_into_pauses(seed: int) -> int:
    """Let others act, die and send signals while requests are paused; return how many were."""
    random = Random(seed)
    crowd = Crowd(random.randrange)
    world = crowd.world
    world.engine.set_pace(lambda: random.random() < 0.7)
    world.lets_pause = True
    crowd.join()
    most = 0
    for _ in range(STEPS):
        crowd.step()
        most = max(most, len(world.engine.paused))
        while world.engine.paused and random.random() < 0.25:
            world.go_on(random.choice(list(world.engine.paused)))
            crowd.settle()
    crowd.end()
    return most


@pytest.mark.parametrize("first", OTHER_SEEDS)
def test_whatever_happens_in_a_pause_nothing_is_lost_or_left(first: int) -> None:
    assert max(play_into_pauses(first + number) for number in range(4)) > 1
