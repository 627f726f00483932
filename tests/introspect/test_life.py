# SPDX-License-Identifier: Apache-2.0
"""One life, and what the logs say at every turn of it: on the engine, on a mount, on the driver.

``life.txt`` is what Linux's own driver says; on a machine that has it, the last test compares them.
"""

from __future__ import annotations

import difflib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binderd.introspect.tree import LogTree
from channel.helpers import needs_fuse, running
from support.device_world import DeviceWorld, Driver
from support.engine_world import EngineWorld
from support.life import Life
from support.logs import LOGS_OF_KERNEL, FileLogs, Transcript, TreeLogs, without_mapping_figures
from support.puppeteer import GLANCE, PATIENCE, start_zygote

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.playbook import World

EXPECTED: Final = Path(__file__).with_name("life.txt").read_text()


def lived(world: World, transcript: Transcript) -> str:
    """Return what was seen of a life."""
    try:
        Life(world, transcript).live()
    finally:
        world.close()
    return transcript.text


def assert_same(seen: str, expected: str = EXPECTED) -> None:
    lines = difflib.unified_diff(expected.splitlines(), seen.splitlines(), "expected", "seen", n=4)
    assert seen == expected, "\n".join(lines)


class OneDevice(Driver):
    """A driver with a single device, and nobody else using it."""

    name = "one device"

    def __init__(self, device: Path) -> None:
        self.device = device

    def new_device(self, name: str = "") -> Path:
        return self.device

    def settle(self, open_files: int) -> None:
        """Return once the driver is done with everything but so many open files."""
        self.barrier()

    def released(self, pid: int) -> None:
        self.barrier()

    def assert_empty(self) -> None:
        """The transcript ends with a look at it."""


class Mounted(OneDevice):
    is_kernel = False

    def barrier(self) -> None:
        """A lookup goes through the same channel as everything else."""
        os.stat(self.device)


class Linux(OneDevice):
    is_kernel = True
    state = Path(LOGS_OF_KERNEL, "state")

    def barrier(self) -> None:
        """A thread that sleeps in this driver has been seen to."""

    def settle(self, open_files: int) -> None:
        self._wait(lambda text: text.count("\nproc ") == open_files)

    def released(self, pid: int) -> None:
        self._wait(lambda text: f"\nproc {pid}\n" not in text)

    def _wait(self, is_done: Callable[[str], bool]) -> None:
        """The driver releases a file some time after its last close."""
        deadline = time.monotonic() + PATIENCE
        while not is_done(self.state.read_text()):
            assert time.monotonic() < deadline, "the driver keeps a file of the dead"
            time.sleep(GLANCE)


def test_life_on_the_engine() -> None:
    world = EngineWorld()
    assert_same(lived(world, Transcript(TreeLogs(LogTree(world.engine, 4096)))))


@needs_fuse
def test_life_on_a_mount(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    with start_zygote() as zygote, running(mount, "--device", "binder") as daemon:
        world = DeviceWorld(Mounted(mount / "binder"), zygote)
        try:
            seen = lived(world, Transcript(FileLogs(mount / "binder_logs")))
        finally:
            assert daemon.end() == 0
    assert_same(seen)


if Linux.state.exists():  # elsewhere this is left to make test-vm

    def test_life_on_linux() -> None:
        used = Path(LOGS_OF_KERNEL, "stats").read_text()
        assert used == "binder stats:\n", "its counts begin at the boot: be the first to use it"
        with start_zygote() as zygote:
            world = DeviceWorld(Linux(Path("/dev/binder")), zygote)
            seen = lived(world, Transcript(FileLogs(Path(LOGS_OF_KERNEL))))
        assert_same(without_mapping_figures(seen), without_mapping_figures(EXPECTED))
