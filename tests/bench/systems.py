# SPDX-License-Identifier: Apache-2.0
"""The systems that are measured: a row of SYSTEMS each, and how each is started.

A system is measured by programs that keep to its public interface. `start` brings up what lives
long (a daemon, servers) and says with which commands it is measured: each takes a size and seconds
as its last arguments and prints the line of results of bench.h. One more system is one more row.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.errors import BenchError
from bench.processes import READY_SECONDS_MAX, running, wait_for_line
from bench.programs import broker, build, need

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

SIZES: Final = (16, 4096, 65536, 524288)  # bytes, there and back
FLOOR_SIZE: Final = 0  # the floor does not depend on the payload: measured once, shown in each row

BINDER: Final = "binder"
PRIVATE: Final = "private"
DBUS: Final = "dbus"
BROKER: Final = "broker"
SOCKET: Final = "socket"
FLOOR: Final = "floor"
LANE: Final = "lane"


@dataclass(frozen=True, slots=True)
class Stage:
    """What a system is set up with: a folder for its files, a stack that ends its processes.

    `device` and `daemon_pid` are of a binder device that is there already, as the user named it.
    """

    folder: Path
    stack: contextlib.ExitStack
    device: Path | None = None
    daemon_pid: int | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """A system that has been started.

    Attributes:
        name: of its row.
        calls: a command for each server; the first is also what round trips are measured with.
        daemons: process ids of what is between client and server; their children count as well.
        servers: process ids.
        idle: the command that, with a number, starts so many processes that do nothing.
    """

    name: str
    calls: tuple[tuple[str, ...], ...]
    daemons: tuple[int, ...] = ()
    servers: tuple[int, ...] = ()
    idle: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class System:
    """A row: what a system is, for people, and how it is started.

    Attributes:
        name: for the command line and in JSON.
        title: in tables and pictures.
        about: what it is, in half a sentence.
        start: brings it up.
        sizes: payloads in bytes.
        needs_root: it mounts something.
        is_ours: it is a way through our daemon.
        is_loaded: throughput and idle processes are measured as well.
    """

    name: str
    title: str
    about: str
    start: Callable[[Stage], Peer]
    sizes: tuple[int, ...] = SIZES
    needs_root: bool = False
    is_ours: bool = False
    is_loaded: bool = False


def start_binder(stage: Stage) -> Peer:
    """Our daemon (unless the device is there already) and its servers."""
    device, daemon_pid = stage.device, stage.daemon_pid
    if device is None:
        device, daemon_pid = start_daemon(stage, BINDER)
    return start_servers(stage, BINDER, device, daemon_pid)


def start_private(stage: Stage) -> Peer:
    """A daemon of ours whose device is reached through a file that is bind-mounted alone."""
    device, daemon_pid = start_daemon(stage, PRIVATE)
    bound = stage.folder / "alone"
    bound.touch()
    subprocess.run(["mount", "--bind", str(device), str(bound)], check=True)
    unmount_with(stage, bound)
    return start_servers(stage, PRIVATE, bound, daemon_pid)


def start_lane(stage: Stage) -> Peer:
    """A daemon of ours, and servers that use lanes as their clients do."""
    device, daemon_pid = start_daemon(stage, LANE)
    return start_servers(stage, LANE, device, daemon_pid, "lane")


def start_servers(
    stage: Stage, system: str, device: Path, daemon_pid: int | None, *how: str
) -> Peer:
    """A context manager that echoes, and a second server whose handle it gives out."""
    program = (build("binder_echo"), *how)
    servers = tuple(
        start_server(stage, [*program, role, str(device)], f"{device} ({role})")
        for role in ("serve", "join")
    )
    calls = tuple((*program, command, str(device)) for command in ("call", "second"))
    daemons = () if daemon_pid is None else (daemon_pid,)
    return Peer(system, calls, daemons, servers, (*program, "idle", str(device)))


def start_server(stage: Stage, command: list[str], where: str) -> int:
    """A server that can be called when this returns its process id."""
    server = stage.stack.enter_context(running(command))
    wait_for_line(server, f"the echo server on {where}")
    return server.pid


def start_daemon(stage: Stage, name: str) -> tuple[Path, int]:
    """Our daemon, run by the Python that runs this file; opening its device waits for it."""
    mount_point = stage.folder / name
    mount_point.mkdir()
    unmount_with(stage, mount_point)
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


def unmount_with(stage: Stage, path: Path) -> None:
    """What is mounted there by then is unmounted with the stage."""
    unmount = ["umount", "--lazy", "--no-canonicalize", str(path)]
    stage.stack.callback(subprocess.run, unmount, stderr=subprocess.DEVNULL)


def is_mounted(mount_point: Path) -> bool:
    """Asks the kernel's list: a look at the folder itself would block on a daemon that hangs."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return any(mount.split()[1] == str(mount_point) for mount in mounts)


