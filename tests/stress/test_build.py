# SPDX-License-Identifier: Apache-2.0
"""The worker program compiles strictly, its sources are tidy, and the package has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from binderclient.stress.command import PROGRAM
from preload import toolbox
from preload.test_build import COLUMNS_MAX, FILE_LINES_MAX, FUNCTION_LINES_MAX
from stress.conftest import SOURCES

if TYPE_CHECKING:
    from pathlib import Path

SETUP = [sys.executable, "-W", "ignore", "setup.py", "build_programs"]


def build(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SETUP, f"--build-lib={directory}"],
        cwd=toolbox.ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("flags", ["-Werror -O0", "-Werror -O3 -Wshadow -Wundef -DSTRESS_FAULTS"])
def test_it_compiles_strictly(tmp_path: Path, flags: str) -> None:
    done = build(tmp_path, CFLAGS=flags)
    assert done.returncode == 0, done.stderr
    program = tmp_path / "binderclient" / PROGRAM
    said = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)


def test_without_a_compiler(tmp_path: Path) -> None:
    done = build(tmp_path, CC="no-such-compiler")
    assert done.returncode != 0
    assert "there is no C compiler (no-such-compiler)" in done.stdout + done.stderr
    done = build(tmp_path, CC="no-such-compiler", BINDERD_COMPILE="0")
    assert done.returncode == 0
    assert "no `binderctl stress`" in done.stdout + done.stderr
    assert not (tmp_path / "binderclient").exists()


def test_the_package_has_it(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "setup.py", "-q", "build"]
    directories = [f"--build-lib={tmp_path / 'lib'}", f"--build-base={tmp_path / 'base'}"]
    subprocess.run([*command, *directories], cwd=toolbox.ROOT, check=True, capture_output=True)
    package = tmp_path / "lib" / "binderclient"
    assert os.access(package / PROGRAM, os.X_OK)
    assert (package / "stress" / "conductor.py").exists()


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.[ch]")), ids=lambda path: str(path.name))
def test_c_files_are_tidy(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "// SPDX-License-Identifier: Apache-2.0"
    assert lines[1].startswith(f"// {path.name} - ")
    assert len(lines) <= FILE_LINES_MAX
    assert [line for line in lines if len(line.expandtabs(8)) > COLUMNS_MAX] == []
    starts = [number for number, line in enumerate(lines) if line == "{"]
    ends = [number for number, line in enumerate(lines) if line == "}"]
    sizes = [end - start for start, end in zip(starts, ends, strict=True)]
    assert max(sizes, default=0) <= FUNCTION_LINES_MAX
