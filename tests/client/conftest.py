# SPDX-License-Identifier: Apache-2.0
"""A mounted daemon for the session, new devices for each test, and processes to talk to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

from binderclient.blocking import Device
from binderclient.errors import DeadObject
from support.fuse_daemon import FuseDaemon, missing_capability

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE: Final = 10.0  # seconds until a test fails that would otherwise hang
DEVICE: Final = os.environ.get("BINDER_TEST_DEVICE")
PEER: Final = Path(__file__).parent / "peer.py"


class KernelDriver:
    """A driver that is there already, named by $BINDER_TEST_DEVICE; Linux's own, for example."""

    def __init__(self, device: str) -> None:
        self._device = device

    def new_device(self) -> Path:
        """Return the device once the last test's context manager is gone, which takes a while."""
        with Device(self._device) as device:
            for _ in range(1000):
                try:
                    device.context_manager.ping()
                except DeadObject:
                    break
                time.sleep(0.01)
        return Path(self._device)

    def counts(self) -> dict[str, int]:
        pytest.skip("this driver does not tell its counts")

    def assert_empty(self) -> None:
        """It cannot be asked."""

    def stop(self) -> None:
        """It was not started here."""


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

    def __init__(self, daemon: FuseDaemon | KernelDriver) -> None:
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
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuseDaemon | KernelDriver]:
    if DEVICE:
        yield KernelDriver(DEVICE)
        return
    missing = missing_capability()
    if missing is not None:
        pytest.skip(missing)
    daemon = FuseDaemon(tmp_path_factory.mktemp("client"))
    yield daemon
    daemon.stop()


@pytest.fixture
def bench(daemon: FuseDaemon | KernelDriver) -> Iterator[Bench]:
    """New device; afterwards nothing may be left of the test in the daemon."""
    bench = Bench(daemon)
    try:
        yield bench
    finally:
        bench.close()
    daemon.assert_empty()
