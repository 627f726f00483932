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
from typing import TYPE_CHECKING, Final

from binderwire.binder_abi import BINDER_VERSION
from support.device_world import Driver
from support.puppeteer import GLANCE, PATIENCE
from support.rights import confined

if TYPE_CHECKING:
    from collections.abc import Sequence

DEVICES_COUNT: Final = 1000
CUSE_DEVICES_COUNT: Final = 30
CUSE_FRESH_COUNT: Final = 14
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


class OurDaemon(Driver):
    """A running daemon.

    Args:
        directory: empty; for the log.
        names: the devices to serve.
        arguments: more of the daemon's command line.
    """

    is_kernel = False
    _at_rest: dict[str, int]

    def __init__(self, directory: Path, names: Sequence[str], *arguments: str) -> None:
        self.log = directory / "log"
        command = [*confined(), sys.executable, "-m", "binderd", *arguments]
        command += [word for name in names for word in ("--device", name)]
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

    def settle(self, open_files: int) -> None:
        self.barrier()  # a close is queued like any other request

    def wait_for_fetches(self) -> None:
        """Wait for requests whose memory somebody else has to fetch; others overtake them."""
        deadline = time.monotonic() + PATIENCE
        while any(self.counts(("fetching", "paused")).values()):
            assert time.monotonic() < deadline, "a fetch has no end"

    def counts(self, kinds: Sequence[str] = KINDS) -> dict[str, int]:
        """Return how many objects of each kind the daemon has."""
        start = self.log.stat().st_size
        self._process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + PATIENCE
        while True:
            lines = self.log.read_text()[start:].splitlines(keepends=True)
            for line in lines:
                if line.startswith("{") and line.endswith("\n"):
                    return {kind: json.loads(line)[kind] for kind in kinds}
            assert time.monotonic() < deadline, "the daemon does not answer SIGUSR1"
            self._process.poll()
            time.sleep(GLANCE)

    def assert_empty(self) -> None:
        # A device file that was handed over is released by whoever closes it last, and that may be
        # the daemon, which hears of it after this.
        deadline = time.monotonic() + PATIENCE
        while (counts := self.counts()) != self._at_rest:
            assert time.monotonic() < deadline, f"{counts}, but at rest {self._at_rest}"
        assert "our bug" not in self.log.read_text(), self.log.read_text()

    def stop(self) -> None:
        """End the daemon and check that it went well."""
        self._process.terminate()
        status = self._process.wait(PATIENCE)
        text = self.log.read_text()
        assert status == 0, text
        assert "Traceback" not in text, text


class FuseDaemon(OurDaemon):
    """A daemon with a mount and many devices, so that each test has new ones.

    Args:
        directory: empty; for the mount point and the log.
        arguments: more of the daemon's command line.
    """

    name = "fuse"

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._mount = directory / "mount"
        self.control = self._mount / "binder-control"
        self._numbers = itertools.count()
        names = [BARRIER, *(f"test{number}" for number in range(DEVICES_COUNT))]
        super().__init__(
            directory, names, "--transport", "fuse", "--mount", str(self._mount), *arguments
        )
        self._barrier = os.open(self._mount / BARRIER, os.O_RDWR | os.O_CLOEXEC)
        self.barrier()
        self._at_rest = self.counts()

    def new_device(self, name: str) -> Path:  # all are fresh
        return self._mount / f"test{next(self._numbers)}"

    def barrier(self) -> None:
        """The daemon answers requests in the order in which the kernel queued them."""
        fcntl.ioctl(self._barrier, BINDER_VERSION, bytearray(4))
        self.wait_for_fetches()

    def stop(self) -> None:
        if hasattr(self, "_barrier"):
            os.close(self._barrier)
        super().stop()


class BoundDaemon(FuseDaemon):
    """The same, with each device as a file that is bind-mounted alone: clients share its inode.

    Args:
        directory: as above.
    """

    name = "private"

    def __init__(self, directory: Path) -> None:
        self._places = directory / "bound"
        self._places.mkdir()
        self._bound: list[Path] = []
        super().__init__(directory)

    def new_device(self, name: str) -> Path:
        device = super().new_device(name)
        place = self._places / device.name
        place.touch()
        subprocess.run(["mount", "--bind", device, place], check=True)
        self._bound.append(place)
        return place

    def assert_empty(self) -> None:
        super().assert_empty()
        self._let_go()

    def _let_go(self) -> None:
        while self._bound:
            subprocess.run(["umount", self._bound.pop()], check=True)

    def stop(self) -> None:
        self._let_go()
        super().stop()


class BareDaemon(FuseDaemon):
    """The same as on a kernel without passthrough.

    Args:
        directory: as above.
    """

    name = "bare"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "--passthrough", "off")


class CuseDaemon(OurDaemon):
    """A daemon with character devices, which are used again by later tests, as ``KernelDriver``'s.

    Args:
        directory: empty; for the log.
    """

    name = "cuse"
    hands_over_areas = True
    _daemons = itertools.count()  # a session may have several

    def __init__(self, directory: Path) -> None:
        prefix = f"binderd-test-{os.getpid()}-{next(self._daemons)}/"
        names = [f"test{number}" for number in range(CUSE_DEVICES_COUNT)]
        super().__init__(directory, names, "--transport", "cuse", "--device-prefix", prefix)
        devices = [Path(f"/dev/{prefix}{name}") for name in names]
        # The order of requests holds for one device only, so each has a file for barriers.
        self._barriers = {device: os.open(device, os.O_RDWR | os.O_CLOEXEC) for device in devices}
        self._in_use = devices
        self.barrier()
        self._in_use = []
        self._at_rest = self.counts()
        self._fresh = devices[:CUSE_FRESH_COUNT]
        self._of_users: dict[str, Path] = {}
        self._devices = itertools.cycle(devices[CUSE_FRESH_COUNT:])

    def new_device(self, name: str) -> Path:
        if name.startswith("user"):
            if name not in self._of_users:
                self._of_users[name] = self._fresh.pop()
            device = self._of_users[name]
        else:
            device = self._fresh.pop() if name.startswith("fresh") else next(self._devices)
        self._in_use.append(device)
        return device

    def barrier(self) -> None:
        for device in self._in_use:
            fcntl.ioctl(self._barriers[device], BINDER_VERSION, bytearray(4))
        self.wait_for_fetches()

    def assert_empty(self) -> None:
        super().assert_empty()
        self._in_use.clear()

    def stop(self) -> None:
        for fd in getattr(self, "_barriers", {}).values():
            os.close(fd)
        super().stop()
