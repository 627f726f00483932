# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin: the fixture ``binder``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.testing.world import Binder


@pytest.fixture
def binder() -> Iterator[Binder]:
    """A binder driver of the test's own, in this process: see ``binderclient.testing.Binder``."""
    from binderclient.testing.world import Binder  # not above: pytest loads this file in every run

    with Binder() as driver:
        yield driver
