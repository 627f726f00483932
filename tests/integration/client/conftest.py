# SPDX-License-Identifier: Apache-2.0
"""What the client does with real devices, files and processes; ``tests/client`` has its devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client.conftest import bench, daemon, driver_kind
from client.drivers import missing_capability
from client.recovery_world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["bench", "daemon", "driver_kind"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    missing = missing_capability()
    if missing is not None:
        pytest.skip(missing)
    world = World(tmp_path)
    try:
        yield world
    finally:
        world.close()
