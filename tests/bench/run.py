# SPDX-License-Identifier: Apache-2.0
"""Benchmark: round trips through our binder device beside D-Bus, a socket and the FUSE floor.

Theory of operation. Five systems carry the same payload there and back, each between C programs
that keep to the public interface of that system:

  a  binder   BINDER_WRITE_READ on our device: client, our daemon, server
  b  dbus     a method `ay` -> `ay` over sd-bus and a private dbus-daemon: client, broker, server
  c  socket   ping-pong over a Unix stream socket pair: client, server, nobody between them
  d  floor    two FUSE ioctls that a C daemon answers without looking: a) cannot go below
  e  private  a) through device files that are bind-mounted alone: pages of the receiver's own

The long-lived ones (daemons and servers) are started once and idle while others are measured. In
every round all systems are measured one after the other, so that a disturbance hits all columns.
The table shows the median over the rounds of each round's median (p50). "one" core confines every
process that takes part to the same core, "any" leaves them to the scheduler.

Rules of the file: nothing may outlive the run. Children die with it (setpriv --pdeathsig), mounts
are made in a mount namespace that ends with it, everything else is on one ExitStack.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SOURCES = Path(__file__).resolve().parent
BUILD = SOURCES.parents[1] / "build" / "bench"
CFLAGS = ["-O2", "-Wall", "-Wextra", "-Werror"]

BINDER, DBUS, SOCKET, FLOOR, PRIVATE = "binder", "dbus", "socket", "floor", "private"
SYSTEMS = (BINDER, DBUS, SOCKET, FLOOR, PRIVATE)
SIZES = (16, 4096, 65536, 524288)
FLOOR_SIZE = 0  # the floor does not depend on the payload: measured once, shown in each row

READY_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 3.0
NUMBER_MAX = 1 << 22  # of processes, and more rounds than anybody waits for
CLIENT_SECONDS_EXTRA = 30.0  # beyond its nominal time, before a client counts as stuck

# <sched.h>, <sys/mount.h>
CLONE_NEWNS = 0x00020000
MS_REC = 0x4000
MS_PRIVATE = 0x40000


class BenchError(Exception):
    """Something outside this program is missing or went wrong; the text is for the user."""


# Section: what is measured


@dataclass(frozen=True, slots=True)
class Peer:
    """One system under test: the command that measures it and the processes behind it."""

    name: str
    call: tuple[str, ...]
    daemons: tuple[int, ...] = ()
    sizes: tuple[int, ...] = SIZES


@dataclass(frozen=True, slots=True)
class Target:
    """A figure to reach: `system` costs at most `ratio_max` times `other`, on one core."""

    size: int
    other: str
    ratio_max: float
    system: str = BINDER


TARGETS = (
    Target(16, DBUS, 1.3),
    Target(524288, DBUS, 0.3),
    Target(16, BINDER, 1.1, PRIVATE),
    Target(524288, BINDER, 2.5, PRIVATE),
    Target(524288, DBUS, 0.35, PRIVATE),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one client reported about one system in one round."""

    system: str
    size: int
    pinned: bool
    calls: int
    p50_us: float
    p99_us: float
    mean_us: float
    calls_per_s: float


class Results:
    """All samples of a run, asked for by cell of the table."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def p50_us(self, system: str, size: int, *, pinned: bool) -> float | None:
        """The median over the rounds; None for what was not measured."""
        wanted = (system, FLOOR_SIZE if system == FLOOR else size, pinned)
        found = [s.p50_us for s in self.samples if (s.system, s.size, s.pinned) == wanted]
        return statistics.median(found) if found else None

    def ratio(self, other: str, size: int, *, pinned: bool, system: str = BINDER) -> float | None:
        """How many times the cost of `other` a system costs."""
        ours = self.p50_us(system, size, pinned=pinned)
        theirs = self.p50_us(other, size, pinned=pinned)
        return ours / theirs if ours is not None and theirs is not None else None


# Section: processes


@contextlib.contextmanager
def running(
    command: Iterable[str], stdout: int | None = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command that ends at the latest with the block, or with this process."""
    bound = ["setpriv", "--pdeathsig", "KILL", "--", *command]
    # Not in our process group: Ctrl-C is for us alone, and we end them in the right order.
    process = subprocess.Popen(bound, stdin=subprocess.DEVNULL, stdout=stdout, process_group=0)
    try:
        yield process
    finally:
        for how in (signal.SIGTERM, signal.SIGKILL):
            process.send_signal(how)
            # One that stays blocked in a device ends with the daemon of it, which is next.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=STOP_SECONDS_MAX)
                break
        if process.stdout is not None:
            process.stdout.close()


