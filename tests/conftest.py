# SPDX-License-Identifier: Apache-2.0
"""Marks, how hypothesis runs here (the same cases every time), and where temporary files are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

from support.leftovers import Guard
from support.results import Recorder

if TYPE_CHECKING:
    import pytest

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "statements(*codes): the statements of docs/STATEMENTS.md that it proves"
    )
    config.pluginmanager.register(Recorder())
    guard = Guard()
    config.pluginmanager.register(guard)
    if config.option.basetemp is None:
        # A folder of this session's own. Pytest's usual one is swept by each later session, which
        # ends with an error where a mount of somebody who is still busy, or crashed, is in the way.
        config.option.basetemp = str(guard.folder / "pytest")
