# SPDX-License-Identifier: Apache-2.0
"""The library's half of docs/EXTENSION.md, section 4, against a daemon that does anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from preload import toolbox

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM: Final = toolbox.HERE / "delivery_cases.py"
CASES: Final = re.findall(r"^def case_(\w+)", PROGRAM.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    flags = ("-shared", "-fPIC", f"-I{toolbox.INCLUDES}", "-ldl")
    return toolbox.compiled(toolbox.HERE / "fake.c", tmp_path_factory.mktemp("fake"), *flags)


@pytest.mark.parametrize("case", CASES)
def test_delivery(library: Path, fake: Path, case: str) -> None:
    environment = {**os.environ, "LD_PRELOAD": f"{library}:{fake}"}
    done = subprocess.run(
        [sys.executable, PROGRAM, case],
        env=environment,
        capture_output=True,
        text=True,
        timeout=toolbox.PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
