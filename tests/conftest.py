# SPDX-License-Identifier: Apache-2.0
"""Marks, how hypothesis runs here (the same cases every time), and where temporary files are."""

from __future__ import annotations

import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings

from support.results import Recorder

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

OWN_FOLDER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "statements(*codes): the statements of the behaviour reference that it proves"
    )
    config.pluginmanager.register(Recorder())
    if config.option.basetemp is None:
        # A folder of this session's own. Pytest's usual one is swept by each later session, which
        # ends with an error where a mount of somebody who is still busy, or crashed, is in the way.
        config.option.basetemp = tempfile.mkdtemp(prefix="pytest-binderd-")
        config.stash[OWN_FOLDER] = config.option.basetemp


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    folder = session.config.stash.get(OWN_FOLDER, None)
    if folder is not None and exitstatus == 0:  # otherwise it may tell why
        shutil.rmtree(folder, ignore_errors=True)
