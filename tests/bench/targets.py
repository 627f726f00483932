# SPDX-License-Identifier: Apache-2.0
"""The figures to reach, each a ratio of two medians of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.systems import BINDER, DBUS, LANE, PRIVATE, SOCKET

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.results import Results

THOUSAND: Final = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio, what it is to be, and how it comes out of results.

    Attributes:
        what: for people.
        wanted: at most so much.
        ratio: None where something was not measured.
        at_least: so much or more is wanted instead.
    """

    what: str
    wanted: float
    ratio: Callable[[Results], float | None]
    at_least: bool = False

    def is_met(self, reached: float) -> bool:
        """Whether that is good enough, to the two digits that are shown."""
        shown = round(reached, 2)
        return shown >= self.wanted if self.at_least else shown <= self.wanted

    def bound(self) -> str:
        """What is wanted, for people."""
        return f"{'≥' if self.at_least else '≤'} {self.wanted:g}"


def cost(
    system: str, other: str, size: int, *, pinned: bool = True
) -> Callable[[Results], float | None]:
    """A round trip's median relative to another system's."""
    return lambda results: results.ratio(other, size, pinned=pinned, system=system)


def beside_a_thousand(results: Results) -> float | None:
    """A call beside idle processes relative to one without; fewer prove nothing."""
    crowd = results.crowd(BINDER)
    return results.crowd_ratio(BINDER) if crowd and crowd.processes >= THOUSAND else None


TARGETS: Final = (
    Target("16 B, one core: binderd / dbus-daemon", 1.0, cost(BINDER, DBUS, 16)),
    Target("16 B, any core: binderd / dbus-daemon", 0.9, cost(BINDER, DBUS, 16, pinned=False)),
    Target("4 KiB, one core: binderd / dbus-daemon", 0.85, cost(BINDER, DBUS, 4096)),
    Target("512 KiB, one core: binderd / socket", 1.15, cost(BINDER, SOCKET, 524288)),
    Target(
        "calls/s of 8 clients, 2 servers: binderd / dbus-daemon",
        0.9,
        lambda results: results.throughput_ratio(BINDER, DBUS, pinned=False),
        at_least=True,
    ),
    Target(
        "calls/s of 8 clients, 2 servers: fast lane / dbus-daemon",
        0.9,
        lambda results: results.throughput_ratio(LANE, DBUS, pinned=False),
        at_least=True,
    ),
    Target("16 B, one core: fast lane / dbus-daemon", 0.6, cost(LANE, DBUS, 16)),
    Target(
        "16 B, one core: beside 1,000 idle processes / without",
        1.05,
        beside_a_thousand,
    ),
    Target("16 B, one core: private pages / binderd", 1.1, cost(PRIVATE, BINDER, 16)),
    Target("512 KiB, one core: private pages / binderd", 2.5, cost(PRIVATE, BINDER, 524288)),
    Target("512 KiB, one core: private pages / dbus-daemon", 0.35, cost(PRIVATE, DBUS, 524288)),
)


def judge(results: Results) -> list[dict[str, str | float | None]]:
    """Each target with the ratio reached, and met, missed or not measured."""
    verdicts: list[dict[str, str | float | None]] = []
    for target in TARGETS:
        reached = target.ratio(results)
        verdict = "not measured"
        if reached is not None:
            verdict = "met" if target.is_met(reached) else "missed"
        verdicts.append(
            {
                "target": target.what,
                "wanted": target.bound(),
                "reached": reached,
                "verdict": verdict,
            }
        )
    return verdicts
