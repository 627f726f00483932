# SPDX-License-Identifier: Apache-2.0
"""Results as a picture (SVG): a panel of bars for each payload and core setting.

It has colours for light and for dark surroundings and brings its own background, so that it can be
read wherever it is shown. The bars of a row of panels have one scale. A thin line reaches to p99,
and ends at the border of the panel where that is farther away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from bench.report import payload_name
from bench.systems import SIZES, SYSTEMS

if TYPE_CHECKING:
    from bench.results import Results

WIDTH: Final = 900
MARGIN: Final = 24
GAP: Final = 24  # between the two columns
COLUMN: Final = (WIDTH - 2 * MARGIN - GAP) // 2
LABEL: Final = 104  # of a bar, to its left
VALUE: Final = 62  # of a bar, to its right
BAR: Final = 11
STEP: Final = 17  # from bar to bar
HEAD: Final = 24  # of a panel
TOP: Final = 112  # where the first panel begins
SCALE_SPARE: Final = 1.15  # so much more than the longest bar has room

STYLE: Final = """
svg { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; }
.ground { fill: #ffffff; } text { fill: #424a53; } .strong { fill: #1f2328; font-weight: 600; }
.title { font-size: 16px; } .ours { fill: #2563c9; } .kin { fill: #86aeea; }
.other { fill: #b4bcc6; } .line { stroke: #57606a; }
@media (prefers-color-scheme: dark) {
.ground { fill: #0d1117; } text { fill: #aab4c0; } .strong { fill: #f0f6fc; }
.ours { fill: #5b9bff; } .kin { fill: #2f5fa8; } .other { fill: #59636e; }
.line { stroke: #c9d1d9; } }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: whose it is, how long, and how far its line goes."""

    title: str
    kind: str
    value: float
    line: float
    text: str


def draw(results: Results) -> str:
    """The whole picture."""
    rows = [(payload_name(size), _trips(results, size)) for size in SIZES]
    parts: list[str] = []
    y = TOP
    for name, columns in rows:
        y = _row(parts, y, f"{name}, µs", columns)
    if results.loads:
        y = _row(
            parts, y + 10, f"{results.clients()}, 16 B: calls/s, more is better", _loads(results)
        )
    height = y + MARGIN - 6
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{_title()}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>',
            *_head(results),
            *parts,
            "</svg>\n",
        ]
    )


def _title() -> str:
    return "A call and its reply: time for a round trip"


def _head(results: Results) -> list[str]:
    facts = [results.machine.get(key, "") for key in ("daemon", "kernel", "cpu")]
    return [
        _text(MARGIN, 34, _title(), "strong title"),
        _text(MARGIN, 54, "Medians in µs, less is better; the thin line goes on to p99."),
        _text(MARGIN, 72, ", ".join(fact for fact in facts if fact)),
        _text(MARGIN, 98, "everybody on one core", "strong"),
        _text(MARGIN + COLUMN + GAP, 98, "where the scheduler puts them", "strong"),
    ]


def _trips(results: Results, size: int) -> tuple[list[Bar], list[Bar]]:
    """Both columns' bars: one core, any core."""
    columns: list[list[Bar]] = []
    for pinned in (True, False):
        bars = []
        for system in SYSTEMS:
            p50_us = results.p50_us(system.name, size, pinned=pinned)
            p99_us = results.p99_us(system.name, size, pinned=pinned)
            if p50_us is not None and p99_us is not None:
                kind = _kind(system.name)
                bars.append(Bar(system.title, kind, p50_us, p99_us, f"{p50_us:.1f}"))
        columns.append(bars)
    return columns[0], columns[1]


def _loads(results: Results) -> tuple[list[Bar], list[Bar]]:
    columns: list[list[Bar]] = []
    for pinned in (True, False):
        bars = []
        for system in SYSTEMS:
            found = results.load(system.name, pinned=pinned)
            if found is not None:
                rate = found.calls_per_s
                bars.append(Bar(system.title, _kind(system.name), rate, rate, f"{rate:,.0f}"))
        columns.append(bars)
    return columns[0], columns[1]


def _kind(name: str) -> str:
    """The class of a bar's colour: what the picture is about, its relatives, the others."""
    first, *_ = SYSTEMS
    ours = {system.name for system in SYSTEMS if system.is_ours}
    return "ours" if name == first.name else "kin" if name in ours else "other"


def _row(parts: list[str], y: int, name: str, columns: tuple[list[Bar], list[Bar]]) -> int:
    """Draws two panels and returns where the next ones begin."""
    longest = max((bar.value for bars in columns for bar in bars), default=0.0)
    for number, bars in enumerate(columns):
        x = MARGIN + number * (COLUMN + GAP)
        parts.append(_text(x, y + 12, name, "strong"))
        for place, bar in enumerate(bars):
            parts += _bar(x, y + HEAD + place * STEP, bar, longest * SCALE_SPARE)
    return y + HEAD + max(len(bars) for bars in columns) * STEP + 8


def _bar(x: int, y: int, bar: Bar, full: float) -> list[str]:
    room = COLUMN - LABEL - VALUE
    begin = x + LABEL
    length = max(1.0, bar.value / full * room)
    end = min(bar.line / full, 1.0) * room
    middle = y + BAR / 2
    drawn = [
        _text(begin - 8, y + BAR - 1, bar.title, anchor="end"),
        f'<rect class="{bar.kind}" x="{begin}" y="{y}" width="{length:.1f}" height="{BAR}"/>',
    ]
    if end > length:
        drawn.append(
            f'<line class="line" x1="{begin + length:.1f}" x2="{begin + end:.1f}" '
            f'y1="{middle}" y2="{middle}"/>'
        )
    drawn.append(_text(x + COLUMN, y + BAR - 1, bar.text, "strong", anchor="end"))
    return drawn


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    attributes = f' class="{kind}"' if kind else ""
    attributes += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:g}" y="{y:g}"{attributes}>{escape(text)}</text>'
