# SPDX-License-Identifier: Apache-2.0
"""What the tests of restarts share: a daemon to restart, a manager, what a process holds."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import os
import select
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from binderclient.errors import DeviceGone
from binderclient.objects import Service, transaction
from binderclient.parcel import Parcel
from binderwire.binder_abi import BC_ENTER_LOOPER, BINDER_WRITE_READ
from client.drivers import PATIENCE, MountedDaemon
from support import connections

if TYPE_CHECKING:
    from collections.abc import Callable

DESCRIPTOR: Final = "org.binderd.test.IRestart"
ECHO, WAIT = 1, 2
RESTARTS: Final = int(os.environ.get("BINDERD_RESTARTS", "20"))


class EchoService(Service):
    """Answers at once, or when it is told to."""

    descriptor: ClassVar[str] = DESCRIPTOR

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    @transaction(ECHO)
    def echo(self, data: Parcel, reply: Parcel) -> None:
        reply.write_int32(data.read_int32())

    @transaction(WAIT)
    def wait(self, _data: Parcel, _reply: Parcel) -> None:
        self.entered.set()
        self.go_on.wait(PATIENCE)


def request(*numbers: int) -> Parcel:
    parcel = Parcel.for_interface(DESCRIPTOR)
    for number in numbers:
        parcel.write_int32(number)
    return parcel


def errno_of(work: Callable[[], object]) -> str:
    try:
        work()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "works"


def outcome_of(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Do something in a thread that will end with an outcome: what it returned or raised."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def held() -> tuple[int, int, int]:
    """Return how many descriptors, threads and mappings of a device this process has."""
    gc.collect()
    mappings = Path("/proc/self/maps").read_text().splitlines()
    areas = sum("memfd" in line or "/test" in line for line in mappings)
    return len(os.listdir("/proc/self/fd")), threading.active_count(), areas


def holds_no_more(before: tuple[int, int, int]) -> bool:
    """Return whether we hold no more than then; it is less if threads of others have ended.

    Trio's worker threads, for one, end ten seconds after the test that they worked for.
    """
    return all(now <= then for now, then in zip(held(), before, strict=True))


def read_until_it_fails(fd: int) -> None:
    """Serve as a looper that ignores whatever comes."""
    words = ctypes.create_string_buffer(struct.pack("=I", BC_ENTER_LOOPER))
    area = ctypes.create_string_buffer(256)
    write_size = 4
    while True:
        record = struct.pack(
            "=6Q", write_size, 0, ctypes.addressof(words), 256, 0, ctypes.addressof(area)
        )
        fcntl.ioctl(fd, BINDER_WRITE_READ, bytearray(record))
        write_size = 0


def poll_until_an_error(fd: int) -> int:
    poller = select.poll()
    poller.register(fd, select.POLLPRI)  # nothing that a device has; errors come in any case
    ((_, events),) = poller.poll(1000 * PATIENCE)
    return events


def sleeps(tid: int | None) -> bool:
    """Is the thread blocked in the kernel?"""
    state = Path(f"/proc/self/task/{tid}/stat").read_text().rpartition(")")[2].split()[0]
    return state in {"S", "D"}


class World:
    """A daemon that can end in several ways and be started again, and a service manager."""

    def __init__(self, directory: Path) -> None:
        self.daemon = MountedDaemon(directory, 1)
        self.path = self.daemon.new_device()
        self.manager: subprocess.Popen[str] | None = None

    def start_manager(self, *options: str) -> None:
        command = [sys.executable, "-m", "binderclient.servicemanager", "--device", str(self.path)]
        self.manager = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
        assert self.manager.stderr is not None
        assert "ready on" in self.manager.stderr.readline()

    def end_manager(self) -> str:
        assert self.manager is not None
        self.manager.terminate()
        _, text = self.manager.communicate(timeout=PATIENCE)
        assert "Traceback" not in text, text
        assert self.manager.returncode == 0, text
        self.manager = None
        return text

    def kill_manager(self) -> None:
        assert self.manager is not None
        self.manager.kill()
        self.manager.communicate(timeout=PATIENCE)
        self.manager = None

    def end(self, how: str) -> None:
        """End the daemon, or what connects it with its clients."""
        if how == "abort":
            connections.abort(os.minor(os.stat(self.daemon.mount).st_dev))
        elif how == "unmount":
            # By force: as its files are in use, all that this does is to abort the connection.
            command = ["umount", "-f", str(self.daemon.mount)]
            subprocess.run(command, check=False, stderr=subprocess.DEVNULL)
        else:
            self.daemon.process.send_signal(signal.Signals[how])
        self.daemon.process.wait(PATIENCE)

    def restart(self, how: str = "SIGKILL") -> None:
        self.end(how)
        self.daemon.start()

    def close(self) -> None:
        if self.manager is not None:
            self.kill_manager()
        self.daemon.clean_up()


def is_gone(error: object) -> bool:
    return isinstance(error, DeviceGone)
