# SPDX-License-Identifier: Apache-2.0
"""The parts without processes: schedule, judgement, the driver's texts, report and picture."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from binderclient.demo.report import Check
from binderclient.stress import audit
from binderclient.stress.board import Cell, Link
from binderclient.stress.driver import parse_counts
from binderclient.stress.latency import Latency
from binderclient.stress.options import Options
from binderclient.stress.picture import draw, time_text
from binderclient.stress.report import Result, as_json, as_text
from binderclient.stress.schedule import Schedule

# The schedule


def test_the_same_seed_gives_the_same_moments() -> None:
    rates = {"kill": 2.0, "stop": 0.0, "freeze": 5.0}
    first, second = (list(Schedule(7, rates).due(100.0)) for _ in range(2))
    assert first == second
    assert first != list(Schedule(8, rates).due(100.0))
    assert [event.seconds for event in first] == sorted(event.seconds for event in first)
    kinds = [event.kind for event in first]
    assert 150 < kinds.count("kill") < 250
    assert 400 < kinds.count("freeze") < 600
    assert "stop" not in kinds
    assert all(0 <= event.dice < 1 for event in first)


def test_what_is_due_comes_once() -> None:
    schedule = Schedule(1, {"kill": 10.0})
    parts = [list(schedule.due(seconds)) for seconds in (1.0, 1.0, 2.0)]
    assert parts[1] == []
    assert list(itertools.chain(*parts)) == list(Schedule(1, {"kill": 10.0}).due(2.0))
    assert list(Schedule(1, {}).due(1e9)) == []


# Numbers: two servers (0, 1), two clients (2, 3) with two threads each; client 3 was killed once.

LIVES = {0: 1, 1: 1, 2: 1, 3: 2}


def missing(sent: Cell, received: Cell, server: int = 0, thread: int = 0) -> list[str]:
    return list(audit.missing_calls([(server, thread, sent, received)], 2, 2, LIVES))


def test_what_both_ends_agree_on() -> None:
    assert missing(Cell(1, 1, 5, 7), Cell(1, 1, 5, 7)) == []
    assert missing(Cell(1, 1, 5, 7), Cell(1, 1, 5, 8)) == [], "a reply that had no room"
    assert missing(Cell(1, 1, 0, 0), Cell(0, 0, 0, 0)) == []


@pytest.mark.parametrize(
    ("received", "text"),
    [
        (Cell(1, 1, 4, 7), "5 one-way calls accepted, 4 received"),
        (Cell(1, 1, 6, 7), "5 one-way calls accepted, 6 received"),
        (Cell(1, 1, 5, 6), "7 calls answered, 6 received"),
        (Cell(0, 0, 0, 0), "5 one-way calls accepted, 0 received"),
        (Cell(9, 1, 5, 7), "5 one-way calls accepted, 0 received"),
    ],
)
def test_what_is_missing(received: Cell, text: str) -> None:
    found = missing(Cell(1, 1, 5, 7), received)
    assert text in found[0]
    assert "from thread 0 of client 2 to server 0" in found[0]


def test_who_was_killed_is_not_asked() -> None:
    assert missing(Cell(1, 1, 5, 7), Cell(1, 1, 4, 7), thread=2) == [], "a former client"
    assert missing(Cell(2, 1, 5, 7), Cell(2, 1, 4, 7), thread=2) != []
    assert missing(Cell(1, 9, 5, 7), Cell(1, 1, 4, 7)) == [], "a former server"


@pytest.mark.parametrize(
    ("link", "alive", "is_missing"),
    [
        (Link(1, 0, 2), [2, 3], False),  # watching one that lives
        (Link(2, 1, 2), [2, 3], False),  # told of the first life, watching the second
        (Link(1, 1, 1), [2, 3], False),  # told, and not connected again
        (Link(1, 1, 2), [2, 3], True),  # told of a death that was none
        (Link(2, 0, 2), [2, 3], True),  # not told of the first life
        (Link(1, 0, 1), [2, 3], True),
        (Link(2, 1, 2), [2], True),  # the second is over as well
        (Link(2, 2, 2), [2], False),
        (Link(1, 2, 1), [2], True),  # told twice
        (Link(5, 0, 1), [3], False),  # who was not alive cannot be asked
    ],
)
def test_deaths(link: Link, alive: list[int], is_missing: bool) -> None:
    found = list(audit.missing_deaths([(2, 3, link)], LIVES, alive))
    assert bool(found) is is_missing, found


def test_files_that_were_kept() -> None:
    workers = [(n, {"files_at_start": 9, "files_at_end": end}) for n, end in enumerate((9, 10, 8))]
    assert list(audit.open_files(workers)) == [
        "worker 1: 9 open files at its start, 10 at its end",
        "worker 2: 9 open files at its start, 8 at its end",
    ]


# What the driver says

STATS = """\
binder stats:
BC_TRANSACTION: 12
proc: active 3 total 40
thread: active 5 total 90
node: active 2 total 9
proc 17
context binder
  threads: 2
  node: active 9 total 9
"""


def test_counts_of_the_driver() -> None:
    before = parse_counts(STATS)
    assert before == {"proc": 3, "thread": 5, "node": 2}
    assert parse_counts("") == {}
    assert audit.leftovers(before, before) == {}
    assert audit.leftovers(before, {**before, "proc": 2, "node": 4, "ref": 1}) == {
        "node": 2,
        "ref": 1,
    }


# What is shown


def result() -> Result:
    curve = [(0.0, 50.0), (50.0, 60.0), (100.0, 70000.0)]
    latency = Latency(1000, {"p50": 60.0, "p99.99": 70000.0}, 61.0, 70000.0, curve)
    return Result(
        Options(),
        "/dev/binder",
        2.0,
        {"call": latency, "one-way": latency._replace(calls=0)},
        {"calls": 900, "oneways": 100, "no_room": 3, "no_room_for_reply": 1, "told": 5},
        {"killed": 2},
        None,
        [Check("this", True, ""), Check("that", False, "no")],
        ["a note"],
    )


def test_the_report() -> None:
    text = as_text(result())
    assert "1,000 calls in 2.0 s (500/s)" in text
    assert "sent again: 4" in text
    assert "accidents: 2 killed; deaths told: 5" in text
    assert "no daemon" in text
    assert "FAILED  that: no" in text
    assert [line.split()[0] for line in text.splitlines()[:2]] == ["calls", "call"]
    assert "one-way" not in text
    assert "a note" in text
    facts = json.loads(json.dumps(as_json(result())))
    assert (facts["calls"], facts["calls_per_second"], facts["passed"]) == (1000, 500.0, False)
    assert facts["latencies"]["call"]["percentiles"]["p50"] == 60.0


def test_without_any_call() -> None:
    empty = replace(result(), seconds=0.0, latencies={}, totals={})
    assert "0 calls in 0.0 s (0/s)" in as_text(empty)
    assert draw("x", {}).startswith("<svg")


def test_the_picture() -> None:
    root = ElementTree.fromstring(draw("a & <b>", result().latencies))
    space = "{http://www.w3.org/2000/svg}"
    (line,) = root.findall(f"{space}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert points == sorted(points), "rarer is to the right"
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    texts = [each.text for each in root.iter(f"{space}text")]
    assert "a & <b>" in texts
    assert "99.99 %" in texts


@pytest.mark.parametrize(
    ("microseconds", "text"), [(0.5, "0.5 µs"), (999, "999 µs"), (1500, "1.5 ms"), (2e6, "2 s")]
)
def test_times(microseconds: float, text: str) -> None:
    assert time_text(microseconds) == text
