# SPDX-License-Identifier: Apache-2.0
"""Looking for the next request without sleeping: for whom, and when not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from binderd.channel.spin import Spin

if TYPE_CHECKING:
    import pytest

REQUEST = [(7, 1)]
BRIEF_NS = 20_000


class Poll:
    """Has something at the n-th look, or never."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.looks = 0

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        assert timeout == 0, "nobody sleeps here"
        self.looks += 1
        return REQUEST if self.looks == self.at else []


def test_a_request_is_found_as_soon_as_it_is_there() -> None:
    spin = Spin(10**12)
    for at in (1, 2, 50):
        poll = Poll(at)
        assert spin.look(poll) == REQUEST
        assert poll.looks == at


def test_it_ends_when_the_time_is_over() -> None:
    began = time.perf_counter_ns()
    assert Spin(BRIEF_NS).look(Poll()) == []
    assert time.perf_counter_ns() - began >= BRIEF_NS


class Lanes:
    """One that is watched, in which nothing is asked."""

    watched = (1,)

    def look(self, _now: int) -> bool:
        return False

    def rest(self) -> None:
        pass


def test_lanes_are_looked_at_for_longer() -> None:
    def time_taken() -> int:
        began = time.perf_counter_ns()
        assert Spin(BRIEF_NS).look(Poll(), Lanes()) == []
        return time.perf_counter_ns() - began

    # It ends sooner where others need the processor.
    assert max(time_taken() for _ in range(50)) >= 4 * BRIEF_NS


def test_zero_is_never() -> None:
    poll = Poll(1)
    assert Spin(0).look(poll) == []
    assert poll.looks == 0


def test_nobody_looks_for_long_for_those_who_do_not_call() -> None:
    spin, looked = Spin(BRIEF_NS), 0
    for _ in range(1000):
        poll = Poll()
        spin.look(poll)
        looked += poll.looks > 0
    assert 8 <= looked < 1000 / 32


def test_nobody_looks_where_others_need_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_yield", lambda: time.sleep(0.001))
    spin, looks = Spin(10**12), 0
    for _ in range(200):
        poll = Poll(1)
        spin.look(poll)
        looks += poll.looks
    assert looks <= 4


def test_who_calls_again_is_looked_for_again() -> None:
    spin = Spin(BRIEF_NS)
    for _ in range(100):
        spin.look(Poll())
    while spin.look(Poll(1)) != REQUEST:
        pass
    for _ in range(7):
        poll = Poll()
        assert spin.look(poll) == []
        assert poll.looks > 0