def wait_for_line(process: subprocess.Popen[bytes], who: str) -> None:
    """Returns when the process has printed its first line, which says that it can be called."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], READY_SECONDS_MAX)
    if not ready or not process.stdout.readline():
        raise BenchError(f"{who} did not get ready")


def threads_of(pid: int) -> Iterator[int]:
    """Every thread of the process and of its descendants; nothing for a process that is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for tid in os.listdir(f"/proc/{pid}/task"):
            yield int(tid)
            for child in Path(f"/proc/{pid}/task/{tid}/children").read_text().split():
                yield from threads_of(int(child))


def confine(daemons: Iterable[int], cpus: set[int]) -> None:
    """Moves the daemons to these cores and, by inheritance, every client started from now on."""
    os.sched_setaffinity(0, cpus)
    for pid in daemons:
        for tid in threads_of(pid):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(tid, cpus)


def isolate_mounts() -> None:
    """From here on our mounts are seen by our children only and end with the last of us."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
        raise BenchError(f"no mount namespace of our own: {os.strerror(ctypes.get_errno())}")


# Section: building


def build(program: str, libraries: Iterable[str] = ()) -> str:
    """The path of the compiled program, made now if it is older than its sources."""
    source, binary = SOURCES / f"{program}.c", BUILD / program
    newest = max(path.stat().st_mtime for path in (source, SOURCES / "bench.h", Path(__file__)))
    if not binary.exists() or binary.stat().st_mtime < newest:
        BUILD.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CC", "cc")
        fresh = binary.with_name(f"{program}.{os.getpid()}")  # another run may be using the old one
        command = [compiler, *CFLAGS, "-o", str(fresh), str(source), *library_flags(libraries)]
        if subprocess.run(command).returncode != 0:
            raise BenchError(f"{source.name} does not compile; `make setup` installs what it needs")
        fresh.replace(binary)
    return str(binary)


def library_flags(libraries: Iterable[str]) -> list[str]:
    """Compiler flags of libraries by their pkg-config names."""
    flags: list[str] = []
    for library in libraries:
        command = ["pkg-config", "--cflags", "--libs", library]
        asked = subprocess.run(command, capture_output=True, text=True)
        if asked.returncode != 0:
            raise BenchError(f"{library} is not installed; `make setup` installs it")
        flags += asked.stdout.split()
    return flags


def need(*programs: str) -> None:
    """Ends the run early, with the name, when a program it relies on is missing."""
    for program in programs:
        if shutil.which(program) is None:
            raise BenchError(f"{program} is not installed; `make setup` installs it")


# Section: the four systems


@dataclass(frozen=True, slots=True)
class Stage:
    """What a system is set up with: a folder for its files, a stack that ends its processes."""

    folder: Path
    stack: contextlib.ExitStack
    device: Path | None
    daemon_pid: int | None


def start_binder(stage: Stage) -> Peer:
    """Our daemon (unless the device is there already) and an echo server as context manager."""
    device, daemon_pid = stage.device, stage.daemon_pid
    if device is None:
        device, daemon_pid = start_daemon(stage, BINDER)
    return start_echo(stage, BINDER, device, daemon_pid)


def start_private(stage: Stage) -> Peer:
    """A daemon of ours whose device is reached through a file that is bind-mounted alone."""
    device, daemon_pid = start_daemon(stage, PRIVATE)
    bound = stage.folder / "alone"
    bound.touch()
    subprocess.run(["mount", "--bind", str(device), str(bound)], check=True)
    unmount = ["umount", "--lazy", "--no-canonicalize", str(bound)]
    stage.stack.callback(subprocess.run, unmount, stderr=subprocess.DEVNULL)
    return start_echo(stage, PRIVATE, bound, daemon_pid)


def start_echo(stage: Stage, system: str, device: Path, daemon_pid: int | None) -> Peer:
    """An echo server on a device of ours."""
    program = build("binder_echo")
    server = stage.stack.enter_context(running([program, "serve", str(device)]))
    wait_for_line(server, f"the echo server on {device}")
    daemons = (server.pid,) if daemon_pid is None else (daemon_pid, server.pid)
    return Peer(system, (program, "call", str(device)), daemons)


def start_daemon(stage: Stage, name: str) -> tuple[Path, int]:
    """Our daemon, run by the Python that runs this file; opening its device waits for it."""
    mount_point = stage.folder / name
    mount_point.mkdir()
    unmount = ["umount", "--lazy", "--no-canonicalize", str(mount_point)]
    stage.stack.callback(subprocess.run, unmount, stderr=subprocess.DEVNULL)
    command = [sys.executable, "-m", "binderd", "--mount", str(mount_point)]
    # Its output goes to our standard error: standard output is for the results.
    daemon = stage.stack.enter_context(running(command, stdout=sys.stderr.fileno()))
    give_up = time.monotonic() + READY_SECONDS_MAX
    while not is_mounted(mount_point):
        if daemon.poll() is not None:
            raise BenchError(f"binderd ended with status {daemon.returncode}")
        if time.monotonic() > give_up:
            raise BenchError(f"binderd has mounted nothing after {READY_SECONDS_MAX:.0f} s")
        time.sleep(0.02)
    return mount_point / "binder", daemon.pid


def is_mounted(mount_point: Path) -> bool:
    """Asks the kernel's list: a look at the folder itself would block on a daemon that hangs."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return any(mount.split()[1] == str(mount_point) for mount in mounts)


