# SPDX-License-Identifier: Apache-2.0
"""What CI makes of tests that fail, and of those that fail sometimes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("again.py")
TEST = """
from pathlib import Path

import pytest

COUNT = Path(__file__).with_name("count")


@pytest.mark.parametrize("number", range({tests}))
def test_it(number):
    COUNT.write_text(COUNT.read_text() + "x" if COUNT.exists() else "x")
    assert len(COUNT.read_text()) not in {fails}


def test_another():
    pass
"""


@pytest.mark.parametrize(
    ("ci", "tests", "fails", "runs", "status"),
    [
        ("true", 1, (), 1, 0),
        ("true", 1, (1,), 4, 0),
        ("true", 1, (1, 4), 4, 1),
        ("true", 1, (1, 2), 2, 1),
        ("true", 4, (1, 2, 3, 4), 4, 1),
        ("", 1, (1,), 1, 1),
    ],
    ids=["none", "once", "the last time", "twice", "many", "not in CI"],
)
def test_who_fails(
    tmp_path: Path, ci: str, tests: int, fails: tuple[int, ...], runs: int, status: int
) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(TEST.format(tests=tests, fails=fails))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    outcome = subprocess.run(
        [sys.executable, SCRIPT, "test_some.py"],
        cwd=tmp_path,
        env={**os.environ, "CI": ci},
        check=False,
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == status, outcome.stdout
    assert len((tmp_path / "count").read_text()) == runs
    wavered = [line for line in outcome.stdout.splitlines() if "WAVERED" in line]
    assert ["test_it[0]" in line for line in wavered] == [True] * (fails == (1,) and ci == "true")
