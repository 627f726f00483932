# SPDX-License-Identifier: Apache-2.0
"""A mounted daemon for the session, new devices for each test, and processes to talk to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

from client.drivers import PATIENCE, KernelDriver, MountedDaemon, missing_capability

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.drivers import Driver

DEVICE: Final = os.environ.get("BINDER_TEST_DEVICE")
PEER: Final = Path(__file__).parent / "peer.py"


class Peer:
    """A server process: see ``peer.py`` for what it can do.

    Args:
        device: its binder device.
        arguments: of ``peer.py``.
    """

    def __init__(self, device: Path, *arguments: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, str(PEER), str(device), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline() == "ready\n"

    @property
    def pid(self) -> int:
        return self.popen.pid

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe is not None
            pipe.close()


class Bench:
    """What a test of real devices works with."""

    def __init__(self, daemon: Driver) -> None:
        self.daemon = daemon
        self.device = daemon.new_device()
        self.peers: list[Peer] = []

    def peer(self, *arguments: str) -> Peer:
        self.peers.append(Peer(self.device, *arguments))
        return self.peers[-1]

    def close(self) -> None:
        for peer in self.peers:
            peer.__exit__()


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    if DEVICE:
        yield KernelDriver(DEVICE)
        return
    missing = missing_capability()
    if missing is not None:
        pytest.skip(missing)
    daemon = MountedDaemon(tmp_path_factory.mktemp("client"))
    yield daemon
    daemon.stop()


@pytest.fixture
def bench(daemon: Driver) -> Iterator[Bench]:
    """New device; afterwards nothing may be left of the test in the daemon."""
    bench = Bench(daemon)
    try:
        yield bench
    finally:
        bench.close()
    daemon.assert_empty()
