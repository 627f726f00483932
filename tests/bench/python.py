# SPDX-License-Identifier: Apache-2.0
"""Benchmark: a short text there and back between Python programs, with binderclient and with D-Bus.

Each row is a client and a service in Python, one process each, written as the library's users would
(tests/bench/pythons). What is between them is our daemon for the flavours of binderclient, and a
private dbus-daemon for the others:

  blocking   binderclient: the main threads call and serve, with parcels
  interface  the same with @interface and as_interface instead of parcels
  pool       the same as blocking, but a thread of the pool serves
  trio       tasks call and serve
  asyncio    tasks call and serve
  dbus-fast  tasks call and serve, with a proxy and a service interface
  jeepney    blocking
  sdbus      a blocking client of an asynchronous service

The text is "hello": a String16 with the interface's token before it, a D-Bus method `s` -> `s`. In
every round all of them are measured one after the other, every other round backwards. The table
shows medians over the rounds. "one" core confines every process that takes part to the same core,
"any" leaves them to the scheduler.

The libraries for D-Bus are of fixed versions, in a virtual environment of the bench's own, which
pip makes the first time (build/bench/pythons).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.errors import BenchError
from bench.machine import cpu_model, said_by
from bench.measuring import CLIENT_SECONDS_EXTRA
from bench.orderly import run_orderly
from bench.processes import (
    READY_SECONDS_MAX,
    confine,
    isolate_mounts,
    running,
    wait_for_line,
)
from bench.programs import BUILD, need
from bench.report import number as shown
from bench.report import table as table_of
from bench.run import count, duration, names_of
from bench.systems import Stage, is_mounted, unmount_with

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS: Final = Path(__file__).resolve().parent / "pythons"
# The systems, and the program of each.
OURS: Final = {
    "blocking": "blocking.py",
    "interface": "interface.py",
    "pool": "pool.py",
    "trio": "trios.py",
    "asyncio": "aio.py",
}
THEIRS: Final = {"dbus-fast": "fast.py", "jeepney": "jeepneys.py", "sdbus": "sdbuses.py"}
SYSTEMS: Final = (*OURS, *THEIRS)
REFERENCE: Final = "dbus-fast"  # that the others are set against
VERSIONS: Final = ("dbus-fast==5.2.0", "jeepney==0.9.0", "sdbus==0.14.3")
INSTALL_SECONDS_MAX: Final = 300.0


@dataclass(frozen=True, slots=True)
class Peer:
    """One row: the command of its client, and the processes behind it."""

    system: str
    call: tuple[str, ...]
    daemons: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one client reported in one round."""

    system: str
    pinned: bool
    calls: int
    p50_us: float
    p99_us: float
    mean_us: float
    calls_per_s: float


# Section: what the libraries for D-Bus live in


def libraries() -> str:
    """Return the interpreter of the environment that has them; made if it is not there.

    Raises:
        BenchError: pip cannot get them.
    """
    place = Path(os.environ.get("BINDERD_BENCH_LIBRARIES", BUILD)) / "pythons"
    stamp, wanted = place / "versions", "\n".join((sys.version, *VERSIONS))
    interpreter = place / "bin" / "python"
    if interpreter.exists() and stamp.exists() and stamp.read_text() == wanted:
        return str(interpreter)
    print(f"installing {', '.join(VERSIONS)} into {place}", file=sys.stderr, flush=True)
    shutil.rmtree(place, ignore_errors=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *VERSIONS]
    for command in ([sys.executable, "-m", "venv", str(place)], [str(interpreter), *install]):
        _run_to_its_end(command)
    stamp.write_text(wanted)
    return str(interpreter)


