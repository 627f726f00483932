# SPDX-License-Identifier: Apache-2.0
"""Modules that are written in C, compiled for the tests: here they are not installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sysconfig
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

import pytest

HEADERS = Path(sysconfig.get_path("include"))
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]


def compiled(name: str, source: Path, folder: Path) -> Any:  # noqa: ANN401
    """Return the module of a C file; skip the test where that cannot be compiled.

    Args:
        name: of the module; nothing is imported under it.
        folder: for what is compiled.
    """
    if not shutil.which("cc") or not (HEADERS / "Python.h").exists():
        pytest.skip("needs a C compiler and Python's headers")
    target = folder / f"{source.stem}.so"
    command = ["cc", *FLAGS, f"-I{HEADERS}", "-o", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    loader = ExtensionFileLoader(name, str(target))
    spec = importlib.util.spec_from_file_location(name, target, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
