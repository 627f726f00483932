# SPDX-License-Identifier: Apache-2.0
"""tests/setup.sh, as far as it can be tried without installing anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).with_name("setup.sh")
PATIENCE: Final = 20.0


def setup(*arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [SCRIPT, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_what_takes_long_says_so(tmp_path: Path) -> None:
    said = tmp_path / "said"
    # It ends when it has been seen to be slow: no longer than that takes.
    waits = f'until grep -q "3 s so far" {said}; do sleep 0.1; done'
    with said.open("w") as file:
        done = subprocess.run(
            [SCRIPT, "progress", "counting", "bash", "-c", waits],
            env={**os.environ, "PROGRESS_SECONDS": "1"},
            stderr=file,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0
    lines = said.read_text().splitlines()
    assert lines[0] == "setup: counting"
    assert lines[-1] == "setup: counting: 3 s so far"


def test_the_status_is_that_of_the_command() -> None:
    assert setup("progress", "failing", "sh", "-c", "exit 7") == (7, "setup: failing\n")


def test_wrong_arguments() -> None:
    status, said = setup("dance")
    assert status == 2
    assert said.startswith("usage: setup.sh")
