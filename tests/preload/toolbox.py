# SPDX-License-Identifier: Apache-2.0
"""What these tests compile, and how they start programs with the library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from binderclient.preload import LIBRARY

HERE: Final = Path(__file__).parent
ROOT: Final = Path(__file__).resolve().parents[2]
EXAMPLES: Final = ROOT / "client" / "examples"
INCLUDES: Final = ROOT / "client" / "include"
SOURCES: Final = ROOT / "client" / "preload"
BUILT: Final = ROOT / "client" / "binderclient" / LIBRARY
WARNINGS: Final = ("-Wall", "-Wextra", "-Werror")
IN_VM: Final = os.environ.get("BINDERD_VM") == "1"
PATIENCE: Final = 120.0 if IN_VM else 20.0  # seconds until something is considered stuck
PRELOADED: Final = (sys.executable, "-m", "binderclient", "run", "--")


def built_library() -> Path:
    """Return the library, built from the sources as they are now."""
    newest = max(path.stat().st_mtime for path in (*SOURCES.iterdir(), *INCLUDES.iterdir()))
    if not BUILT.exists() or BUILT.stat().st_mtime < newest:
        if shutil.which("cc") is None:
            pytest.skip("no C compiler")
        command = [sys.executable, "-W", "ignore", "setup.py", "-q", "build_programs", "--inplace"]
        environment = {**os.environ, "CFLAGS": "-Werror"}
        subprocess.run(command, cwd=ROOT, check=True, env=environment)
    return BUILT


def compiled(source: Path, directory: Path, *flags: str) -> Path:
    """Compile one C file, strictly; return what came out."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    target = directory / source.stem
    command = ["cc", "-O2", *WARNINGS, "-o", str(target), str(source), *flags]
    subprocess.run(command, check=True, timeout=PATIENCE)
    return target


def output_of(*command: object, status: int = 0) -> str:
    """Run a program to its end; return what it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout


def wait_for_success(*command: object) -> None:
    """Run a program again and again until its exit status is 0."""
    words = [str(word) for word in command]
    deadline = time.monotonic() + PATIENCE
    while (
        done := subprocess.run(words, capture_output=True, text=True, check=False)
    ).returncode != 0:
        assert time.monotonic() < deadline, done


class Background:
    """A program that runs until the test ends, and says a word when it is ready, or nothing."""

    def __init__(self, *command: object, says: str | None = "ready") -> None:
        words = [str(word) for word in command]
        self.popen = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.popen.stdout is not None
        if says is None:
            return
        line = self.popen.stdout.readline()
        assert line == f"{says}\n", (words, line)

    def kill(self) -> None:
        assert self.popen.stdout is not None
        self.popen.kill()
        self.popen.wait()
        self.popen.stdout.close()

    def rest(self) -> str:
        """Wait for its end; return what else it printed."""
        assert self.popen.stdout is not None
        printed = self.popen.stdout.read()
        assert self.popen.wait(PATIENCE) == 0
        return printed
