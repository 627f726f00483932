# SPDX-License-Identifier: Apache-2.0
"""Userfaultfds: which one the daemon waits for, and having it let go.

That somebody waits for a userfaultfd shows in its fdinfo, but not who, and not whose memory it is
about. Others may be waited for at the same time and for good reasons: that of a hypervisor that
migrates, of a collector that moves objects. So each is tried: waking who waits for a range does
nothing but have them look again, and if the daemon is among them it is seen to wake. Only that one
is told to let go of the range, wherever it has been handed to.

Nothing here may know who is to blame.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from contextlib import suppress
from errno import EINVAL
from typing import TYPE_CHECKING, Final

from binderd.watchdog.system import call, lines, status_field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PIDFD_GETFD: Final = 438  # the same number on every architecture
_UFFDIO_UNREGISTER: Final = 0x8010AA01
_UFFDIO_WAKE: Final = 0x8010AA02
_USERFAULTFD: Final = "anon_inode:[userfaultfd]"
# A range of huge pages can be let go of as a whole only.
_ALIGNMENTS: Final = (os.sysconf("SC_PAGESIZE"), 2 << 20, 1 << 30)
_TRIES: Final = 3  # that many times it must wake; once could be a coincidence
_WAKING_SECONDS: Final = 0.01
_range: Final = struct.Struct("=QQ")


def find(daemon: int, start: int, size: int, nearest: list[int]) -> int:
    """Return a copy of the userfaultfd that the daemon waits for in that range, -1: there is none.

    Args:
        daemon: a process.
        start: of the range, in the address space of the client.
        size: of the range, in bytes.
        nearest: processes to be looked at first.
    """
    seen = set()
    for pid in (*nearest, *_processes()):
        if pid in seen:
            continue
        seen.add(pid)
        for number in _pending_of(pid):
            copy = _copy(pid, number)
            if copy < 0:
                continue
            if _wakes(daemon, copy, start, size):
                return copy
            os.close(copy)
    return -1


def let_go(userfaultfd: int, start: int, size: int) -> OSError | None:
    """Have a userfaultfd leave a range alone; return why that failed."""
    error = OSError(EINVAL, os.strerror(EINVAL))
    for alignment in _ALIGNMENTS:
        try:
            fcntl.ioctl(userfaultfd, _UFFDIO_UNREGISTER, _aligned(start, size, alignment))
        except OSError as failure:
            error = failure
        else:
            return None
    return error


def _aligned(start: int, size: int, alignment: int) -> bytes:
    first = start & -alignment
    return _range.pack(first, -(-(start + size) // alignment) * alignment - first)


def _wakes(daemon: int, userfaultfd: int, start: int, size: int) -> bool:
    """Whether the daemon wakes each time when those that wait for a range are woken."""
    for _ in range(_TRIES):
        before = _switches(daemon)
        try:
            fcntl.ioctl(userfaultfd, _UFFDIO_WAKE, _aligned(start, size, _ALIGNMENTS[0]))
        except OSError:
            return False
        if not _within(_WAKING_SECONDS, lambda then=before: _switches(daemon) != then):  # type: ignore[misc]
            return False
    return True


def _switches(daemon: int) -> int:
    """Return how often a process has gone to sleep."""
    return int(status_field(f"/proc/{daemon}", b"voluntary_ctxt_switches:")[0])


def _within(seconds: float, is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(seconds / 20)
    return True


def _copy(pid: int, number: int) -> int:
    """Return a copy of a process' descriptor, -1: it cannot be had."""
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            copy = call(_PIDFD_GETFD, pidfd, number, 0)
        finally:
            os.close(pidfd)
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{copy}") == _USERFAULTFD:  # still
                return copy
        os.close(copy)
    return -1


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


def _pending_of(pid: int) -> Iterator[int]:
    """Yield the userfaultfds of a process that somebody waits for; none of one that has gone."""
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):
        for number in os.listdir(folder):
            with suppress(OSError):
                if os.readlink(f"{folder}/{number}") != _USERFAULTFD:
                    continue
                for line in lines(f"/proc/{pid}/fdinfo/{number}"):
                    if line.startswith(b"total:") and line.split()[1] != b"0":
                        yield int(number)
