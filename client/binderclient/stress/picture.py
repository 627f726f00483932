# SPDX-License-Identifier: Apache-2.0
"""The latencies as a picture (SVG): percentiles to the right, the rarer the farther. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binderclient.stress.latency import Latency

_WIDTH, _HEIGHT = 860, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 20, 50, 50
_COLORS: Final = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#000000")
_LEVELS: Final = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999)


def draw(title: str, latencies: Mapping[str, Latency]) -> str:
    """Return the picture, one curve for each kind of call that there was."""
    shown = {name: each for name, each in latencies.items() if each.calls}
    values = [us for each in shown.values() for _, us in each.curve if us > 0] or [1.0, 10.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def x(percentile: float) -> float:
        farthest = _distance(_LEVELS[-1])
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(_distance(percentile) / farthest, 1.0)

    def y(microseconds: float) -> float:
        share = (math.log10(max(microseconds, 10.0**low)) - low) / (high - low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for level in _LEVELS:
        parts.append(_line(x(level), y(10.0**low), x(level), y(10.0**high)))
        parts.append(f'<text x="{x(level):.1f}" y="{_HEIGHT - 30}">{level:g} %</text>')
    for exponent in range(low, high + 1):
        height = y(10.0**exponent)
        parts.append(_line(_LEFT, height, _WIDTH - _RIGHT, height))
        parts.append(f'<text x="8" y="{height + 4:.1f}">{time_text(10.0**exponent)}</text>')
    for number, (name, each) in enumerate(shown.items()):
        color = _COLORS[number % len(_COLORS)]
        points = " ".join(f"{x(percentile):.1f},{y(us):.1f}" for percentile, us in each.curve)
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{points}"/>')
        where = f'x="{_LEFT + 110 * number}" y="40"'
        parts.append(f'<text {where} fill="{color}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _distance(percentile: float) -> float:
    """Return how far to the right: 1 more for each halving of what is left to 100 %."""
    return -math.log2(max(1 - percentile / 100, 1e-9))


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def time_text(microseconds: float) -> str:
    """Return a time as people write it."""
    if microseconds >= 1_000_000:
        return f"{microseconds / 1_000_000:.3g} s"
    return f"{microseconds / 1000:.3g} ms" if microseconds >= 1000 else f"{microseconds:.3g} µs"
