# SPDX-License-Identifier: Apache-2.0
"""The driver behind the devices of these tests: our daemon, or one that is there already."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Protocol

import pytest

from binderclient.blocking import Device
from binderclient.errors import DeadObject
from support.rights import confined

PATIENCE: Final = 10.0  # seconds until something is considered stuck
DEVICES_COUNT: Final = 300


class Driver(Protocol):
    """What gives a test its device."""

    def new_device(self) -> Path:
        """Return a device without a context manager."""

    def counts(self) -> dict[str, int]:
        """Return what the driver keeps."""

    def assert_empty(self) -> None:
        """Nothing may be left of the last test."""

    def stop(self) -> None:
        """End it."""


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


class MountedDaemon:
    """A running daemon with many devices, so that each test has new ones.

    Args:
        directory: empty; for the mount and the log.
        devices_count: how many devices.
    """

    def __init__(self, directory: Path, devices_count: int = DEVICES_COUNT) -> None:
        self.mount = directory / "mount"
        self._log = directory / "log"
        self._ready = directory / "ready"
        self._numbers = itertools.count()
        self._names = [f"--device=test{number}" for number in range(devices_count)]
        self.start()

    def start(self) -> None:
        """Start it, beneath the same path as the one before; returns when it is ready."""
        address = str(self._ready)
        self._ready.unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as readiness,
            self._log.open("w") as log,
        ):
            readiness.bind(address)
            readiness.settimeout(PATIENCE)
            self.process = subprocess.Popen(
                [
                    *confined(),
                    sys.executable,
                    "-m",
                    "binderd",
                    "--mount",
                    str(self.mount),
                    *self._names,
                ],
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": address},
            )
            try:
                assert b"READY=1" in readiness.recv(4096)
            except TimeoutError:
                self.process.kill()
                raise AssertionError(self._log.read_text()) from None

    def new_device(self) -> Path:
        return self.mount / f"test{next(self._numbers)}"

    def counts(self) -> dict[str, int]:
        start = self._log.stat().st_size
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in self._log.read_text()[start:].splitlines(keepends=True):
                if line.startswith("{") and line.endswith("\n"):
                    return {name: int(count) for name, count in json.loads(line).items()}
            time.sleep(0.005)
        raise AssertionError("the daemon does not answer SIGUSR1")

    def assert_empty(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while left := {name: n for name, n in self.counts().items() if n and name != "pages"}:
            assert time.monotonic() < deadline, left
        assert "our bug" not in self._log.read_text(), self._log.read_text()

    def kill(self) -> None:
        """End it as nothing ends by itself: its mount stays."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def clean_up(self) -> None:
        """End it whatever state it is in, and take its mounts away."""
        self.kill()
        while str(self.mount) in Path("/proc/self/mountinfo").read_text().split():
            subprocess.run(["umount", "-l", str(self.mount)], check=True)

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0, self._log.read_text()


def missing_capability() -> str | None:
    """Return why no daemon can be mounted here, None if one can."""
    if os.geteuid():
        return "mounting needs root"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return None
