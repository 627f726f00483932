# SPDX-License-Identifier: Apache-2.0
"""Devices to stress, and the worker program: as it is shipped, and one that makes mistakes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from binderclient.stress.command import worker_program
from preload import toolbox
from support.backends import BACKENDS
from support.device_kinds import bare_driver, cuse_driver, fuse_driver, kernel_driver

if TYPE_CHECKING:
    from pathlib import Path

    from support.device_world import Driver
    from support.fuse_daemon import FuseDaemon

__all__ = ["bare_driver", "cuse_driver", "fuse_driver", "kernel_driver"]  # fixtures

SOURCES: Final = toolbox.ROOT / "client" / "stress"
FLAGS: Final = ("-std=c11", "-O2", *toolbox.WARNINGS, "-pthread")


@pytest.fixture(scope="session")
def worker() -> Path:
    """The program as it is shipped, built from the sources as they are now."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    built = toolbox.ROOT / "client" / "binderclient" / "binderd-stress-worker"
    newest = max(path.stat().st_mtime for path in SOURCES.iterdir())
    if not built.exists() or built.stat().st_mtime < newest:
        subprocess.run(
            [sys.executable, "-W", "ignore", "setup.py", "-q", "build_programs", "--inplace"],
            cwd=toolbox.ROOT,
            check=True,
            env={**os.environ, "CFLAGS": "-Werror"},
        )
    return worker_program()


@pytest.fixture(scope="session")
def faulty_worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that makes the mistake that $STRESS_FAULT names."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    target = tmp_path_factory.mktemp("faulty") / "worker"
    sources = map(str, sorted(SOURCES.glob("*.c")))
    command = ["cc", *FLAGS, "-DSTRESS_FAULTS", "-o", str(target), *sources, "-lm"]
    subprocess.run(command, check=True, timeout=toolbox.PATIENCE)
    return target


@pytest.fixture(scope="session")
def fuse(fuse_driver: FuseDaemon) -> FuseDaemon:
    return fuse_driver


_KINDS: Final = [
    *(name for name in BACKENDS if name in {"fuse", "cuse", "kernel"}),
    *(["bare"] if "fuse" in BACKENDS else []),
]


@pytest.fixture(params=_KINDS)
def driver(request: pytest.FixtureRequest) -> Driver:
    """Every kind of device that there is here."""
    found: Driver = request.getfixturevalue(f"{request.param}_driver")
    return found
