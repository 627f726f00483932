# SPDX-License-Identifier: Apache-2.0
"""``Device`` and what only real processes can do to it: its daemon dies, its program forks."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from binderclient.blocking import Device
from binderclient.errors import DeviceError
from client import peer as p
from client.conftest import Peer
from client.drivers import MountedDaemon, missing_capability
from client.test_device import PATIENCE, request
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from client.conftest import Bench


def test_when_the_daemon_is_killed_everybody_gets_an_error(tmp_path: Path) -> None:
    missing = missing_capability()
    if missing is not None:
        pytest.skip(missing)
    daemon = MountedDaemon(tmp_path, 1)
    path = daemon.new_device()
    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            device.context_manager.call(p.SLEEP, request(60_000))
        except DeviceError as error:
            outcome.append(error)

    try:
        with Peer(path) as peer, Device(path) as device:
            thread = threading.Thread(target=wait)
            thread.start()
            time.sleep(0.2)
            daemon.process.kill()
            thread.join(PATIENCE)
            assert "driver behind it is gone" in str(outcome[0])
            with pytest.raises(DeviceError):
                device.context_manager.ping()
            peer.kill()
    finally:
        daemon.process.kill()
        daemon.process.wait()
        subprocess.run(["umount", "-l", str(daemon.mount)], check=False)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_does_not_keep_its_parent_alive_to_others(bench: Bench) -> None:
    bench.peer()
    before = bench.daemon.counts()["processes"]
    with Device(bench.device) as device:
        device.context_manager.ping()
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        eventually(lambda: bench.daemon.counts()["processes"] == before)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
