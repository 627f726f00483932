# SPDX-License-Identifier: Apache-2.0
"""The example programs, for tests that run them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

EXAMPLES: Final = Path(__file__).parents[2] / "client" / "examples"
PATIENCE: Final = 10.0


def run(*command: object) -> str:
    """Run a program that must succeed; return what it prints."""
    words = [str(word) for word in command]
    return subprocess.run(
        words, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True
    ).stdout


def compiled(name: str, directory: Path) -> Path:
    """Compile an example in C; return the program."""
    program = directory / name
    run("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, EXAMPLES / f"{name}.c")
    return program
