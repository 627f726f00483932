# SPDX-License-Identifier: Apache-2.0
"""Scenarios of tests/conformance with the library, on FUSE files that cannot be mapped.

And on others with lanes, from each thread's first request on. What the library puts right is not
excused here: the driver's behaviour is wanted.
"""

from __future__ import annotations

import importlib
import platform
from errno import EINVAL, EPERM
from typing import TYPE_CHECKING, Final

import pytest

from preload import toolbox
from support import bc
from support.device_world import DeviceWorld
from support.puppeteer import start_zygote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.device_world import Driver
    from support.puppeteer import Puppet

MODULES: Final = (
    "buffers",
    "deaths",
    "descriptors",
    "files",
    "ioctls",
    "mapping",
    "queues",
    "read_side",
)
FUSE_S_ERRORS: Final = "the kernel reports EFAULT before we are asked"

WAYS: Final = ("ioctls", "lanes")

# Expects what FUSE does; the last test here is about what the library does.
LEFT_OUT: Final = {"test_mappings_that_the_driver_refuses"}

for module in MODULES:
    for name, value in vars(importlib.import_module(f"conformance.test_{module}")).items():
        if name.startswith("test_") and name not in LEFT_OUT:
            globals()[f"test_{module}_{name.removeprefix('test_')}"] = value


class PreloadedWorld(DeviceWorld):
    """Clients that have the library."""

    def differs(self, *backends: str, reason: str) -> bool:
        return reason != FUSE_S_ERRORS and super().differs(*backends, reason=reason)


@pytest.fixture(scope="module", params=WAYS)
def zygote(library: Path, request: pytest.FixtureRequest) -> Iterator[Puppet]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LD_PRELOAD", str(library))
        environment.setenv("BINDERCLIENT_LANES", "1" if request.param == "lanes" else "0")
        with start_zygote() as puppet:
            yield puppet


@pytest.fixture
def world(request: pytest.FixtureRequest, zygote: Puppet) -> Iterator[PreloadedWorld]:
    in_lanes = request.node.callspec.params["zygote"] == "lanes"
    driver: Driver = request.getfixturevalue("fuse_driver" if in_lanes else "bare_driver")
    backend = PreloadedWorld(driver, zygote)
    yield backend
    backend.close()
    backend.assert_empty()


def test_the_clients_have_the_library(zygote: Puppet) -> None:
    with open(f"/proc/{zygote.pid}/maps", encoding="ascii") as maps:
        assert toolbox.BUILT.name in maps.read()


def test_the_clients_have_what_they_should(
    world: PreloadedWorld, request: pytest.FixtureRequest
) -> None:
    proc = world.open()
    proc.thread().write(bc.enter_looper())
    with open(f"/proc/{proc.pid}/maps", encoding="ascii") as maps:
        has_lane = "memfd:lane" in maps.read()
    callspec = request.node.callspec
    assert has_lane == (callspec.params["zygote"] == "lanes" and platform.machine() == "x86_64")


def test_mapping_is_as_the_driver_s(world: PreloadedWorld, request: pytest.FixtureRequest) -> None:
    """B8, as far as the library sees it: the kernel asks nobody about a child's."""
    proc = world.open(size=None)
    assert proc.try_mmap(writable=True) == EPERM
    child = proc.fork()
    is_ours = request.node.callspec.params["zygote"] == "ioctls"
    assert child.try_mmap() == (EINVAL if is_ours else 0)
    assert proc.try_mmap() == 0
