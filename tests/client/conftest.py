# SPDX-License-Identifier: Apache-2.0
"""Devices for each test, and processes to talk to: behind an engine in this very process.

Where a daemon can be mounted the same tests play on its devices as well, with real processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

from binderclient.testing import Binder
from client import elsewhere
from client.drivers import PATIENCE, KernelDriver, MountedDaemon, missing_capability
from client.peer import start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.testing import Process
    from client.drivers import Driver

DEVICE: Final = os.environ.get("BINDER_TEST_DEVICE")
PEER: Final = Path(__file__).parent / "peer.py"
ELSEWHERE: Final = Path(__file__).parent / "elsewhere.py"


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

    own_pid = pid  # as it sees itself

    def send_signal(self, number: int) -> None:
        self.popen.send_signal(number)

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
        self.own_pid = os.getpid()
        self._device = start(process.path(), *arguments, die=process.kill)

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
        self.binder = Binder() if daemon is None else None
        if self.binder is not None:  # one process opens all devices, as it is with a daemon
            own = self.binder.process(pid=os.getpid(), uid=os.geteuid())
            self.device = Path(own.path())
        else:
            self.device = self.daemon.new_device()
        self.peers: list[Peer | LocalPeer] = []

    @property
    def daemon(self) -> Driver:
        assert self._daemon is not None, "tests of a daemon are in tests/integration/client"
        return self._daemon

    def _process(self) -> Process:
        """Return a new process of the engine's, of our user as real ones are."""
        assert self.binder is not None
        return self.binder.process(uid=os.geteuid())

    def counts(self) -> dict[str, int]:
        """Return how many of each kind of object the driver keeps."""
        return self.daemon.counts() if self.binder is None else self.binder.counts()

    def another(self) -> Path:
        """Return the path of the device for another process."""
        return self.device if self.binder is None else Path(self._process().path())

    def elsewhere(self, function: str, *arguments: object) -> Any:  # noqa: ANN401
        """Have another process do something; see ``elsewhere.py``."""
        words = [function, str(self.another()), *map(str, arguments)]
        if self.binder is not None:
            return getattr(elsewhere, function)(*words[1:])
        done = subprocess.run(
            [sys.executable, str(ELSEWHERE), *words],
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=True,
        )
        return json.loads(done.stdout)

    def peer(self, *arguments: str) -> Peer | LocalPeer:
        if self.binder is not None:
            self.peers.append(LocalPeer(self._process(), *arguments))
        else:
            self.peers.append(Peer(self.device, *arguments))
        return self.peers[-1]

    def close(self) -> None:
        for peer in self.peers:
            peer.__exit__()
        left = self.binder.close() if self.binder is not None else ""
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


def kinds() -> list[str]:
    """Return what devices can be had of here."""
    if DEVICE:
        return ["daemon"]
    return ["engine"] if missing_capability() else ["engine", "daemon"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Play each test on all that devices can be had of here: nothing has to be skipped."""
    if "driver_kind" in metafunc.fixturenames:
        metafunc.parametrize("driver_kind", kinds(), indirect=True)


def pytest_report_header() -> str | None:
    """Say what is not played here, as nothing is shown as skipped."""
    missing = missing_capability()
    return f"client tests: on an engine in this process alone, as {missing}" if missing else None


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
