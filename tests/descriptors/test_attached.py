# SPDX-License-Identifier: Apache-2.0
"""The scenarios about descriptors once more, for clients that take them themselves.

The daemon may stop nobody, so what they get came through their sockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from channel.helpers import needs_fuse
from conformance.test_descriptors import *  # noqa: F403
from conformance.test_files import *  # noqa: F403
from support.device_world import DeviceWorld
from support.fuse_daemon import FuseDaemon
from support.puppeteer import Puppet, start_zygote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.playbook import World

pytestmark = needs_fuse


@pytest.fixture(scope="module")
def zygote() -> Iterator[Puppet]:
    with start_zygote() as puppet:
        yield puppet


@pytest.fixture(scope="module")
def strict_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuseDaemon]:
    daemon = FuseDaemon(tmp_path_factory.mktemp("attached"), "--descriptors", "attach-only")
    yield daemon
    daemon.stop()


@pytest.fixture
def world(strict_daemon: FuseDaemon, zygote: Puppet) -> Iterator[World]:
    backend = DeviceWorld(strict_daemon, zygote, attaches=True)
    yield backend
    backend.close()
    backend.assert_empty()
