# SPDX-License-Identifier: Apache-2.0
"""What must hold while an attacker keeps all that he got.

Each check is made of the daemon before and during the attack. It says nothing if all is well, else
one sentence.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from binderd.engine.kinds import AREAS
from binderd.engine.limits import Limits
from hostile.victims import ALICE, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from channel.helpers import Daemon

BOB: Final = 4003  # no victim, so what his requests take is not charged to those
_PATIENCE: Final = 5.0  # seconds
_OPENING_MAX: Final = 0.1  # seconds that an open may take as a rule
_MEMORY_MAX: Final = 96 << 20  # bytes that one kind of object may cost
_NEWCOMER: Final = f"""
import os, sys
from channel.rawclient import Device, call
os.setresuid({ALICE}, {ALICE}, {ALICE})
assert call(Device(sys.argv[1] + "/hers")), "its call fails"
"""
_OPENER: Final = f"""
import os, sys, time
os.setresuid({BOB}, {BOB}, {BOB})
times = []
for _ in range(21):
    began = time.monotonic()
    os.close(os.open(sys.argv[1] + "/hers", os.O_RDWR))
    times.append(time.monotonic() - began)
usual = sorted(times)[10]
assert usual < {_OPENING_MAX}, f"an open takes {{usual:.3f}} s"
"""
_READER: Final = """
import os, sys
assert os.read(os.open(sys.argv[1] + "/binder_logs/state", os.O_RDONLY), 100)
"""
# Whoever has capabilities may have any number on their way.
_SENDER: Final = """
import ctypes, os, resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
libc = ctypes.CDLL(None)
header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capset(header, none) == 0
pair = socket.socketpair()
socket.send_fds(pair[0], [b"x"], [0])
"""


class Gauges:
    """What a daemon uses.

    Attributes:
        memory: private to it, bytes.
        pages: of receive areas, bytes.
    """

    def __init__(self, daemon: Daemon) -> None:
        place = Path(f"/proc/{daemon.process.pid}")
        status = (place / "status").read_text().splitlines()
        self.memory = int(next(x for x in status if x.startswith("RssAnon:")).split()[1]) << 10
        self.pages = 0
        for link in (place / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                if os.readlink(link).startswith("/memfd:"):
                    self.pages += link.stat().st_blocks * 512


def _outcome(who: str, code: str, daemon: Daemon) -> str | None:
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, daemon.directory],
            env={**os.environ, "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{who}: no answer"
    return f"{who}: {done.stderr.decode().splitlines()[-1]}" if done.returncode else None


def _newcomer(daemon: Daemon, before: Gauges) -> str | None:
    return _outcome("another user's new client", _NEWCOMER, daemon)


def _openings(daemon: Daemon, before: Gauges) -> str | None:
    return _outcome("another user opens the device", _OPENER, daemon)


def _root_log(daemon: Daemon, before: Gauges) -> str | None:
    return _outcome("root opens a log", _READER, daemon)


def _root_files(daemon: Daemon, before: Gauges) -> str | None:
    return _outcome("root sends a file elsewhere", _SENDER, daemon)


def _memory(daemon: Daemon, before: Gauges) -> str | None:
    grown = Gauges(daemon).memory - before.memory
    return f"{grown >> 20} MiB more memory" if grown > _MEMORY_MAX else None


def _pages(daemon: Daemon, before: Gauges) -> str | None:
    grown = Gauges(daemon).pages - before.pages
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    share = Limits.for_machine(1 << 20, machine).of(AREAS).user
    return f"{grown >> 20} MiB of pages, a share is {share >> 20}" if grown > share else None


CHECKS: Final[dict[str, Callable[[Daemon, Gauges], str | None]]] = {
    "newcomer": _newcomer,
    "openings": _openings,
    "root_log": _root_log,
    "root_files": _root_files,
    "memory": _memory,
    "pages": _pages,
}
