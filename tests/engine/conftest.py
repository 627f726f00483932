# SPDX-License-Identifier: Apache-2.0
"""What the tests of the engine alone share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.engine_world import EngineWorld

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world() -> Iterator[EngineWorld]:
    """An engine; in the end nothing may be left in it."""
    world = EngineWorld()
    yield world
    world.close()
    world.assert_empty()
