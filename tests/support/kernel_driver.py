# SPDX-License-Identifier: Apache-2.0
"""Linux's own binder driver as the driver behind ``DeviceWorld``, where a machine has it.

The driver has a fixed number of devices, each of which remembers its first context manager's user
for good.  So devices are used again by later tests, but for those that a test asks for by a name
that begins with ``fresh``; one whose name begins with ``user`` goes to all tests that ask for it.
"""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path
from typing import Final

from support.device_world import Driver
from support.puppeteer import GLANCE, PATIENCE

NAMES: Final = Path("/sys/module/binder_linux/parameters/devices")
STATS: Final = Path("/sys/kernel/debug/binder/stats")
FRESH_COUNT: Final = 7
ACTIVE: Final = re.compile(r"^(\w+): active (\d+)", re.MULTILINE)


def has_driver() -> bool:
    """Whether this machine has the driver, and lets us look at its counts."""
    return NAMES.exists() and STATS.exists()


class KernelDriver(Driver):
    """The driver, with nobody else using it."""

    name = "kernel"
    is_kernel = True

    def __init__(self) -> None:
        names = NAMES.read_text().strip().split(",")
        devices = [Path("/dev", name) for name in names]
        for device in devices:
            device.chmod(0o666)  # for clients of other users
        self._fresh = devices[:FRESH_COUNT]
        self._of_users: dict[str, Path] = {}
        self._devices = itertools.cycle(devices[FRESH_COUNT:])

    def new_device(self, name: str) -> Path:
        if name.startswith("user"):
            if name not in self._of_users:
                self._of_users[name] = self._fresh.pop()
            return self._of_users[name]
        return self._fresh.pop() if name.startswith("fresh") else next(self._devices)

    def barrier(self) -> None:
        """A thread that sleeps in this driver has been seen to."""

    def settle(self, open_files: int) -> None:
        """Files are released by a worker of the kernel's own, some time later."""
        deadline = time.monotonic() + PATIENCE
        while self.counts()["proc"] != open_files:
            assert time.monotonic() < deadline, f"{self.counts()}, but {open_files} files are open"
            time.sleep(GLANCE)

    def counts(self) -> dict[str, int]:
        """Return how many objects of each kind the driver has."""
        text = STATS.read_text().partition("\nproc ")[0]
        return {kind: int(count) for kind, count in ACTIVE.findall(text)}

    def assert_empty(self) -> None:
        assert not any(self.counts().values()), self.counts()
