# SPDX-License-Identifier: Apache-2.0
"""Userfaultfds: which one the daemon waits for, and having it let go.

A userfaultfd's fdinfo shows that threads wait for it, but not which ones, nor for which process'
memory. Others may be waited for at the same time and for good reasons: that of a hypervisor that
migrates, of a collector that moves objects. So each is tried: the threads that wait for a range are
woken, which does nothing but have them look again, and if the daemon is among them it is seen to
wake. Only that userfaultfd is told to unregister the range, whichever process has it.

Nothing here may know which client is at fault.
"""

from __future__ import annotations

import os
import time
from errno import EINVAL
from typing import TYPE_CHECKING, Final

from binderd.linux import proc, userfaultfd

if TYPE_CHECKING:
    from collections.abc import Callable

# A range of huge pages can be let go of as a whole only.
_ALIGNMENTS: Final = (os.sysconf("SC_PAGESIZE"), 2 << 20, 1 << 30)
_TRIES: Final = 3  # that many times it must wake; once could be a coincidence
_WAKING_SECONDS: Final = 0.01


def find(daemon: int, start: int, size: int, nearest: list[int]) -> int:
    """Return a copy of the userfaultfd that the daemon waits for in that range, -1: there is none.

    Args:
        daemon: a process.
        start: of the range, in the address space of the client.
        size: of the range, in bytes.
        nearest: processes to be looked at first.
    """
    seen = set()
    for pid in (*nearest, *proc.processes()):
        if pid in seen:
            continue
        seen.add(pid)
        for number in userfaultfd.pending_of(pid):
            copy = userfaultfd.copy_of(pid, number)
            if copy < 0:
                continue
            if _wakes(daemon, copy, start, size):
                return copy
            os.close(copy)
    return -1


def unregister(copy: int, start: int, size: int) -> OSError | None:
    """Unregister a range from a userfaultfd; return why that failed."""
    error = OSError(EINVAL, os.strerror(EINVAL))
    for alignment in _ALIGNMENTS:
        try:
            userfaultfd.unregister(copy, *_aligned(start, size, alignment))
        except OSError as failure:
            error = failure
        else:
            return None
    return error


def _aligned(start: int, size: int, alignment: int) -> tuple[int, int]:
    first = start & -alignment
    return first, -(-(start + size) // alignment) * alignment - first


def _wakes(daemon: int, copy: int, start: int, size: int) -> bool:
    """Whether the daemon wakes each time when those that wait for a range are woken."""
    for _ in range(_TRIES):
        before = _switches(daemon)
        try:
            userfaultfd.wake(copy, *_aligned(start, size, _ALIGNMENTS[0]))
        except OSError:
            return False
        if not _within(_WAKING_SECONDS, lambda then=before: _switches(daemon) != then):  # type: ignore[misc]
            return False
    return True


def _switches(daemon: int) -> int:
    """Return how often a process has gone to sleep."""
    return int(proc.status_field(proc.place_of(daemon), b"voluntary_ctxt_switches"))


def _within(seconds: float, is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(seconds / 20)
    return True
