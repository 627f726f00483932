# SPDX-License-Identifier: Apache-2.0
"""A device with a service manager of a given Android; the daemon is that of ``tests/client``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client.conftest import bench, daemon, driver_kind  # noqa: F401 - fixtures
from client.test_servicemanager import ManagerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from client.conftest import Bench

    Start = Callable[..., ManagerProcess]


@pytest.fixture
def start(bench: Bench, tmp_path: Path) -> Iterator[Start]:  # noqa: F811
    """Starts the device's service manager with arguments; what it logs is its ``end()``."""
    started: list[ManagerProcess] = []

    def start(*arguments: str) -> ManagerProcess:
        started.append(ManagerProcess(bench.device, tmp_path, *arguments))
        return started[-1]

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.end()
