# SPDX-License-Identifier: Apache-2.0
"""The search for work that grows faster than what is sent: it is repeatable, and it finds some."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import BC_ACQUIRE
from hostile.simulation import MOVES, TOO_MUCH, Case, growth, moves_of
from support import bc

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS = range(6)
SIZE = 16


@pytest.mark.parametrize("seed", SEEDS)
def test_work_grows_as_what_is_sent(seed: int) -> None:
    names = moves_of(seed)
    assert growth(names, SIZE) < TOO_MUCH, names


def test_a_seed_is_a_case() -> None:
    first, again = (Case(SIZE).play(moves_of(1)) for _ in range(2))
    assert first == again > 0


@pytest.fixture
def planted() -> Iterator[str]:
    """A move that sends as many commands as its size, squared."""
    name = f"planted {BC_ACQUIRE}"
    MOVES[name] = lambda case: [case.forwards(bc.acquire) for _ in case.numbers] and None
    yield name
    del MOVES[name]


def test_what_grows_faster_is_found(planted: str) -> None:
    assert growth(["send nodes", planted], SIZE) > TOO_MUCH
