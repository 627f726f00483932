# SPDX-License-Identifier: Apache-2.0
"""The benchmark itself, run very briefly: it must compile, report, and leave nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
needs_mount = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK),
    reason="needs root and /dev/fuse",
)


def bench(
    *arguments: str, program: str = "run.py", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One short round; a minute is far more than it needs."""
    command = [sys.executable, str(HERE / program), "--rounds", "1", "--seconds", "0.01"]
    return subprocess.run(
        [*command, *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_compiler
@pytest.mark.parametrize("source", ["binder_echo.c", "fuse_floor.c", "socket_echo.c"])
def test_sources_compile_without_a_warning(source: str) -> None:
    command = ["cc", "-fsyntax-only", "-O2", "-Wall", "-Wextra", "-Werror", str(HERE / source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_compiler
def test_json_has_one_sample_per_size_and_core_setting() -> None:
    done = bench("--only", "socket", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    measured = {(sample["size"], sample["pinned"]) for sample in report["samples"]}
    sizes = (16, 4096, 65536, 524288)
    assert measured == {(size, pinned) for size in sizes for pinned in (True, False)}
    assert all(0 < s["p50_us"] <= s["p99_us"] for s in report["samples"])
    assert {target["verdict"] for target in report["targets"]} == {"not measured"}


@needs_compiler
def test_the_table_has_a_dash_for_what_was_not_measured() -> None:
    done = bench("--only", "socket")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| 16 B | one |")]
    assert len(rows) == 1
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert [cells[column] for column in (2, 3, 5, 6, 7, 8, 9, 10)] == ["–"] * 8
    assert float(cells[4]) > 0


@needs_compiler
@needs_mount
def test_the_floor_leaves_no_mount() -> None:
    before = Path("/proc/mounts").read_text()
    done = bench("--only", "floor", "--json")
    assert done.returncode == 0, done.stderr
    assert [s["system"] for s in json.loads(done.stdout)["samples"]] == ["floor", "floor"]
    assert Path("/proc/mounts").read_text() == before


@pytest.mark.parametrize("program", ["run.py", "python.py"])
def test_unknown_systems_are_refused_by_name(program: str) -> None:
    done = bench("--only", "telepathy", program=program)
    assert done.returncode == 2
    assert "telepathy" in done.stderr


@needs_mount
def test_every_flavour_of_the_client_is_measured(tmp_path: Path) -> None:
    flavours = ["blocking", "interface", "pool", "trio", "asyncio"]
    place = {"TMPDIR": str(tmp_path)}
    done = bench("--only", ",".join(flavours), "--json", program="python.py", environment=place)
    assert done.returncode == 0, done.stderr
    samples = json.loads(done.stdout)["samples"]
    measured = [(sample["system"], sample["pinned"]) for sample in samples]
    assert measured == [(name, pinned) for pinned in (True, False) for name in flavours]
    assert all(0 < each["p50_us"] <= each["p99_us"] for each in samples)
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert list(tmp_path.iterdir()) == []


def test_without_an_index_the_libraries_for_dbus_are_named(tmp_path: Path) -> None:
    environment = {"PIP_NO_INDEX": "1", "BINDERD_BENCH_LIBRARIES": str(tmp_path)}
    done = bench("--only", "jeepney", program="python.py", environment=environment)
    assert done.returncode == 1
    assert "jeepney" in done.stderr
    assert "without them: --only blocking," in done.stderr
