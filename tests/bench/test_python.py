# SPDX-License-Identifier: Apache-2.0
"""The bench of Python programs, run very briefly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.python import OURS

PROGRAM = Path(__file__).resolve().parent / "python.py"

needs_mount = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK),
    reason="needs root and /dev/fuse",
)


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One short round; a minute is far more than it needs."""
    command = [sys.executable, str(PROGRAM), "--rounds", "1", "--seconds", "0.01", *arguments]
    paths = [str(PROGRAM.parents[1]), *os.environ.get("PYTHONPATH", "").split(":")]
    environment["PYTHONPATH"] = ":".join(path for path in paths if path)
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_unknown_systems_are_refused_by_name() -> None:
    done = bench("--only", "telepathy")
    assert done.returncode == 2
    assert "telepathy" in done.stderr


@needs_mount
def test_every_flavour_of_the_client_is_measured(tmp_path: Path) -> None:
    done = bench("--only", ",".join(OURS), "--json", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    samples = json.loads(done.stdout)["samples"]
    measured = [(sample["system"], sample["pinned"]) for sample in samples]
    assert measured == [(name, pinned) for pinned in (True, False) for name in OURS]
    assert all(0 < each["p50_us"] <= each["p99_us"] for each in samples)
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert list(tmp_path.iterdir()) == []


@needs_mount
def test_the_table_has_a_dash_for_what_was_not_measured() -> None:
    done = bench("--only", "blocking")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| blocking |")]
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert float(cells[1]) > 0
    assert cells[3] == "–"


def test_without_an_index_the_libraries_for_dbus_are_named(tmp_path: Path) -> None:
    done = bench("--only", "jeepney", PIP_NO_INDEX="1", BINDERD_BENCH_LIBRARIES=str(tmp_path))
    assert done.returncode == 1
    assert "jeepney" in done.stderr
    assert "without them: --only blocking," in done.stderr
