# SPDX-License-Identifier: Apache-2.0
"""Devices of each kind, and programs to run on them with the library.

In the virtual machine: CUSE devices, and Linux's own driver.
"""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Final

import pytest

from preload import toolbox
from support.device_kinds import bare_driver, cuse_driver, fuse_driver, kernel_driver
from support.kernel_driver import has_driver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.device_world import Driver

__all__ = ["bare_driver", "cuse_driver", "fuse_driver", "kernel_driver"]  # fixtures

HAS_CUSE: Final = os.path.exists("/dev/cuse")
HAS_LANES: Final = platform.machine() == "x86_64"
OURS: Final = (
    "fuse",
    "bare",
    *(["lane"] if HAS_LANES else []),
    *(["cuse"] if HAS_CUSE else []),
)
_HERE: Final = (*OURS, "kernel") if has_driver() else OURS
BACKENDS: Final = tuple(os.environ.get("BINDERD_BACKENDS", " ".join(_HERE)).split())


class Stage:
    """A device without a context manager, and how programs are started on it.

    Attributes:
        name: "fuse", "bare" (FUSE without passthrough), "lane" (FUSE, and threads have lanes from
            their first request on), "cuse", "kernel".
        path: the device's.
        programs: name -> a compiled test program or example.
    """

    def __init__(self, name: str, driver: Driver, programs: dict[str, Path]) -> None:
        self.name = name
        self.path = driver.new_device("binder")
        self.programs = programs
        self._running: list[toolbox.Background] = []

    def start(self, name: str, *arguments: object, says: str = "ready") -> toolbox.Background:
        """Start a program with the library; it runs until it, or the test, ends."""
        command = (self.programs[name], self.path, *arguments)
        self._running.append(toolbox.Background(*toolbox.PRELOADED, *command, says=says))
        return self._running[-1]

    def begin(self, name: str, *arguments: object) -> toolbox.Background:
        """Start a program with the library that says nothing before its end."""
        command = (self.programs[name], self.path, *arguments)
        self._running.append(toolbox.Background(*toolbox.PRELOADED, *command, says=None))
        return self._running[-1]

    def start_command(self, *command: object) -> None:
        """Start any command with the library; who needs it waits for it."""
        self._running.append(toolbox.Background(*toolbox.PRELOADED, *command, says=None))

    def run(self, name: str, *arguments: object, status: int = 0) -> str:
        """Run a program with the library to its end; return what it printed."""
        command = (self.programs[name], self.path, *arguments)
        return toolbox.output_of(*toolbox.PRELOADED, *command, status=status)

    def close(self) -> None:
        for each in self._running:
            each.kill()


@pytest.fixture(scope="session")
def library() -> Path:
    return toolbox.built_library()


@pytest.fixture(scope="session")
def programs(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("programs")
    own = (toolbox.HERE / f"{name}.c" for name in ("busy", "often", "porter", "spy"))
    sources = [*toolbox.EXAMPLES.glob("*.c"), *own]
    programs = {}
    for source in sources:
        flags = ("-shared", "-fPIC", "-ldl") if source.stem == "spy" else ("-pthread", "-rdynamic")
        programs[source.stem] = toolbox.compiled(source, directory, *flags)
    return programs


def stage_on(name: str, request: pytest.FixtureRequest) -> Iterator[Stage]:
    driver = request.getfixturevalue(f"{'fuse' if name == 'lane' else name}_driver")
    stage = Stage(name, driver, request.getfixturevalue("programs"))
    with pytest.MonkeyPatch.context() as environment:
        if name == "lane":
            environment.setenv("BINDERCLIENT_LANES", "1")
        yield stage
    stage.close()
    if name == "kernel":
        driver.settle(0)  # a worker of the kernel's own sees to closed files
    driver.assert_empty()


@pytest.fixture(params=BACKENDS)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Every kind of device; afterwards nothing may be left in its driver."""
    yield from stage_on(request.param, request)


@pytest.fixture(params=[name for name in BACKENDS if name != "kernel"])
def our_stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The kinds of device that binderd serves."""
    yield from stage_on(request.param, request)


@pytest.fixture
def fuse_stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    yield from stage_on("fuse", request)


@pytest.fixture
def bare_stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    yield from stage_on("bare", request)


@pytest.fixture
def spied(tmp_path: Path, programs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """What programs are started from now on writes the ioctls that leave it into this file."""
    log = tmp_path / "ioctls"
    monkeypatch.setenv("SPY_FILE", str(log))
    monkeypatch.setenv("LD_PRELOAD", str(programs["spy"]))
    assert "LD_PRELOAD" in os.environ
    return log
