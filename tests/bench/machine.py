# SPDX-License-Identifier: Apache-2.0
"""What a figure is worth nothing without: the machine, the daemon under test and its rivals."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, Missing
from bench.programs import broker
from bench.results import MOMENTARY

if TYPE_CHECKING:
    from collections.abc import Sequence


def describe(device: Path | None, daemon_pid: int | None) -> dict[str, str]:
    """Rows for people and for JSON.

    Args:
        device: one that is there already, instead of one of a daemon that we start.
        daemon_pid: the daemon behind it, if that is known.

    Raises:
        BenchError: there is no such process, or our daemon does not run at all.
    """
    if device is None:
        daemon = said_by(sys.executable, "-m", "binderd", "--version")
        if not daemon:
            raise BenchError("binderd does not start: see `python -m binderd --version`")
        python = f"{platform.python_implementation()} {platform.python_version()}"
        python += f" ({os.path.realpath(sys.executable)})"
    else:
        daemon = f"unknown: {device} was there already"
        python = "unknown, and not confined to a core" if daemon_pid is None else exe(daemon_pid)
    rivals = ["dbus-daemon"] if shutil.which("dbus-daemon") else []
    with contextlib.suppress(Missing):
        rivals.append(broker())
    return {
        "daemon": daemon,
        "python of the daemon": python,
        "others": ", ".join(said_by(rival, "--version") for rival in rivals) or "not installed",
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu": f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores usable",
        MOMENTARY: f"{os.getloadavg()[0]:.2f}",
    }


def said_by(*command: str) -> str:
    """The first line that a command prints, nothing if it fails."""
    words: Sequence[str] = command
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = asked.stdout.splitlines()
    return lines[0] if asked.returncode == 0 and lines else ""


def exe(pid: int) -> str:
    """The file that a process runs."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError as error:
        raise BenchError(f"--daemon-pid {pid}: {error.strerror}") from None


def cpu_model() -> str:
    """The name in /proc/cpuinfo; not every architecture has one."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()
