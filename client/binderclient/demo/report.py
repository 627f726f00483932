# SPDX-License-Identifier: Apache-2.0
"""What the demo says: one line per second while it runs, then a table, then what was proved.

Pure but for printing: it gets reports, it starts and measures nothing.
"""

from __future__ import annotations

import sys
from typing import Any, Final, NamedTuple, TextIO

_KIB: Final = 1024
_NAMED_ROWS: Final = ("nested", "one-way")


class Check(NamedTuple):
    """One thing that had to hold."""

    what: str
    held: bool
    found: str  # what was seen instead, or in addition


class Row(NamedTuple):
    """What was measured of one kind of call."""

    what: str
    calls: int
    per_second: float
    p50_us: int
    p99_us: int


class Tally:
    """Adds up what the clients report."""

    def __init__(self) -> None:
        self._samples: dict[str, list[int]] = {}
        self._latest: dict[int, dict[str, Any]] = {}  # client -> its last report

    def add(self, report: dict[str, Any]) -> None:
        """Take a client's report: its samples are new ones, its numbers are totals."""
        for what, samples in report["samples"].items():
            self._samples.setdefault(what, []).extend(samples)
        self._latest[report["client"]] = report

    def of(self, client: int) -> dict[str, Any]:
        """Return the last report of a client; empty if there was none."""
        return self._latest.get(client, {})

    @property
    def clients(self) -> int:
        """How many clients have reported?"""
        return len(self._latest)

    @property
    def calls(self) -> int:
        """How many calls have come back?"""
        return sum(map(len, self._samples.values()))

    @property
    def bytes(self) -> int:
        """How many bytes of payload were carried, both directions added?"""
        return self.total("bytes")

    def total(self, name: str) -> int:
        """Return the sum of one number over all clients."""
        return sum(report[name] for report in self._latest.values())

    @property
    def errors(self) -> list[str]:
        """Everything that a client found wrong."""
        return [error for report in self._latest.values() for error in report["errors"]]

    def rows(self, seconds: float) -> list[Row]:
        """Return the table, small payloads first, then what has no size."""
        sizes = sorted((w for w in self._samples if w not in _NAMED_ROWS), key=int)
        named = [w for w in _NAMED_ROWS if w in self._samples]
        return [self._row(what, seconds) for what in sizes + named]

    def _row(self, what: str, seconds: float) -> Row:
        samples = sorted(self._samples[what])
        name = what if what in _NAMED_ROWS else size_text(int(what))
        last = len(samples) - 1
        return Row(
            name,
            len(samples),
            len(samples) / seconds,
            samples[last // 2],
            samples[last * 99 // 100],
        )


def size_text(size: int) -> str:
    """Return a size in bytes as people write it."""
    if size >= _KIB * _KIB:
        return f"{size / _KIB / _KIB:.1f} MiB"
    return f"{size // _KIB} KiB" if size >= _KIB else f"{size} B"


class Progress:
    """The line that moves: rewritten in place on a terminal, one after the other elsewhere."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._in_place = stream.isatty()
        self._width = 0

    def show(self, text: str) -> None:
        """Show the state of things."""
        if self._in_place:
            self._stream.write(f"\r{text:<{self._width}}")
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._width:
            self._stream.write("\n")
            self._width = 0
        self._stream.write(text + "\n")
        self._stream.flush()


def progress_text(second: int, seconds: int, tally: Tally, calls: int, size: int) -> str:
    """Return the line of one second, in which ``calls`` came back and ``size`` bytes travelled."""
    return (
        f"{second:3d}/{seconds} s  {calls:6,d} calls/s  {size_text(size):>9}/s  "
        f"{tally.calls:8,d} calls  {tally.total('deaths')} deaths told  "
        f"{tally.total('refused')} refused  {len(tally.errors)} errors"
    )


def table_text(rows: list[Row]) -> str:
    """Return the table of latencies."""
    lines = [f"{'payload':>9} {'calls':>9} {'calls/s':>9} {'p50':>10} {'p99':>10}"]
    lines += [
        f"{r.what:>9} {r.calls:>9,d} {r.per_second:>9,.0f} {_time(r.p50_us):>10} "
        f"{_time(r.p99_us):>10}"
        for r in rows
    ]
    return "\n".join(lines)


def checks_text(checks: list[Check]) -> str:
    """Return what was proved, and what was not."""
    return "\n".join(
        f"{'  ok  ' if c.held else 'FAILED'}  {c.what}{': ' + c.found if c.found else ''}"
        for c in checks
    )


def _time(microseconds: int) -> str:
    return f"{microseconds / 1000:.2f} ms" if microseconds >= 1000 else f"{microseconds} µs"
