# SPDX-License-Identifier: Apache-2.0
"""The processes of a run: started, confined to cores, measured from outside, ended.

Nothing may outlive the run: each process dies with it (setpriv --pdeathsig), and mounts are made
in a mount namespace that ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import select
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

READY_SECONDS_MAX: Final = 10.0
STOP_SECONDS_MAX: Final = 3.0

# <sched.h>, <sys/mount.h>
CLONE_NEWNS: Final = 0x00020000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000

_MEMORY: Final = re.compile(r"^Pss_(?:Anon|Shmem):\s+(\d+)", re.MULTILINE)


@contextlib.contextmanager
def running(
    command: Iterable[str],
    stdout: int | None = subprocess.PIPE,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command that ends at the latest with the block, or with this process.

    Args:
        command: the program and its arguments.
        stdout: as of Popen.
        environment: variables beside our own.
    """
    bound = ["setpriv", "--pdeathsig", "KILL", "--", *command]
    # Not in our process group: Ctrl-C is for us alone, and we end them in the right order.
    process = subprocess.Popen(
        bound,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        process_group=0,
        env={**os.environ, **(environment or {})},
    )
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


def wait_for_line(
    process: subprocess.Popen[bytes], who: str, seconds_max: float = READY_SECONDS_MAX
) -> None:
    """Returns when the process has printed its first line, which says that it can be called."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds_max)
    if not ready or not process.stdout.readline():
        raise BenchError(f"{who} did not get ready")


def family(pid: int) -> list[int]:
    """The process and its descendants; nothing for a process that is gone."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for tid in os.listdir(f"/proc/{pid}/task"):
            children = Path(f"/proc/{pid}/task/{tid}/children").read_text().split()
            found += [member for child in children for member in family(int(child))]
        found.insert(0, pid)
    return found


def confine(pids: Iterable[int], cpus: set[int]) -> None:
    """Moves families to these cores and, by inheritance, every client started from now on."""
    os.sched_setaffinity(0, cpus)
    for member in (one for pid in pids for one in family(pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for tid in os.listdir(f"/proc/{member}/task"):
                os.sched_setaffinity(int(tid), cpus)


def memory_kib(pids: Iterable[int]) -> int:
    """What families have in memory, shared pages divided by their users; programs do not count.

    Those are shared with whoever runs the same one, so they would become less with each client.
    """
    total = 0
    for member in (one for pid in pids for one in family(pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += sum(int(kib) for kib in _MEMORY.findall(_rollup(member)))
    return total


def _rollup(pid: int) -> str:
    return Path(f"/proc/{pid}/smaps_rollup").read_text()


def isolate_mounts() -> None:
    """From here on our mounts are seen by our children only and end with the last of us."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
        raise BenchError(f"no mount namespace of our own: {os.strerror(ctypes.get_errno())}")


def allow_files() -> None:
    """As many open files as may be, for us and what we start: a bus has one per connection."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
