# SPDX-License-Identifier: Apache-2.0
"""A daemon, or the driver, for each kind of device: fixtures for the conftest.py of a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.fuse_daemon import CuseDaemon, FuseDaemon, missing_capability
from support.kernel_driver import KernelDriver

if TYPE_CHECKING:
    from collections.abc import Iterator


def _mounted(tmp_path_factory: pytest.TempPathFactory, *arguments: str) -> Iterator[FuseDaemon]:
    reason = missing_capability()
    if reason is not None:
        pytest.skip(reason)
    daemon = FuseDaemon(tmp_path_factory.mktemp("fuse"), *arguments)
    yield daemon
    daemon.stop()


@pytest.fixture(scope="session")
def fuse_driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuseDaemon]:
    yield from _mounted(tmp_path_factory)


@pytest.fixture(scope="session")
def bare_driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuseDaemon]:
    """Without passthrough: pages are clients' own, and files only come to those that attach."""
    yield from _mounted(tmp_path_factory, "--passthrough", "off", "--descriptors", "attach-only")


@pytest.fixture(scope="session")
def cuse_driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CuseDaemon]:
    daemon = CuseDaemon(tmp_path_factory.mktemp("cuse"))
    yield daemon
    daemon.stop()


@pytest.fixture(scope="session")
def kernel_driver() -> KernelDriver:
    return KernelDriver()