def start_dbus(stage: Stage) -> Peer:
    """A session bus as the distribution sets it up, on a socket of our own, with an echo server."""
    need("dbus-daemon")
    program = build("dbus_echo", ["libsystemd"])
    address = f"unix:path={stage.folder / 'bus'}"
    options = ["--nofork", "--nopidfile", "--nosyslog", "--print-address=1"]
    command = ["dbus-daemon", "--session", f"--address={address}", *options]
    bus = stage.stack.enter_context(running(command))
    wait_for_line(bus, "dbus-daemon")
    server = stage.stack.enter_context(running([program, "serve", address]))
    wait_for_line(server, "the echo server on D-Bus")
    return Peer(DBUS, (program, "call", address), (bus.pid, server.pid))


def start_socket(_stage: Stage) -> Peer:
    """Nothing to start: the client forks the other side, which inherits its cores."""
    return Peer(SOCKET, (build("socket_echo"), "call"))


def start_floor(stage: Stage) -> Peer:
    """Nothing to start either: the client forks the FUSE daemon and mounts it for itself."""
    mount_point = stage.folder / "floor"
    mount_point.mkdir()
    return Peer(FLOOR, (build("fuse_floor"), "call", str(mount_point)), sizes=(FLOOR_SIZE,))


STARTERS: dict[str, Callable[[Stage], Peer]] = {
    BINDER: start_binder,
    DBUS: start_dbus,
    SOCKET: start_socket,
    FLOOR: start_floor,
    PRIVATE: start_private,
}


# Section: measuring


def measure(peer: Peer, size: int, seconds: float, *, pinned: bool) -> Sample:
    """One client run. The cores are the ones that `confine` set last."""
    arguments = [f"{seconds}"] if peer.name == FLOOR else [f"{size}", f"{seconds}"]
    with running([*peer.call, *arguments]) as client:
        try:
            output, _ = client.communicate(timeout=2 * seconds + CLIENT_SECONDS_EXTRA)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{peer.name} at {size} bytes does not come to an end") from None
        if client.returncode != 0:
            raise BenchError(f"{peer.name} at {size} bytes failed (status {client.returncode})")
    reported = json.loads(output)
    return Sample(system=peer.name, pinned=pinned, **reported)


def run_round(peers: list[Peer], seconds: float, cpus: set[int], results: Results) -> None:
    """Every system at every size, on one core and on all; the systems alternate inside a size."""
    daemons = [pid for peer in peers for pid in peer.daemons]
    for pinned in (True, False):
        confine(daemons, {min(cpus)} if pinned else cpus)
        for size in (*SIZES, FLOOR_SIZE):
            for peer in peers:
                if size in peer.sizes:
                    results.samples.append(measure(peer, size, seconds, pinned=pinned))


# Section: reporting


def describe_machine(settings: argparse.Namespace) -> dict[str, str]:
    """What a figure is worth nothing without."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    if settings.device is None:
        python += f" ({os.path.realpath(sys.executable)})"
    elif settings.daemon_pid is not None:
        python = program_of(settings.daemon_pid)
    else:
        python = "unknown, and not confined to a core: the device was there already"
    return {
        "python of the daemon": python,
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu": f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores usable",
        "load before the run": f"{os.getloadavg()[0]:.2f}",
    }


def program_of(pid: int) -> str:
    """The file that a process runs."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError as error:
        raise BenchError(f"--daemon-pid {pid}: {error.strerror}") from None


