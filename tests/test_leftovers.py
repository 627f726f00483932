# SPDX-License-Identifier: Apache-2.0
"""The guard of test sessions, tried on sessions of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from support.leftovers import mounts_below

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS: Final = Path(__file__).parent
CONFTEST: Final = """
from support.leftovers import Guard

def pytest_configure(config):
    guard = Guard()
    config.pluginmanager.register(guard)
    config.option.basetemp = str(guard.folder / "pytest")
"""
LITTER: Final = """
import os, resource, subprocess, tempfile

def test_clean(tmp_path):
    (tmp_path / "file").touch()
    subprocess.run(["true"])

def test_orphan():
    script = "sleep 1000 & until grep -q sleep /proc/$!/comm; do :; done"
    subprocess.run(["sh", "-c", script], stdout=subprocess.DEVNULL)

def test_zombie():
    os.fork() or os._exit(0)

def test_descriptor():
    os.dup(os.open("/dev/null", os.O_RDONLY))

def test_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))

def test_file():
    tempfile.mkdtemp(prefix="litter-")

def test_mount(tmp_path):
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder for a session, whose litter goes afterwards."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    files = tmp_path / "files"
    files.mkdir()
    yield tmp_path
    for line in mounts_below(files):
        subprocess.run(["umount", line.split()[1]], check=True)
    shutil.rmtree(files)


def run(place: Path, tests: str, *arguments: str) -> tuple[int, str]:
    """Return a session's exit status and what it said."""
    (place / "test_it.py").write_text(tests)
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "TMPDIR": str(place / "files")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, str(place)]
    ended = subprocess.run(
        command, env=environment, cwd=place, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout


def test_a_clean_session_passes_and_leaves_no_folder(place: Path) -> None:
    status, said = run(place, LITTER, "-k", "clean")
    assert status == 0, said
    assert list((place / "files").iterdir()) == []


def test_a_session_that_leaves_something_fails_and_says_what(place: Path) -> None:
    status, said = run(place, LITTER)
    lines = said.partition("left behind:\n")[2].splitlines()
    found = dict(zip(lines[::2], lines[1::2], strict=False))
    for line in found:
        if "sleep 1000" in line:
            os.kill(int(line.split()[1].rstrip(":")), signal.SIGKILL)
    wanted = {
        "sleep 1000": "test_orphan",
        "was not waited for": "test_zombie",
        "/dev/null": "test_descriptor",
        "limit of descriptors": "test_limit",
        "litter-": "test_file",
    }
    if os.geteuid() == 0:
        wanted["(tmpfs)"] = "test_mount"
    assert status == 1
    for what, test in wanted.items():
        assert any(what in line and test in after for line, after in found.items()), (what, said)
