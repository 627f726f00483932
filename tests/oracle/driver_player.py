# SPDX-License-Identifier: Apache-2.0
"""Has scripts played by the real driver: builds player.c and runs it in the virtual machine."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from oracle import program
from vm import kernel
from vm.machine import REPOSITORY, Machine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from oracle.program import Result

SOURCE: Final = Path(__file__).with_name("player.c")
PROGRAM: Final = REPOSITORY / "build" / "oracle" / "player"
OPTIONS: Final = ("-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-static")
PATIENCE: Final = 60.0  # seconds for a script; its result may wait for those before it
# Threads may use all of the processor, ids only grow, the driver is silent and quick.
SETTINGS: Final = (
    "echo -1 >/proc/sys/kernel/sched_rt_runtime_us",
    "echo 4194304 >/proc/sys/kernel/pid_max",
    "echo 0 >/sys/module/binder_linux/parameters/debug_mask",
    "echo 1 >/sys/kernel/rcu_expedited",
)


class DriverError(Exception):
    """The driver's player has ended or says nothing."""


def build() -> None:
    """Compile the player if it is not there or older than its source.

    Raises:
        subprocess.CalledProcessError: the compiler has said why.
    """
    if PROGRAM.exists() and PROGRAM.stat().st_mtime >= SOURCE.stat().st_mtime:
        return
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    unfinished = PROGRAM.with_suffix(".new")
    subprocess.run(["cc", *OPTIONS, "-o", unfinished, SOURCE], check=True)
    unfinished.rename(PROGRAM)


class DriverPlayer:
    """A machine with the player in it. Send several scripts before you ask for results."""

    def __init__(self) -> None:
        build()
        kernel.obtain()
        self._machine = Machine()
        self.boot_seconds = self._machine.boot_seconds
        self._worker = self._machine.start(" && ".join([*SETTINGS, f"exec {PROGRAM}"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._machine.close()

    def send(self, operations: Sequence[bytes]) -> None:
        """Have a script played; returns at once.

        Raises:
            MachineError: the machine is gone.
        """
        octets = b"".join(operations)
        self._worker.write(len(octets).to_bytes(4, "little") + octets)

    def receive(self, operations: Sequence[bytes]) -> list[Result]:
        """Return the results of the script that was sent first of those without.

        Raises:
            DriverError: there will be none, with what the player said.
            MachineError: the machine is gone.
        """
        try:
            size = self._worker.output.read(4, PATIENCE)
            octets = self._worker.output.read(int.from_bytes(size, "little"), PATIENCE)
        except TimeoutError as error:
            raise DriverError(f"the player hangs: {error}") from None
        if len(size) < 4 or len(octets) < int.from_bytes(size, "little"):
            raise DriverError(self._worker.errors.read_all().decode(errors="replace"))
        return program.parse(operations, octets)
