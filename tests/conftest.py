# SPDX-License-Identifier: Apache-2.0
"""Marks, and how hypothesis runs here: the same cases every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

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
        "markers", "statements(*codes): the statements of the behaviour reference that it proves"
    )
    config.pluginmanager.register(Recorder())
