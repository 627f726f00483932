# SPDX-License-Identifier: Apache-2.0
"""Seeded simulation: crowds of clients with deaths, signals, full buffers and short reads.

A failure is replayed exactly by its seed, which is the test's parameter.
"""

from __future__ import annotations

from random import Random

import pytest

from support.crowd import Crowd

SEEDS = range(120)
STEPS = 400


def run(seed: int, steps: int = STEPS) -> Crowd:
    """Play one simulation to its end."""
    crowd = Crowd(Random(seed).randrange)
    crowd.join()
    for _ in range(steps):
        crowd.step()
    crowd.end()
    return crowd


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_left(seed: int) -> None:
    run(seed)


def test_the_same_seed_gives_the_same_bytes() -> None:
    digests = [run(seed, 100).world.digest.hexdigest() for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_the_simulation_gets_everywhere() -> None:
    totals: dict[str, int] = {}
    for seed in range(20):
        for kind, count in run(seed).arrivals.items():
            totals[kind] = totals.get(kind, 0) + count
    assert min(totals.values()) > 10, totals
