# SPDX-License-Identifier: Apache-2.0
"""Results as Markdown, for a terminal and for README."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.results import ROLES
from bench.systems import BINDER, DBUS, PRIVATE, SIZES, SOCKET, SYSTEMS
from bench.targets import judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.results import Results

NOTHING = "–"


def report(results: Results) -> str:
    """The machine, every table that has a figure, and the targets."""
    parts = ["\n".join(f"{key}: {value}" for key, value in results.machine.items())]
    if results.samples:
        parts += ["Round trips in µs: median, and in brackets p99", trips(results)]
        parts += ["Processor time of all that take part in a round trip, µs", processor(results)]
    if results.loads:
        parts += [f"{results.clients()} at once, 16 B", loads(results)]
    if results.crowds:
        parts += ["Beside idle processes, 16 B, one core", crowds(results)]
    parts.append(targets(results))
    return "\n\n".join(parts)


def trips(results: Results) -> str:
    """A row for each size and core setting: medians, p99 and ratios of medians."""
    compared = ((BINDER, DBUS), (BINDER, SOCKET), (PRIVATE, BINDER))
    heads = [system.title for system in SYSTEMS]
    heads += [f"{_title(one)} / {_title(other)}" for one, other in compared]
    rows = []
    for size, pinned in _settings():
        cells = [
            _with_p99(
                results.p50_us(system.name, size, pinned=pinned),
                results.p99_us(system.name, size, pinned=pinned),
            )
            for system in SYSTEMS
        ]
        for one, other in compared:
            cells.append(number(results.ratio(other, size, pinned=pinned, system=one), 2))
        rows.append([payload_name(size), core_name(pinned), *cells])
    return table(["payload", "core", *heads], rows)


def processor(results: Results) -> str:
    """The same rows: processor time of everybody, also where they work at the same time."""
    rows = []
    for size, pinned in _settings():
        spent = [results.cpu_us(system.name, size, pinned=pinned) for system in SYSTEMS]
        cells = [number(one, 1) for one in spent]
        rows.append([payload_name(size), core_name(pinned), *cells])
    return table(["payload", "core", *(system.title for system in SYSTEMS)], rows)


def loads(results: Results) -> str:
    """A row for each system and core setting: throughput, percentiles, whose processor time."""
    rows = []
    for pinned in (True, False):
        for system in SYSTEMS:
            found = results.load(system.name, pinned=pinned)
            if found is None:
                continue
            cells = [f"{found.calls_per_s:,.0f}", _with_p99(found.p50_us, found.p99_us)]
            cells.append(number(sum(found.cpu_us.values()), 1))
            cells += [number(found.cpu_us[role], 1) for role in ROLES]
            rows.append([system.title, core_name(pinned), *cells])
    heads = ["system", "core", "calls/s", "µs (p99)", "CPU µs a call", *(f"of {r}" for r in ROLES)]
    return table(heads, rows)


def crowds(results: Results) -> str:
    """A row for each system: what an idle process takes of the daemon, and costs the others."""
    rows = []
    for system in SYSTEMS:
        found = results.crowd(system.name)
        if found is not None:
            cells = [f"{found.processes:,}", number(found.kib_per_process, 1)]
            cells += [number(found.alone_us, 1), number(found.beside_us, 1)]
            rows.append([system.title, *cells, number(results.crowd_ratio(system.name), 2)])
    heads = ["system", "processes", "KiB of the daemon each", "a call without, µs", "beside, µs"]
    return table([*heads, "ratio"], rows, texts=1)


def targets(results: Results) -> str:
    """A row for each target."""
    rows = []
    for verdict in judge(results):
        reached = verdict["reached"]
        shown = number(float(reached), 2) if reached is not None else NOTHING
        rows.append(
            [f"{verdict['target']}", f"{verdict['wanted']}", shown, f"{verdict['verdict']}"]
        )
    return table(["target", "wanted", "reached", ""], rows, texts=1)


def table(heads: list[str], rows: Iterable[list[str]], texts: int = 2) -> str:
    """A Markdown table; all columns but the first `texts` are aligned to the right."""
    aligned = [":--"] * texts + ["--:"] * (len(heads) - texts)
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(aligned)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash for what was not measured."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def payload_name(size: int) -> str:
    """16 B, 4 KiB."""
    return f"{size} B" if size < 1024 else f"{size // 1024} KiB"


def core_name(pinned: bool) -> str:
    """In a table."""
    return "one" if pinned else "any"


def _settings() -> Iterator[tuple[int, bool]]:
    for pinned in (True, False):
        for size in SIZES:
            yield size, pinned


def _title(name: str) -> str:
    return next(system.title for system in SYSTEMS if system.name == name)


def _with_p99(p50_us: float | None, p99_us: float | None) -> str:
    if p50_us is None or p99_us is None:
        return NOTHING
    return f"{p50_us:.1f} ({p99_us:.0f})"