def cpu_model() -> str:
    """The name in /proc/cpuinfo; not every architecture has one."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def table(results: Results) -> list[str]:
    """The Markdown table: a row for each size and core setting, microseconds and ratios."""
    names = ["binder", "dbus", "socket", "floor", "private"]
    heads = [f"{letter} {name} µs" for letter, name in zip("abcde", names, strict=True)]
    lines = [
        f"| payload | core | {' | '.join(heads)} | a/b | a/c | a/d | e/a |",
        f"|--:|:--{'|--:' * (len(heads) + 4)}|",
    ]
    for pinned in (True, False):
        for size in SIZES:
            costs = [results.p50_us(system, size, pinned=pinned) for system in SYSTEMS]
            ratios = [results.ratio(o, size, pinned=pinned) for o in (DBUS, SOCKET, FLOOR)]
            ratios.append(results.ratio(BINDER, size, pinned=pinned, system=PRIVATE))
            cells = [payload_name(size), "one" if pinned else "any"]
            cells += ["–" if cost is None else f"{cost:.1f}" for cost in costs]
            cells += ["–" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def payload_name(size: int) -> str:
    """16 B, 4 KiB."""
    return f"{size} B" if size < 1024 else f"{size // 1024} KiB"


def judge(results: Results) -> list[dict[str, str | float | None]]:
    """Each target with the ratio reached, and pass, miss or not measured."""
    verdicts: list[dict[str, str | float | None]] = []
    for target in TARGETS:
        ratio = results.ratio(target.other, target.size, pinned=True, system=target.system)
        verdict = "not measured"
        if ratio is not None:
            verdict = "pass" if ratio <= target.ratio_max else "miss"
        limit = f"{target.ratio_max} × {target.other}"
        what = f"one core, {payload_name(target.size)}: {target.system} ≤ {limit}"
        verdicts.append({"target": what, "ratio": ratio, "verdict": verdict})
    return verdicts


def print_report(results: Results, machine: dict[str, str], settings: argparse.Namespace) -> None:
    """The whole report on standard output, as Markdown or as one JSON document."""
    if settings.json:
        report = {
            "machine": machine,
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "samples": [asdict(sample) for sample in results.samples],
            "targets": judge(results),
        }
        print(json.dumps(report, indent=2))
        return
    for key, value in machine.items():
        print(f"{key}: {value}")
    measured = f"{settings.rounds} round(s) of {settings.seconds:g} s"
    print(f"round trips, median (p50) of {measured}; d is a pair of no-op ioctls\n")
    print("\n".join(table(results)))
    print()
    for verdict in judge(results):
        ratio = verdict["ratio"]
        reached = "" if ratio is None else f" ({ratio:.2f})"
        print(f"target: {verdict['target']}: {verdict['verdict']}{reached}")


# Section: the command


def parse_arguments() -> argparse.Namespace:
    """The command line, checked as far as that needs nothing else."""
    description, _, theory = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="bench",
        description=description,
        epilog=theory.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--rounds",
        type=count,
        default=5,
        metavar="N",
        help="rounds to take the median of (%(default)s)",
    )
    add(
        "--seconds",
        type=duration,
        default=0.5,
        metavar="S",
        help="length of each measurement, after a warm-up of a fifth of it (%(default)s)",
    )
    add(
        "--only",
        type=systems,
        default=list(SYSTEMS),
        metavar="NAMES",
        help=f"the systems to measure, separated by commas, out of {','.join(SYSTEMS)}",
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
        help="the daemon behind --device: without it nobody can confine that daemon to one core",
    )
    add("--json", action="store_true", help="print every sample as JSON instead of the table")
    return parser.parse_args()


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


def systems(text: str) -> list[str]:
    """Names of systems in the order of the table, for argparse."""
    names = text.split(",")
    unknown = sorted(set(names) - set(SYSTEMS))
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(SYSTEMS)}")
    return [system for system in SYSTEMS if system in names]


def run(settings: argparse.Namespace) -> None:
    """The whole benchmark; whatever happens, nothing of it is left when this returns."""
    need("setpriv", os.environ.get("CC", "cc"), "pkg-config")
    machine = describe_machine(settings)
    cpus = os.sched_getaffinity(0)
    results = Results()
    mounts = FLOOR in settings.only or (BINDER in settings.only and settings.device is None)
    if mounts:
        if os.geteuid() != 0:
            raise BenchError("needs root for its FUSE mounts; without: --only dbus,socket")
        isolate_mounts()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="binderd-bench-")))
        stage = Stage(folder, stack, settings.device, settings.daemon_pid)
        peers = [STARTERS[name](stage) for name in settings.only]
        for number in range(settings.rounds):
            print(f"round {number + 1} of {settings.rounds}", file=sys.stderr, flush=True)
            # Every other round backwards, so that no system always follows the same neighbour.
            order = peers if number % 2 == 0 else peers[::-1]
            run_round(order, settings.seconds, cpus, results)
    print_report(results, machine, settings)


def end_orderly(number: int, _frame: object) -> NoReturn:
    """A signal unwinds the stack like an error, and none interrupts the unwinding."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> None:
    settings = parse_arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_orderly)
    try:
        run(settings)
        sys.stdout.flush()
    except (BenchError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at its end
        raise SystemExit(f"bench: {error}") from None


if __name__ == "__main__":
    main()
