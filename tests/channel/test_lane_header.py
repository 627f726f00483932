# SPDX-License-Identifier: Apache-2.0
"""binderd_lane.h: as C, as C++ and with sanitizers it does what the ioctl does."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from channel.helpers import SECONDS_MAX, needs_fuse, running

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE: Final = Path(__file__).parent / "lane_cases.c"
INCLUDES: Final = Path(__file__).parents[2] / "client" / "include"
COMPILERS: Final = {
    "c": ("cc", "-std=c11", "-O2", "-Wshadow", "-Wundef"),
    "sanitized": ("cc", "-std=c11", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover"),
    "c++": ("c++", "-x", "c++", "-std=c++17", "-O2"),
}

pytestmark = [
    needs_fuse,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="lanes are offered on x86-64"),
]


@pytest.fixture(scope="module", params=COMPILERS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("lanes") / "cases"
    command = [*COMPILERS[request.param], "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, f"-I{INCLUDES}", "-o", str(target), str(SOURCE)], check=True)
    return target


@pytest.fixture(scope="module")
def device(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A device with a server that echoes."""
    place = tmp_path_factory.mktemp("devices") / "mount"
    with running(place, "--transport", "fuse", "--spin", "1000") as daemon:
        command = [program, place / "binder", "serve"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "up\n"
            yield place / "binder"
            server.kill()
        daemon.end_clean(opens=0, threads=0, buffers=0)


def said(program: Path, device: Path, case: str) -> list[str]:
    command = [program, device, case]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def test_what_fits_takes_no_ioctl(program: Path, device: Path) -> None:
    assert said(program, device, "sizes") == [
        "a lane",
        *(f"{size} same 0" for size in (0, 1, 16, 4096, 15000)),
        *(f"{size} same 1" for size in (16384, 100000)),
    ]


def test_signals_end_waits_and_nothing_else(program: Path, device: Path) -> None:
    """Those of the ioctl: one that came while the thread was looking ends it, too."""
    interrupted = "-1 Interrupted system call, handled {}, left {}"
    assert said(program, device, "signals") == [
        "a lane",
        interrupted.format(1, "no"),
        interrupted.format(2, "yes"),
        interrupted.format(3, "no"),  # by the alarm: the ignored signal did not
        interrupted.format(4, "no"),  # whose handler has asked something itself
        "1",
    ]


def test_a_child_has_no_lane(program: Path, device: Path) -> None:
    assert said(program, device, "child") == ["a lane", "1", "same by a lane"]


def test_a_lane_that_has_ended(program: Path, device: Path) -> None:
    assert said(program, device, "again") == ["a lane", "same by ioctls", "0", "same by a lane"]


def test_what_is_wrong_or_unusual(program: Path, device: Path) -> None:
    wrong = "-1 Invalid argument 4"
    assert said(program, device, "unusual") == ["a lane", wrong, wrong, "0 12", "0 1"]


def test_without_lanes_it_is_the_ioctl(program: Path, tmp_path: Path) -> None:
    with running(tmp_path / "mount", "--transport", "fuse", "--spin", "0") as daemon:
        device = tmp_path / "mount" / "binder"
        wrong = "-1 Invalid argument 4"
        none = "Operation not supported"
        assert said(program, device, "unusual") == [none, wrong, wrong, "0 12", "0 1"]
        daemon.end_clean(opens=0, threads=0, buffers=0)
