# SPDX-License-Identifier: Apache-2.0
"""How the library is built and installed, and what it consists of."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from binderclient.preload import LIBRARY
from preload import toolbox

if TYPE_CHECKING:
    from pathlib import Path

EXPORTED = {"ioctl", "mmap", "mmap64", "close", "dup2", "dup3", "close_range", "closefrom"}
# What the request path could be slowed down or interrupted by: memory, locks, cancellation points.
UNWANTED = re.compile(
    r"^(malloc|calloc|realloc|free|pthread_mutex.*|recv.*|send.*|close|read|write|p?poll)$"
)
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 45
COLUMNS_MAX = 100


def symbols(library: Path, kind: str) -> set[str]:
    listed = subprocess.run(
        ["nm", "-D", f"--{kind}-only", library], capture_output=True, text=True, check=True
    ).stdout
    return {line.split()[-1].partition("@")[0] for line in listed.splitlines()}


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm")
def test_what_it_offers_and_what_it_needs(library: Path) -> None:
    assert symbols(library, "defined") == EXPORTED
    needed = symbols(library, "undefined")
    assert "dlsym" in needed
    assert [name for name in needed if UNWANTED.match(name)] == []


def build(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "setup.py", "build_programs"]
    return subprocess.run(
        [*command, f"--build-lib={directory}"],
        cwd=toolbox.ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("flags", ["-Werror", "-Werror -O0", "-Werror -O3 -Wshadow -Wundef"])
def test_it_compiles_strictly(tmp_path: Path, flags: str) -> None:
    done = build(tmp_path, CFLAGS=flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "binderclient" / LIBRARY).exists()


@pytest.mark.skipif(shutil.which("musl-gcc") is None, reason="no musl-gcc (Debian: musl-tools)")
def test_it_compiles_with_musl(tmp_path: Path) -> None:
    machine = sysconfig.get_config_var("MULTIARCH")
    # Debian's musl-gcc does not see the kernel's headers by itself.
    headers = f"-Werror -idirafter /usr/include -idirafter /usr/include/{machine}"
    done = build(tmp_path, CC="musl-gcc", CFLAGS=headers)
    assert done.returncode == 0, done.stderr
    assert symbols(tmp_path / "binderclient" / LIBRARY, "defined") >= EXPORTED


def test_without_a_compiler(tmp_path: Path) -> None:
    """Nothing is installed; on request the rest is, and who needs the library is told."""
    done = build(tmp_path, CC="no-such-compiler")
    assert done.returncode != 0
    assert "there is no C compiler (no-such-compiler)" in done.stderr
    done = build(tmp_path, CC="no-such-compiler", BINDERD_COMPILE="0")
    assert done.returncode == 0
    assert "there is no C compiler (no-such-compiler)" in done.stdout + done.stderr
    assert not (tmp_path / "binderclient").exists()


def test_the_package_has_it(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "setup.py", "-q", "build"]
    directories = [f"--build-lib={tmp_path / 'lib'}", f"--build-base={tmp_path / 'base'}"]
    slow_but_soon = {**os.environ, "BINDERD_COMPILE": "0"}
    subprocess.run(
        [*command, *directories],
        cwd=toolbox.ROOT,
        env=slow_but_soon,
        check=True,
        capture_output=True,
    )
    package = tmp_path / "lib" / "binderclient"
    assert (package / "preload.py").exists()
    code = "from binderclient.preload import library_path; print(library_path())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said == f"{package / LIBRARY}\n"


@pytest.mark.parametrize(
    "path",
    [*toolbox.SOURCES.glob("*.[ch]"), *toolbox.INCLUDES.glob("*.h"), *toolbox.HERE.glob("*.[ch]")],
    ids=lambda path: str(path.name),
)
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
