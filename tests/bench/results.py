# SPDX-License-Identifier: Apache-2.0
"""What was measured: every sample of one run or several, and the figures that follow from them."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.errors import BenchError
from bench.systems import BINDER, FLOOR, FLOOR_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ROLES: Final = ("client", "daemon", "server")  # of a process that takes part
MOMENTARY: Final = "load before the run"  # of a machine, and different in each run


@dataclass(frozen=True, slots=True)
class Sample:
    """What one client reported about one system in one round; cpu_us is for a call, by role."""

    system: str
    size: int
    pinned: bool
    calls: int
    p50_us: float
    p99_us: float
    mean_us: float
    calls_per_s: float
    cpu_us: dict[str, float]


@dataclass(frozen=True, slots=True)
class Load:
    """Many clients at once in one round; the percentiles are medians of the clients' own."""

    system: str
    clients: int
    servers: int
    pinned: bool
    calls_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: dict[str, float]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Idle processes in one round: what each takes of the daemon, and a call without and beside."""

    system: str
    processes: int
    kib_per_process: float
    alone_us: float
    beside_us: float


@dataclass
class Results:
    """All samples, asked for by cell of a table; the median over the rounds, None without any."""

    machine: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    crowds: list[Crowd] = field(default_factory=list)

    def of(self, system: str, size: int, *, pinned: bool) -> list[Sample]:
        """The samples of a cell."""
        wanted = (system, FLOOR_SIZE if system == FLOOR else size, pinned)
        return [one for one in self.samples if (one.system, one.size, one.pinned) == wanted]

    def p50_us(self, system: str, size: int, *, pinned: bool) -> float | None:
        """A round trip."""
        return _median(one.p50_us for one in self.of(system, size, pinned=pinned))

    def p99_us(self, system: str, size: int, *, pinned: bool) -> float | None:
        """What one round trip of a hundred takes at least."""
        return _median(one.p99_us for one in self.of(system, size, pinned=pinned))

    def cpu_us(self, system: str, size: int, *, pinned: bool) -> float | None:
        """Processor time of all processes that take part, for a round trip."""
        return _median(sum(one.cpu_us.values()) for one in self.of(system, size, pinned=pinned))

    def ratio(self, other: str, size: int, *, pinned: bool, system: str = BINDER) -> float | None:
        """How many times the cost of `other` a system costs."""
        ours = self.p50_us(system, size, pinned=pinned)
        return _quotient(ours, self.p50_us(other, size, pinned=pinned))

    def load(self, system: str, *, pinned: bool) -> Load | None:
        """Of many clients at once: each figure's median."""
        found = [one for one in self.loads if (one.system, one.pinned) == (system, pinned)]
        if not found:
            return None
        return Load(
            system,
            found[0].clients,
            found[0].servers,
            pinned,
            statistics.median(one.calls_per_s for one in found),
            statistics.median(one.p50_us for one in found),
            statistics.median(one.p99_us for one in found),
            {role: statistics.median(one.cpu_us[role] for one in found) for role in ROLES},
        )

    def throughput_ratio(self, system: str, other: str, *, pinned: bool) -> float | None:
        """How many calls go through a system while one goes through the other."""
        ours, theirs = (self.load(name, pinned=pinned) for name in (system, other))
        return ours.calls_per_s / theirs.calls_per_s if ours and theirs else None

    def crowd(self, system: str) -> Crowd | None:
        """Beside idle processes: each figure's median."""
        found = [one for one in self.crowds if one.system == system]
        if not found:
            return None
        return Crowd(
            system,
            found[0].processes,
            statistics.median(one.kib_per_process for one in found),
            statistics.median(one.alone_us for one in found),
            statistics.median(one.beside_us for one in found),
        )

    def crowd_ratio(self, system: str) -> float | None:
        """How many times as much as without them a call costs beside idle processes."""
        # In each round by itself: between rounds the machine's mood changes more than that.
        return _median(one.beside_us / one.alone_us for one in self.crowds if one.system == system)

    def clients(self) -> str:
        """How many clients called how many servers."""
        one = next(iter(self.loads), None)
        return f"{one.clients} clients, {one.servers} servers" if one else ""

    def as_json(self) -> dict[str, Any]:
        """Everything, for json.dumps."""
        return asdict(self)

    def add(self, more: Results) -> None:
        """Samples of another run on the same machine, with the same daemon.

        Raises:
            BenchError: it was another one.
        """
        for key, value in more.machine.items():
            if key != MOMENTARY and self.machine.setdefault(key, value) != value:
                raise BenchError(f"these are not of one machine: {key}: {value}")
        self.machine.setdefault(MOMENTARY, more.machine.get(MOMENTARY, ""))
        self.samples += more.samples
        self.loads += more.loads
        self.crowds += more.crowds


def read(path: Path) -> Results:
    """The results of an earlier run with --json.

    Raises:
        BenchError: it is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Results(
            {str(key): str(value) for key, value in found["machine"].items()},
            [Sample(**one) for one in found["samples"]],
            [Load(**one) for one in found["loads"]],
            [Crowd(**one) for one in found["crowds"]],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"{path} is not what --json prints: {error!r}") from None


def _median(figures: Iterable[float]) -> float | None:
    found = list(figures)
    return statistics.median(found) if found else None


def _quotient(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other is not None else None
