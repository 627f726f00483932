# SPDX-License-Identifier: Apache-2.0
"""The benchmark itself, run very briefly: it must compile, report, and leave nothing behind."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from bench import publish
from bench.errors import BenchError, Missing
from bench.picture import draw
from bench.programs import broker
from bench.report import report
from bench.results import ROLES, Crowd, Load, Results, Sample, read
from bench.systems import BINDER, BROKER, DBUS, SIZES, SOCKET, SYSTEMS
from bench.targets import judge

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).resolve().parent
MACHINE = {"daemon": "binderd 1 (compiled) <&>", "load before the run": "0.10"}

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
needs_mount = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK),
    reason="needs root and /dev/fuse",
)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One short round; half a minute is far more than it needs."""
    command = [sys.executable, str(HERE / "run.py"), "--rounds", "1", "--seconds", "0.01"]
    paths = [str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(":")]
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": ":".join(path for path in paths if path)},
    )


def measured(*arguments: str) -> dict[str, Any]:
    """What it prints as JSON."""
    done = bench(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def spent(us: float) -> dict[str, float]:
    return dict.fromkeys(ROLES, us)


def made_up(factor: float = 1.0, systems: Iterable[str] = (BINDER, DBUS, SOCKET)) -> Results:
    """Results in which the n-th system needs n times as long as the first, and a size ten more."""
    found = Results(dict(MACHINE))
    for place, system in enumerate(systems, 1):
        for pinned in (True, False):
            for size in SIZES:
                us = factor * place * (10 + SIZES.index(size) * 10)
                found.samples.append(
                    Sample(system, size, pinned, 5, us, 2 * us, us, 1e6 / us, spent(us / 3))
                )
            rate = 10_000 / place
            found.loads.append(Load(system, 8, 2, pinned, rate, 400.0, 900.0, spent(20.0)))
        found.crowds.append(Crowd(system, 1000, 8.5, 50.0, 51.0))
    return found


@needs_compiler
@pytest.mark.parametrize("source", ["binder_echo.c", "fuse_floor.c", "socket_echo.c"])
def test_sources_compile_without_a_warning(source: str) -> None:
    command = ["cc", "-fsyntax-only", "-O2", "-Wall", "-Wextra", "-Werror", str(HERE / source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_compiler
def test_json_has_one_sample_per_size_and_core_setting() -> None:
    found = measured("--only", "socket")
    assert {(one["size"], one["pinned"]) for one in found["samples"]} == {
        (size, pinned) for size in SIZES for pinned in (True, False)
    }
    for one in found["samples"]:
        assert 0 < one["p50_us"] <= one["p99_us"]
        assert one["cpu_us"]["client"] > 0
        assert one["cpu_us"]["server"] > 0
    assert {target["verdict"] for target in found["targets"]} == {"not measured"}
    assert "(" in found["machine"]["daemon"]  # compiled or not


@needs_compiler
@needs_mount
def test_the_floor_leaves_no_mount() -> None:
    found = measured("--only", "floor")
    assert [one["system"] for one in found["samples"]] == ["floor", "floor"]
    assert "binderd-bench-" not in Path("/proc/mounts").read_text()


@needs_compiler
@needs_mount
def test_our_daemon_in_every_way() -> None:
    found = measured("--only", "binder,private", "--processes", "3")
    assert len(found["samples"]) == 2 * 2 * len(SIZES)
    assert all(min(one["cpu_us"].values()) > 0 for one in found["samples"])
    assert [(one["system"], one["clients"], one["servers"]) for one in found["loads"]] == [
        (BINDER, 8, 2),
        (BINDER, 8, 2),
    ]
    assert all(one["calls_per_s"] > 0 for one in found["loads"])
    assert [(one["system"], one["processes"]) for one in found["crowds"]] == [(BINDER, 3)]
    assert "binderd-bench-" not in Path("/proc/mounts").read_text()


@needs_compiler
@needs_mount
@pytest.mark.skipif(platform.machine() != "x86_64", reason="lanes are offered on x86-64")
def test_our_daemon_through_lanes() -> None:
    found = measured("--only", "lane", "--processes", "3")
    assert len(found["samples"]) == 2 * len(SIZES)
    assert all(one["calls_per_s"] > 0 for one in found["loads"])


@needs_compiler
@pytest.mark.parametrize("system", [DBUS, BROKER])
def test_buses(system: str) -> None:
    if system == BROKER:
        try:
            broker()
        except Missing as error:
            pytest.skip(str(error))
    found = measured("--only", system, "--parts", "load,idle", "--processes", "3")
    assert [one["system"] for one in found["loads"]] == [system, system]
    assert all(min(one["cpu_us"].values()) > 0 for one in found["loads"])
    assert [one["system"] for one in found["crowds"]] == [system]


def test_unknown_names_are_refused() -> None:
    for option in ("--only", "--parts"):
        done = bench(option, "telepathy")
        assert done.returncode == 2
        assert "telepathy" in done.stderr


def test_tables_have_a_dash_for_what_was_not_measured() -> None:
    lines = report(made_up(systems=[SOCKET])).splitlines()
    row = next(line for line in lines if line.startswith("| 16 B | one |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    place = 2 + [system.name for system in SYSTEMS].index(SOCKET)
    assert cells.pop(place) == "10.0 (20)"
    assert set(cells[2:]) == {"–"}


def test_targets_say_what_is_wanted_and_reached() -> None:
    found = {verdict["target"]: verdict for verdict in judge(made_up())}
    met = found["16 B, one core: binderd / dbus-daemon"]
    assert (met["wanted"], met["reached"], met["verdict"]) == ("≤ 1", 0.5, "met")
    more = found["calls/s of 8 clients, 2 servers: binderd / dbus-daemon"]
    assert (more["wanted"], more["reached"], more["verdict"]) == ("≥ 0.9", 2.0, "met")
    idle = found["16 B, one core: beside 1,000 idle processes / without"]
    assert (idle["reached"], idle["verdict"]) == (1.02, "met")
    for lane in ("16 B, one core", "calls/s of 8 clients, 2 servers"):
        assert found[f"{lane}: fast lane / dbus-daemon"]["verdict"] == "not measured"


def test_runs_are_put_together(tmp_path: Path) -> None:
    for number, factor in enumerate((1.0, 3.0, 5.0)):
        text = json.dumps(made_up(factor).as_json())
        (tmp_path / f"{number}.json").write_text(text, encoding="utf-8")
    files = [str(path) for path in sorted(tmp_path.glob("*.json"))]
    picture = tmp_path / "picture.svg"
    done = bench("--from", *files, "--svg", str(picture))
    assert done.returncode == 0, done.stderr
    assert "| 16 B | one | 30.0 (60) |" in done.stdout
    assert "| binderd | one | 10,000 | 400.0 (900) | 60.0 | 20.0 | 20.0 | 20.0 |" in done.stdout
    assert "| binderd | 1,000 | 8.5 | 50.0 | 51.0 | 1.02 |" in done.stdout
    assert picture.exists()


def test_runs_on_different_machines_are_not_put_together(tmp_path: Path) -> None:
    found, other = made_up(), made_up()
    other.machine["daemon"] = "binderd 1 (interpreted)"
    with pytest.raises(BenchError, match="interpreted"):
        found.add(other)
    broken = tmp_path / "broken.json"
    broken.write_text("[]", encoding="utf-8")
    with pytest.raises(BenchError, match="broken"):
        read(broken)


def test_the_picture_is_svg_for_light_and_dark() -> None:
    drawn = draw(made_up())
    root = ElementTree.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert "prefers-color-scheme: dark" in drawn
    bars = [one for one in root.iter(f"{space}rect") if one.get("class") != "ground"]
    assert len(bars) == 2 * 3 * (len(SIZES) + 1)
    width = float(root.get("width", "0"))
    ends = [float(one.get("x", "0")) + float(one.get("width", "0")) for one in bars]
    assert all(0 < end < width for end in ends)


def test_what_is_published_is_of_one_run() -> None:
    """When tables or picture have changed: ARGS="--from docs/speed.json --publish" makes them."""
    found = read(publish.DATA)
    text = publish.README.read_text(encoding="utf-8")
    assert f"{publish.BEGIN}{publish.tables(found)}{publish.END}" in text
    assert publish.PICTURE.read_text(encoding="utf-8") == draw(found)
    assert publish.data(found) == publish.DATA.read_text(encoding="utf-8")