def _run_to_its_end(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        said = f"nothing for {INSTALL_SECONDS_MAX:.0f} s"
    else:
        if done.returncode == 0:
            return
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    raise BenchError(
        f"dbus-fast, jeepney and sdbus cannot be installed ({said}); "
        f"without them: --only {','.join(OURS)}"
    )


# Section: starting


def start_ours(stage: Stage, systems: list[str]) -> list[Peer]:
    """One daemon with a device for each flavour, and a service on each."""
    if not systems:
        return []
    mount_point = stage.folder / "mount"
    mount_point.mkdir()
    unmount_with(stage, mount_point)
    command = [sys.executable, "-m", "binderd", "--mount", str(mount_point)]
    command += [f"--device={system}" for system in systems]
    daemon = stage.stack.enter_context(running(command, stdout=sys.stderr.fileno()))
    give_up = time.monotonic() + READY_SECONDS_MAX
    while not is_mounted(mount_point):
        if daemon.poll() is not None:
            raise BenchError(f"binderd ended with status {daemon.returncode}")
        if time.monotonic() > give_up:
            raise BenchError(f"binderd has mounted nothing after {READY_SECONDS_MAX:.0f} s")
        time.sleep(0.02)
    return [
        start(stage, system, sys.executable, OURS[system], str(mount_point / system), daemon.pid)
        for system in systems
    ]


def start_theirs(stage: Stage, systems: list[str]) -> list[Peer]:
    """One bus, as the distribution sets a session's up, and a service of each library on it."""
    if not systems:
        return []
    need("dbus-daemon")
    interpreter = libraries()
    address = f"unix:path={stage.folder / 'bus'}"
    options = ["--nofork", "--nopidfile", "--nosyslog", "--print-address=1"]
    command = ["dbus-daemon", "--session", f"--address={address}", *options]
    bus = stage.stack.enter_context(running(command))
    wait_for_line(bus, "dbus-daemon")
    return [
        start(stage, system, interpreter, THEIRS[system], address, bus.pid) for system in systems
    ]


def start(
    stage: Stage, system: str, interpreter: str, program: str, address: str, between: int
) -> Peer:
    """A service; what is between it and its clients has the number ``between``."""
    command = [interpreter, str(PROGRAMS / program)]
    service = stage.stack.enter_context(running([*command, "serve", address]))
    wait_for_line(service, f"the service of {system}")
    return Peer(system, (*command, "call", address), (between, service.pid))


# Section: measuring


def measure(peer: Peer, seconds: float, *, pinned: bool) -> Sample:
    """One client run. The cores are the ones that ``confine`` set last."""
    with running([*peer.call, f"{seconds}"]) as client:
        try:
            output, _ = client.communicate(timeout=2 * seconds + CLIENT_SECONDS_EXTRA)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{peer.system} does not come to an end") from None
        if client.returncode != 0:
            raise BenchError(f"{peer.system} failed (status {client.returncode})")
    return Sample(system=peer.system, pinned=pinned, **json.loads(output))


def run_round(peers: list[Peer], seconds: float, cpus: set[int]) -> list[Sample]:
    """Every system on one core, then on all."""
    daemons = {pid for peer in peers for pid in peer.daemons}
    samples = []
    for pinned in (True, False):
        confine(daemons, {min(cpus)} if pinned else cpus)
        samples += [measure(peer, seconds, pinned=pinned) for peer in peers]
    return samples


# Section: reporting


def median_of(
    samples: list[Sample], system: str, figure: Callable[[Sample], float], *, pinned: bool
) -> float | None:
    """The median over the rounds; None for what was not measured."""
    found = [figure(each) for each in samples if (each.system, each.pinned) == (system, pinned)]
    return statistics.median(found) if found else None


def table(samples: list[Sample]) -> str:
    """The Markdown table: a row for each system, microseconds and ratios to REFERENCE."""
    heads = [f"{core}: {name}" for core in ("one", "any") for name in ("p50 µs", "p99 µs", "/ ref")]
    rows = []
    for system in SYSTEMS:
        cells = [system]
        for pinned in (True, False):
            half = median_of(samples, system, lambda each: each.p50_us, pinned=pinned)
            most = median_of(samples, system, lambda each: each.p99_us, pinned=pinned)
            other = median_of(samples, REFERENCE, lambda each: each.p50_us, pinned=pinned)
            ratio = half / other if half is not None and other is not None else None
            cells += [shown(half, 1), shown(most, 1), shown(ratio, 2)]
        rows.append(cells)
    return table_of(["system", *heads], rows, texts=1)


def describe_machine() -> dict[str, str]:
    """What a figure is worth nothing without."""
    return {
        "daemon": said_by(sys.executable, "-m", "binderd", "--version") or "none",
        "python": f"{sys.version.split()[0]} ({os.path.realpath(sys.executable)})",
        "libraries": ", ".join(VERSIONS),
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        "cpu": f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores usable",
        "load before the run": f"{os.getloadavg()[0]:.2f}",
    }


def print_report(
    samples: list[Sample], machine: dict[str, str], settings: argparse.Namespace
) -> None:
    """The report on standard output, as Markdown or as one JSON document."""
    if settings.json:
        report = {
            "machine": machine,
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "samples": [asdict(sample) for sample in samples],
        }
        print(json.dumps(report, indent=2))
        return
    for key, value in machine.items():
        print(f"{key}: {value}")
    print(f"round trips of a text; medians of {settings.rounds} round(s) of {settings.seconds:g} s")
    print(f"ref: p50 of {REFERENCE}\n")
    print(table(samples))


# Section: the command


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    description, _, theory = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="bench-python",
        description=description,
        epilog=theory.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=count, default=5, metavar="N", help="(%(default)s)")
    add(
        "--seconds",
        type=duration,
        default=0.5,
        metavar="S",
        help="length of each measurement, after a warm-up of a fifth of it (%(default)s)",
    )
    add(
        "--only",
        type=names_of(SYSTEMS),
        default=list(SYSTEMS),
        metavar="NAMES",
        help=f"the systems to measure, separated by commas, out of {','.join(SYSTEMS)}",
    )
    add("--json", action="store_true", help="print every sample as JSON instead of the table")
    return parser.parse_args()


def run(settings: argparse.Namespace) -> None:
    """The whole benchmark; whatever happens, nothing of it is left when this returns."""
    need("setpriv")
    ours = [system for system in settings.only if system in OURS]
    theirs = [system for system in settings.only if system in THEIRS]
    machine = describe_machine()
    cpus = os.sched_getaffinity(0)
    if ours:
        if os.geteuid() != 0:
            raise BenchError(f"needs root for its mount; without: --only {','.join(THEIRS)}")
        isolate_mounts()
    samples: list[Sample] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="binderd-bench-")))
        stage = Stage(folder, stack)
        peers = start_theirs(stage, theirs) + start_ours(stage, ours)
        for number in range(settings.rounds):
            print(f"round {number + 1} of {settings.rounds}", file=sys.stderr, flush=True)
            order = peers if number % 2 == 0 else peers[::-1]
            samples += run_round(order, settings.seconds, cpus)
    print_report(samples, machine, settings)


if __name__ == "__main__":
    run_orderly("bench-python", lambda: run(parse_arguments()))
