# SPDX-License-Identifier: Apache-2.0
"""Benchmark: calls through our binder device beside message buses, a socket and the FUSE floor.

Theory of operation. Each system of systems.py carries the same payload there and back, between C
programs that keep to the public interface of that system. Three things are measured: `calls`, one
client's round trips at each size; `load`, eight clients of two servers at once; `idle`, what a
thousand processes that do nothing take of a daemon and cost the others.

The long-lived processes (daemons and servers) are started once and idle while others are measured.
The tables show the median over the rounds of each round's figure. "one" core confines every process
that takes part to the same core, "any" leaves them to the scheduler. Processor time is that of all
processes that take part. Runs can be put together: --json of each into a file, then --from FILES.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import machine, picture, results
from bench.errors import BenchError, Missing
from bench.measuring import PARTS, run_round
from bench.orderly import run_orderly
from bench.processes import allow_files, isolate_mounts
from bench.programs import compiler, need
from bench.publish import publish
from bench.report import report
from bench.systems import BINDER, BY_NAME, Stage
from bench.targets import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bench.systems import Peer

NUMBER_MAX: Final = 1 << 22  # of processes, and more rounds than anybody waits for
CROWD_MAX: Final = 20_000
CROWD: Final = 1000


def parse_arguments() -> argparse.Namespace:
    """The command line, checked as far as that needs nothing else."""
    description, _, theory = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="bench",
        description=description,
        epilog=theory.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_what(parser)
    add_how(parser)
    return parser.parse_args()


def add_what(parser: argparse.ArgumentParser) -> None:
    """Arguments that say what is measured."""
    add = parser.add_argument
    add("--rounds", type=count, default=5, metavar="N", help="to take the median of (%(default)s)")
    add(
        "--seconds",
        type=duration,
        default=0.5,
        metavar="S",
        help="length of each measurement, after a warm-up of a fifth of it (%(default)s)",
    )
    add(
        "--only",
        type=names_of(BY_NAME),
        metavar="NAMES",
        help=f"the systems to measure, separated by commas, out of {','.join(BY_NAME)} "
        "(all that are there)",
    )
    add(
        "--parts",
        type=names_of(PARTS),
        default=list(PARTS),
        metavar="NAMES",
        help=f"what to measure of them, out of {','.join(PARTS)}",
    )
    add(
        "--processes",
        type=count,
        default=CROWD,
        metavar="N",
        help="so many idle ones (%(default)s)",
    )
    add(
        "--device",
        type=Path,
        metavar="PATH",
        help="measure this binder device, which must have no context manager yet, "
        "instead of one of a daemon started for the run",
    )
    add(
        "--daemon-pid",
        type=count,
        metavar="PID",
        help="the daemon behind --device: without it nobody can confine that daemon to one core, "
        "or tell what it takes",
    )


def add_how(parser: argparse.ArgumentParser) -> None:
    """Arguments that say what becomes of it."""
    add = parser.add_argument
    add("--json", action="store_true", help="print everything as JSON instead of the tables")
    add("--svg", type=Path, metavar="FILE", help="draw a picture of the round trips as well")
    add("--publish", action="store_true", help="put the results into README.md and docs as well")
    add(
        "--from",
        dest="earlier",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="measure nothing: take what --json printed in earlier runs, all together",
    )


def count(text: str) -> int:
    """A whole number from 1, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= NUMBER_MAX:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {NUMBER_MAX}")
    return number


def duration(text: str) -> float:
    """Seconds above 0, for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError("must be above 0 and at most 3600")
    return seconds


def names_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A list of such names, in their own order, for argparse."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return [name for name in known if name in names]

    return parse


def measure(settings: argparse.Namespace) -> results.Results:
    """The whole benchmark; whatever happens, nothing of it is left when this returns."""
    need("setpriv", compiler(), "pkg-config")
    if settings.processes > CROWD_MAX:
        raise BenchError(f"--processes: at most {CROWD_MAX}")
    found = results.Results(machine.describe(settings.device, settings.daemon_pid))
    cpus = os.sched_getaffinity(0)
    allow_files()
    if any(needs_root(name, settings.device) for name in settings.only or BY_NAME):
        if os.geteuid() != 0:
            raise BenchError("needs root for its FUSE mounts; without: --only dbus,broker,socket")
        isolate_mounts()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="binderd-bench-")))
        stage = Stage(folder, stack, settings.device, settings.daemon_pid)
        peers = list(start(settings.only, stage))
        for number in range(settings.rounds):
            print(f"round {number + 1} of {settings.rounds}", file=sys.stderr, flush=True)
            # Every other round backwards, so that no system always follows the same neighbour.
            order = peers if number % 2 == 0 else peers[::-1]
            run_round(order, settings.parts, settings.seconds, settings.processes, cpus, found)
    return found


def start(names: list[str] | None, stage: Stage) -> Iterator[Peer]:
    """The systems of that name, or all for which everything is there."""
    for name in names or BY_NAME:
        try:
            yield BY_NAME[name].start(stage)
        except Missing as error:
            if names:
                raise
            print(f"left out: {error}", file=sys.stderr)


def needs_root(name: str, device: Path | None) -> bool:
    """Whether a system mounts something."""
    return BY_NAME[name].needs_root and not (name == BINDER and device is not None)


def run(settings: argparse.Namespace) -> None:
    """Measures, or reads what was measured, and shows it."""
    if settings.earlier:
        found = results.Results()
        for path in settings.earlier:
            found.add(results.read(path))
    else:
        found = measure(settings)
    if settings.svg:
        settings.svg.write_text(picture.draw(found), encoding="utf-8")
    if settings.publish:
        publish(found)
    if settings.json:
        print(json.dumps({**found.as_json(), "targets": judge(found)}, indent=2))
    else:
        print(report(found))


if __name__ == "__main__":
    run_orderly("bench", lambda: run(parse_arguments()))
