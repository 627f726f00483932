# SPDX-License-Identifier: Apache-2.0
"""The collector of cycles looks at old objects only while they are few."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from binderd.garbage import Garbage

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = 200_000
OLD = 2  # the generation


class Knot:
    def __init__(self) -> None:
        self.self = self


@pytest.fixture
def garbage() -> Iterator[Garbage]:
    thresholds = gc.get_threshold()
    yield Garbage()
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def make_old() -> None:
    """Let whatever is alive now grow old, as it does while a daemon works."""
    gc.collect(OLD - 1)


def test_old_cycles_go_while_there_is_little(garbage: Garbage) -> None:
    knot = Knot()
    found = weakref.ref(knot)
    make_old()
    make_old()
    del knot
    assert garbage.collect()
    assert found() is None
    assert not garbage.collect(), "nothing is new"


def test_many_old_objects_are_left_alone(garbage: Garbage) -> None:
    looks: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            looks.append(info["generation"])

    gc.callbacks.append(note)
    try:
        kept = [[number] for number in range(MANY)]
        assert looks
        assert OLD not in looks
        make_old()
        assert not garbage.collect()
        assert OLD not in looks
        del kept
        assert garbage.collect()
    finally:
        gc.callbacks.remove(note)
