# SPDX-License-Identifier: Apache-2.0
"""A program in a mount namespace of its own, in which /dev holds what a test wants, and no more."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ALWAYS: Final = ("null", "zero", "urandom")
PATIENCE: Final = 120.0  # seconds; in a virtual machine a program may take half a minute to start
# $1: an empty directory, which becomes /dev; $2: the devices; $3: what else is to be done
_SCRIPT: Final = """\
mount -t tmpfs dev "$1"
for name in $2; do cp -a "/dev/$name" "$1/"; done
mount --move "$1" /dev
eval "$3"
shift 3
exec "$@"
"""


def command(stage: Path, devices: Sequence[str], before: str, *words: object) -> list[str]:
    """Return the command line of a program that sees only some devices.

    Args:
        stage: a directory that exists.
        devices: their names, beside ALWAYS.
        before: shell commands that go before it.
        words: the program and its arguments.
    """
    names = " ".join((*ALWAYS, *devices))
    script = ["unshare", "--mount", "sh", "-ec", _SCRIPT, "sh", str(stage), names, before]
    return [*script, *map(str, words)]


def binderd(*arguments: object) -> list[object]:
    return [sys.executable, "-m", "binderd", *arguments]


def run(words: Sequence[str]) -> tuple[int, str]:
    """Run a program to its end; return exit status and what it said."""
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout


@contextmanager
def started(words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A program whose stderr can be read, and which is gone afterwards."""
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_with(process: subprocess.Popen[str], text: str) -> str:
    """Return the next line on its stderr with ``text`` in it."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return line
    raise AssertionError(f"no {text!r}, only {seen}")


def ready(log: object) -> str:
    """Return a command that waits until the daemon with that log is ready, or fails in the end."""
    return f"timeout 60 bash -c 'until grep -q ready: {log}; do sleep 0.1; done'"
