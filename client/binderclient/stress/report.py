# SPDX-License-Identifier: Apache-2.0
"""The result of a stress run, as text and as JSON. Pure: it is given everything."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from binderclient.demo.report import Check, checks_text, size_text
from binderclient.stress.picture import time_text

if TYPE_CHECKING:
    from binderclient.stress.latency import Latency
    from binderclient.stress.options import Options

KINDS: Final = ("call", "one-way", "nested", "file")
ALL: Final = "all"


@dataclass
class Result:
    """The result of a test."""

    options: Options
    device: str = ""
    seconds: float = 0.0  # from the first call to the last
    latencies: dict[str, Latency] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)  # of the workers' counts
    accidents: dict[str, int] = field(default_factory=dict)
    daemon: dict[str, float] | None = None  # None: there is none, or none to be seen
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what else is worth saying

    def check(self, what: str, held: bool, found: str = "") -> None:
        """Note whether a check held.

        Args:
            what: the check, as a sentence.
            held: did it?
            found: what was seen instead, or in addition.
        """
        self.checks.append(Check(what, held, found))

    @property
    def passed(self) -> bool:
        """Did all of it hold?"""
        return all(check.held for check in self.checks)

    @property
    def calls(self) -> int:
        """How many calls were made?"""
        return sum(self.totals.get(name, 0) for name in ("calls", "oneways", "nesteds", "files"))

    @property
    def refused(self) -> int:
        """How many were refused for lack of room?"""
        return self.totals.get("no_room", 0) + self.totals.get("no_room_for_reply", 0)


def as_json(result: Result) -> dict[str, Any]:
    """Return the result as what becomes JSON; times in microseconds, sizes in bytes."""
    options = result.options
    return {
        "device": result.device,
        "options": {name: getattr(options, name) for name in options.__dataclass_fields__},
        "seconds": round(result.seconds, 3),
        "calls": result.calls,
        "calls_per_second": round(_rate(result.calls, result), 1),
        "latencies": {name: each._asdict() for name, each in result.latencies.items()},
        "totals": result.totals,
        "accidents": result.accidents,
        "daemon": result.daemon,
        "checks": [check._asdict() for check in result.checks],
        "notes": result.notes,
        "passed": result.passed,
    }


def as_text(result: Result) -> str:
    """Return the result as a table, with what is remarkable below it."""
    totals = result.totals
    lines = [_table(result), ""]
    lines.append(
        f"{result.calls:,} calls in {result.seconds:.1f} s ({_rate(result.calls, result):,.0f}/s), "
        f"{size_text(totals.get('bytes', 0))} of payload"
    )
    lines.append(
        f"refused for lack of room, and sent again: {result.refused:,}; frozen: "
        f"{totals.get('frozen', 0):,}; suspected of spam: {totals.get('spam', 0):,}; "
        f"found dead: {totals.get('dead', 0):,}"
    )
    accidents = ", ".join(f"{count:,} {what}" for what, count in result.accidents.items())
    lines.append(f"accidents: {accidents}; deaths told: {totals.get('told', 0):,}")
    lines.append(_daemon_text(result))
    lines += result.notes
    return "\n".join([*lines, "", checks_text(result.checks)])


def _table(result: Result) -> str:
    names = list(next(iter(result.latencies.values())).percentiles) if result.latencies else []
    head = ["", "calls", "calls/s", *names, "max"]
    rows = [
        [
            name,
            f"{each.calls:,}",
            f"{_rate(each.calls, result):,.0f}",
            *map(time_text, each.percentiles.values()),
            time_text(each.max),
        ]
        for name, each in result.latencies.items()
        if each.calls
    ]
    return "\n".join(
        f"{row[0]:>8} {row[1]:>12} " + " ".join(f"{cell:>9}" for cell in row[2:])
        for row in [head, *rows]
    )


def _daemon_text(result: Result) -> str:
    daemon = result.daemon
    if daemon is None:
        return "no daemon: this is the kernel's driver, or its daemon cannot be seen from here"
    before, most, after = (
        size_text(int(daemon[f"memory_{when}"])) for when in ("start", "max", "end")
    )
    return (
        f"daemon (process {daemon['pid']:.0f}): {daemon['cpu_percent']:.0f} % of a processor, "
        f"{daemon['cpu_us_per_call']:.1f} µs a call; memory {before} before, {most} at "
        f"most, {after} after"
    )


def progress_text(options: Options, seconds: float, calls: int, rate: float, extra: str) -> str:
    """Return the line of one second."""
    until = "" if math.isinf(options.seconds) else f"/{options.seconds:.0f}"
    limit = f"/{options.transactions:,d}" if options.transactions else ""
    return f"{seconds:4.0f}{until} s  {rate:9,.0f} calls/s  {calls:12,d}{limit} calls  {extra}"


def _rate(count: int, result: Result) -> float:
    return count / result.seconds if result.seconds else 0.0