def start_dbus(stage: Stage) -> Peer:
    """A session bus as the distribution sets it up, on a socket of our own, with echo servers."""
    need("dbus-daemon")
    address = f"unix:path={stage.folder / 'bus'}"
    options = ["--nofork", "--nopidfile", "--nosyslog", "--print-address=1"]
    command = ["dbus-daemon", "--session", f"--address={address}", *options]
    bus = stage.stack.enter_context(running(command))
    wait_for_line(bus, "dbus-daemon")
    return start_on_bus(stage, DBUS, address, bus.pid)


def start_broker(stage: Stage) -> Peer:
    """dbus-broker, with its controller, which counts as a part of it and has nothing to do."""
    program = broker()
    path = stage.folder / "broker"
    command = [build("broker", ["libsystemd"]), str(path), program]
    bus = stage.stack.enter_context(running(command))
    wait_for_line(bus, "dbus-broker")
    return start_on_bus(stage, BROKER, f"unix:path={path}", bus.pid)


def start_on_bus(stage: Stage, system: str, address: str, bus: int) -> Peer:
    """Two echo servers on a message bus."""
    program = build("dbus_echo", ["libsystemd"])
    names = ("bench.Echo.first", "bench.Echo.second")
    servers = tuple(
        start_server(stage, [program, "serve", address, name], f"{system}, {name}")
        for name in names
    )
    calls = tuple((program, "call", address, name) for name in names)
    return Peer(system, calls, (bus,), servers, (program, "idle", address))


def start_socket(_stage: Stage) -> Peer:
    """Nothing to start: the client forks the other side, which inherits its cores."""
    return Peer(SOCKET, ((build("socket_echo"), "call"),))


def start_floor(stage: Stage) -> Peer:
    """Nothing to start either: the client forks the FUSE daemon and mounts it for itself."""
    mount_point = stage.folder / "floor"
    mount_point.mkdir()
    return Peer(FLOOR, ((build("fuse_floor"), "call", str(mount_point)),))


SYSTEMS: Final = (
    System(
        BINDER,
        "binderd",
        "BINDER_WRITE_READ on our device, one copy",
        start_binder,
        needs_root=True,
        is_ours=True,
        is_loaded=True,
    ),
    System(
        PRIVATE,
        "private pages",
        "the same through a device file that is bind-mounted alone, two copies",
        start_private,
        needs_root=True,
        is_ours=True,
    ),
    System(
        LANE,
        "fast lane",
        "the first through lanes, memory that threads share with our daemon",
        start_lane,
        needs_root=True,
        is_ours=True,
        is_loaded=True,
    ),
    System(DBUS, "dbus-daemon", "a method over sd-bus and dbus-daemon", start_dbus, is_loaded=True),
    System(BROKER, "dbus-broker", "the same over dbus-broker", start_broker, is_loaded=True),
    System(SOCKET, "socket", "a Unix socket pair, nobody in between", start_socket),
    System(
        FLOOR,
        "FUSE floor",
        "two FUSE requests that a daemon in C answers without looking",
        start_floor,
        sizes=(FLOOR_SIZE,),
        needs_root=True,
    ),
)
BY_NAME: Final = {system.name: system for system in SYSTEMS}
