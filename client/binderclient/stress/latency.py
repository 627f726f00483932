# SPDX-License-Identifier: Apache-2.0
"""Latencies: what the workers counted, read with HdrHistogram's library. Knows no workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from binderclient.stress.errors import StressError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binderclient.stress.board import Layout

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 99.99)
_TICKS: Final = 5  # points of a curve for each halving of what is left to 100 %
_MISSING: Final = """\
the Python package hdrhistogram is missing, which reads the latencies: pip install 'binderd[stress]'
or pip install hdrhistogram; in a checkout "make setup"."""


class Latency(NamedTuple):
    """How long one kind of call took, in microseconds."""

    calls: int
    percentiles: dict[str, float]
    mean: float
    max: float
    curve: list[tuple[float, float]]  # percentile, microseconds


def check_library() -> None:
    """Raise StressError if the library is missing."""
    try:
        import hdrh.histogram  # noqa: F401
    except ImportError:
        raise StressError(_MISSING) from None


def read_counts(layout: Layout, counts: Sequence[Sequence[int]]) -> Latency:
    """Return the latencies of histograms that are to be added up; counts in HdrHistogram's order.

    Raises:
        StressError: see ``check_library``.
    """
    check_library()
    from hdrh.histogram import HdrHistogram

    histogram: Any = HdrHistogram(layout.lowest, layout.highest, layout.digits)
    for each in counts:
        for index, count in enumerate(each):
            if count:
                histogram.record_value(histogram.get_value_from_index(index), count)
    if not histogram.total_count:
        return Latency(0, dict.fromkeys(map(_name, PERCENTILES), 0.0), 0.0, 0.0, [])

    def at(percentile: float) -> float:
        return float(histogram.get_value_at_percentile(percentile)) / 1000

    curve = [
        (float(step.percentile_level_iterated_to), float(step.value_iterated_to) / 1000)
        for step in histogram.get_percentile_iterator(_TICKS)
    ]
    return Latency(
        histogram.total_count,
        {_name(percentile): at(percentile) for percentile in PERCENTILES},
        float(histogram.get_mean_value()) / 1000,
        float(histogram.get_max_value()) / 1000,
        curve,
    )


def _name(percentile: float) -> str:
    return f"p{percentile:g}"
