# SPDX-License-Identifier: Apache-2.0
"""``make fuzz-vm``: random scripts on the engine and on Linux's own driver, compared.

Exit status: 0: they agree, 1: they differ, 125: no machine, or it broke.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from oracle import script
from oracle.compare import Difference, Played, difference, shrink
from oracle.driver_player import PROGRAM, DriverError, DriverPlayer
from oracle.generator import Generator
from vm.errors import MachineError

if TYPE_CHECKING:
    from oracle.program import Result

AHEAD: Final = 40  # scripts that are on their way
PROGRESS_SECONDS: Final = 10.0
MACHINE_STATUS: Final = 125


class Case(NamedTuple):
    seed: int
    played: Played


def make_case(seed: int) -> Case:
    """Make the script of a seed; playing it is part of that."""
    generator = Generator(seed)
    steps = generator.make()
    player = generator.player
    player.finish()
    return Case(seed, Played(steps, player.operations, player.expected, generator.ends))


class Run:
    """Some scripts and what came of them."""

    def __init__(self, driver: DriverPlayer, differences_max: int, *, shrinking: bool) -> None:
        self._driver = driver
        self._shrinking = shrinking
        self._differences_max = differences_max
        self.scripts = self.steps = self.compared = 0
        self.differences: list[tuple[Case, Difference]] = []

    def play(self, first: int, count: int) -> None:
        started = told = time.monotonic()
        waiting: deque[Case] = deque()
        for seed in range(first, first + count):
            waiting.append(make_case(seed))
            self._driver.send(waiting[-1].played.operations)
            if len(waiting) > AHEAD:
                self._take(waiting.popleft())
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                say(f"{self.scripts} scripts in {told - started:.0f} s: {self.summary()}")
            if len(self.differences) >= self._differences_max:
                break
        while waiting:
            self._take(waiting.popleft())
        say(f"{self.scripts} scripts in {time.monotonic() - started:.0f} s: {self.summary()}")

    def _take(self, case: Case) -> None:
        try:
            results = self._driver.receive(case.played.operations)
        except (DriverError, MachineError) as error:
            raise MachineError(f"{error}\nwith the script of seed {case.seed}") from None
        self.scripts += 1
        self.steps += len(case.played.script)
        self.compared += len(results)
        found = difference(case.played, results)
        if found is not None and len(self.differences) < self._differences_max:
            self.differences.append((case, found))

    def report(self) -> None:
        """Tell of each difference, made as small as possible."""

        def oracle(played: Played) -> list[Result]:
            self._driver.send(played.operations)
            return self._driver.receive(played.operations)

        for case, found in self.differences:
            say(f"\n=== seed {case.seed} differs (again: make fuzz-vm CASES=1 SEED={case.seed})")
            steps = case.played.script[: found.step + 1]
            smallest = shrink(steps, oracle) if self._shrinking else None
            if self._shrinking and smallest is None:
                say("but not a second time: something is left to chance")
            steps, found = smallest or (steps, found)
            say(script.text(steps))
            say(str(found))
            place = PROGRAM.with_name(f"{case.seed}.script")
            place.write_text("".join(f"{step!r}\n" for step in steps))
            say(f"kept in {place}")

    def summary(self) -> str:
        return f"{self.steps} steps, {self.compared} results, {len(self.differences)} differences"


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="oracle", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=500, help="how many scripts")
    parser.add_argument("--seed", type=int, default=1, help="of the first; the next has the next")
    parser.add_argument("--differences", type=int, default=5, help="how many before it stops")
    parser.add_argument("--no-shrinking", action="store_true")
    arguments = parser.parse_args()
    if arguments.cases < 1 or arguments.differences < 1 or arguments.seed < 0:
        parser.error("--cases and --differences: at least 1; --seed: at least 0")
    try:
        with DriverPlayer() as driver:
            say(f"machine ready after {driver.boot_seconds:.1f} s")
            run = Run(driver, arguments.differences, shrinking=not arguments.no_shrinking)
            run.play(arguments.seed, arguments.cases)
            run.report()
            return 1 if run.differences else 0
    except MachineError as error:
        say(f"fuzz-vm: {error}")
        return MACHINE_STATUS
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
