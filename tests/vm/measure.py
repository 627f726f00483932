# SPDX-License-Identifier: Apache-2.0
"""The figures of README.md: how long the machine takes for what tests do in it."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final

from vm.errors import MachineError
from vm.machine import Buffer, Machine

if TYPE_CHECKING:
    from collections.abc import Callable

PYTHON: Final = ".venv/bin/python"
ECHO: Final = "import sys\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(line)"
COUNT: Final = "n = 0\nfor i in range(2_000_000): n += i"
LINES: Final = 2000
LINE_SIZE: Final = 1024


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def report(text: str, seconds: list[float], unit: str = "s") -> None:
    factor = {"s": 1, "ms": 1e3}[unit]
    first, rest = seconds[0] * factor, statistics.median(seconds[1:] or seconds) * factor
    print(f"{text:<62} first {first:8.2f} {unit}, then {rest:8.2f} {unit}", flush=True)


def command(machine: Machine, text: str, times: int = 5) -> None:
    def once() -> None:
        errors = Buffer()
        if machine.run(text, output=Buffer(), errors=errors):
            raise MachineError(f"{text!r} failed:\n{errors.read_all().decode(errors='replace')}")

    report(text.partition("\n")[0], [timed(once) for _ in range(times)], "ms")


def echo(machine: Machine, text: str) -> None:
    """Round trips of a long-lived worker: one at a time, then without waiting for answers."""
    line = b"x" * (LINE_SIZE - 1) + b"\n"
    worker = machine.start(text)

    def one() -> None:
        worker.write(line)
        worker.output.readline(60)

    def many() -> None:
        worker.write(line * LINES)
        worker.output.read(LINE_SIZE * LINES, 300)

    name = text.partition("\n")[0]
    report(
        f"{name}: a line of {LINE_SIZE} bytes there and back",
        [timed(one) for _ in range(300)],
        "ms",
    )
    each = [timed(many) / LINES for _ in range(3)]
    report(f"{name}: the same, {LINES} without waiting, each", each, "ms")
    worker.end_input()
    worker.wait(60)


def main() -> None:
    boots = []
    for _ in range(5):
        with Machine() as machine:
            boots.append(machine.boot_seconds)
    report("boot, until commands are taken", boots)
    with Machine() as machine:
        command(machine, "true")
        command(machine, f"{PYTHON} -c pass")
        command(machine, f"{PYTHON} -c 'import trio, construct'")
        command(machine, f"{PYTHON} -m pytest --version")
        command(machine, f"{PYTHON} -S -c '{COUNT}'")
        echo(machine, "cat")
        echo(machine, f"{PYTHON} -S -u -c '{ECHO}'")
