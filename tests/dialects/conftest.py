# SPDX-License-Identifier: Apache-2.0
"""A device with a service manager of a given Android; devices are those of ``tests/client``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client.conftest import bench, daemon, driver_kind, pytest_generate_tests  # noqa: F401
from client.managers import started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from client.conftest import Bench
    from client.managers import Manager

    Start = Callable[..., Manager]


@pytest.fixture
def start(bench: Bench, tmp_path: Path) -> Iterator[Start]:  # noqa: F811
    """Starts the device's service manager with arguments; what it logs is its ``end()``."""
    managers: list[Manager] = []

    def start(*arguments: str) -> Manager:
        managers.append(started(bench, tmp_path, *arguments))
        return managers[-1]

    yield start
    for manager in managers:
        if not manager.is_over:
            manager.end()
