# SPDX-License-Identifier: Apache-2.0
"""A mounted daemon for the session, new devices for each test, and processes to talk to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

from binderclient.testing import Binder
from client.drivers import PATIENCE, KernelDriver, MountedDaemon, missing_capability
from client.peer import start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.testing import Process
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


class LocalPeer:
    """The same server in this very process, behind an engine of the test's own.

    Args:
        process: which it stands for.
        arguments: of ``peer.py``.
    """

    def __init__(self, process: Process, *arguments: str) -> None:
        self._process = process
        self.pid = process.pid
        self._device = start(process.path(), *arguments)

    def kill(self) -> None:
        self._process.kill()

    def __exit__(self, *_: object) -> None:
        self._device.close()


class Bench:
    """What a test of devices works with.

    Args:
        daemon: the driver; None: an engine in this process.
    """

    def __init__(self, daemon: Driver | None) -> None:
        self._daemon = daemon
        self._binder = Binder() if daemon is None else None
        if self._binder is not None:  # one process opens all devices, as it is with a daemon
            self.device = Path(self._binder.process(pid=os.getpid()).path())
        else:
            self.device = self.daemon.new_device()
        self.peers: list[Peer | LocalPeer] = []

    @property
    def daemon(self) -> Driver:
        assert self._daemon is not None, "a test that needs a daemon says so: real_processes"
        return self._daemon

    def peer(self, *arguments: str) -> Peer | LocalPeer:
        if self._binder is not None:
            self.peers.append(LocalPeer(self._binder.process(), *arguments))
        else:
            self.peers.append(Peer(self.device, *arguments))
        return self.peers[-1]

    def close(self) -> None:
        for peer in self.peers:
            peer.__exit__()
        left = self._binder.close() if self._binder is not None else ""
        assert not left, left


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have tests that can do with one play on an engine in this process as well."""
    if "driver_kind" in metafunc.fixturenames:
        has = metafunc.definition.get_closest_marker
        names = ["daemon"] + ["engine"] * bool(has("engine_too") and not has("real_processes"))
        metafunc.parametrize("driver_kind", names, indirect=True)


@pytest.fixture
def driver_kind(request: pytest.FixtureRequest) -> str:
    """What is behind the devices: a daemon, or an engine in this process."""
    return getattr(request, "param", "daemon")


@pytest.fixture
def bench(driver_kind: str, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """New device; afterwards nothing may be left of the test in the driver."""
    is_real = driver_kind == "daemon"
    daemon: Driver | None = request.getfixturevalue("daemon") if is_real else None
    bench = Bench(daemon)
    try:
        yield bench
    finally:
        bench.close()
    if daemon is not None:
        daemon.assert_empty()
