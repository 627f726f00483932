# SPDX-License-Identifier: Apache-2.0
"""Our daemon, mounted for a test session, as the driver behind ``DeviceWorld``."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from binderwire.binder_abi import BINDER_VERSION
from support.device_world import Driver
from support.puppeteer import GLANCE, PATIENCE

DEVICES_COUNT: Final = 1000
BARRIER: Final = "barrier"
KINDS: Final = (
    "processes",
    "threads",
    "nodes",
    "refs",
    "deaths",
    "transactions",
    "buffers",
    "files",
    "installations",
)


def missing_capability() -> str | None:
    """Return why no daemon can be mounted here, None if one can."""
    if not Path("/dev/fuse").exists():
        return "no /dev/fuse"
    if os.geteuid() != 0:
        return "mounting needs root"
    return None


class FuseDaemon(Driver):
    """A running daemon with many devices, so that each test has new ones.

    Args:
        directory: empty; for the mount point and the log.
        arguments: more of the daemon's command line.
    """

    name = "fuse"
    devices_count = DEVICES_COUNT
    is_kernel = False

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._mount = directory / "mount"
        self.control = self._mount / "binder-control"
        self.log = directory / "log"
        self._numbers = itertools.count()
        names = [BARRIER, *(f"test{number}" for number in range(self.devices_count))]
        command = [sys.executable, "-m", "binderd", "--mount", str(self._mount)]
        command += [word for name in names for word in ("--device", name)]
        command += arguments
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as readiness,
            self.log.open("w") as log,
        ):
            readiness.bind(str(directory / "ready"))
            readiness.settimeout(PATIENCE)
            environment = {**os.environ, "NOTIFY_SOCKET": str(directory / "ready")}
            self._process = subprocess.Popen(command, stderr=log, env=environment)
            try:
                assert b"READY=1" in readiness.recv(4096)
            except TimeoutError:
                self.stop()
                raise AssertionError(f"the daemon is not ready: {self.log.read_text()}") from None
        self._barrier = os.open(self._mount / BARRIER, os.O_RDWR | os.O_CLOEXEC)
        self.barrier()
        self._at_rest = self.counts()

    def new_device(self, name: str) -> Path:  # all are fresh
        return self._mount / f"test{next(self._numbers)}"

    def barrier(self) -> None:
        """The daemon answers requests in the order in which the kernel queued them."""
        fcntl.ioctl(self._barrier, BINDER_VERSION, bytearray(4))

    def settle(self, open_files: int) -> None:
        self.barrier()  # a close is queued like any other request

    def counts(self) -> dict[str, int]:
        """Return how many objects of each kind the daemon has."""
        start = self.log.stat().st_size
        self._process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + PATIENCE
        while True:
            lines = self.log.read_text()[start:].splitlines(keepends=True)
            for line in lines:
                if line.startswith("{") and line.endswith("\n"):
                    return {kind: json.loads(line)[kind] for kind in KINDS}
            assert time.monotonic() < deadline, "the daemon does not answer SIGUSR1"
            self._process.poll()
            time.sleep(GLANCE)

    def assert_empty(self) -> None:
        assert self.counts() == self._at_rest
        assert "our bug" not in self.log.read_text(), self.log.read_text()

    def stop(self) -> None:
        """End the daemon and check that it went well."""
        if hasattr(self, "_barrier"):
            os.close(self._barrier)
        self._process.terminate()
        status = self._process.wait(PATIENCE)
        text = self.log.read_text()
        assert status == 0, text
        assert "Traceback" not in text, text
