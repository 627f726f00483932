# SPDX-License-Identifier: Apache-2.0
"""Notes which scenario passed on which backend, for ``parity.py``.

A pytest plugin: after each session, the outcomes of the scenarios that were played are merged into
build/parity-results.json, or the file that BINDERD_PARITY_RESULTS names. Several sessions, on
several machines, may so add up.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
DEFAULT: Final = ROOT / "build" / "parity-results.json"

PASSED: Final = "passed"
FAILED: Final = "failed"

# backend -> scenario -> PASSED, FAILED, or why it was not played as elsewhere
Results = dict[str, dict[str, str]]


def results_file() -> Path:
    """Return where the results of sessions add up."""
    return Path(os.environ.get("BINDERD_PARITY_RESULTS") or DEFAULT)


def read(path: Path) -> Results:
    """Return the results in a file; none if there is no such file."""
    try:
        results: Results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return results


def write(path: Path, results: Results) -> None:
    """Write results in a form that compares well, line by line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def scenario_of(nodeid: str) -> str:
    """Return "file:test" of a pytest node, whatever its parameters."""
    file, _, test = nodeid.partition("::")
    return f"{Path(file).stem}:{test.partition('[')[0]}"


class Recorder:
    """The plugin."""

    def __init__(self) -> None:
        self._failed: set[str] = set()  # nodes
        self._results: Results = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        if not report.passed:
            self._failed.add(report.nodeid)
        if report.when != "teardown" or "backend" not in properties:
            return
        played = self._results.setdefault(str(properties["backend"]), {})
        scenario = scenario_of(report.nodeid)
        if report.nodeid in self._failed:
            played[scenario] = FAILED
        elif played.get(scenario) != FAILED:
            # Of a scenario with parameters, one that was excused is worth mentioning.
            excuse = str(properties.get("excuse", ""))
            earlier = played.get(scenario, PASSED)
            played[scenario] = excuse or earlier

    def pytest_sessionfinish(self) -> None:
        if not self._results:
            return
        path = results_file()
        merged = read(path)
        for backend, played in self._results.items():
            merged[backend] = {**merged.get(backend, {}), **played}
        with suppress(OSError):  # a read-only checkout
            write(path, merged)
