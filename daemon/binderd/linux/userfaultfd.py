# SPDX-License-Identifier: Apache-2.0
"""userfaultfd(2), of other processes: finding one that a thread waits for, and its ioctls.

A range is (address, bytes) in the address space that the userfaultfd was made for.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING, Final

from binderd.linux import pidfd, proc

if TYPE_CHECKING:
    from collections.abc import Iterator

# <linux/userfaultfd.h>
_UFFDIO_UNREGISTER: Final = 0x8010AA01
_UFFDIO_WAKE: Final = 0x8010AA02
_LINK: Final = "anon_inode:[userfaultfd]"
_range: Final = Struct("=QQ")


def pending_of(pid: int) -> Iterator[int]:
    """Yield the userfaultfds of a process that a thread waits for; none of one that has gone."""
    place = proc.place_of(pid)
    try:
        numbers = os.listdir(f"{place}/fd")
    except OSError:
        return
    for number in numbers:
        if _is_pending(place, number):
            yield int(number)


def _is_pending(place: str, number: str) -> bool:
    try:
        if proc.link_of(place, f"fd/{number}") != _LINK:
            return False
        lines = proc.lines_in(place, f"fdinfo/{number}")
    except OSError:
        return False
    return any(line.startswith(b"total:") and line.split()[1] != b"0" for line in lines)


def copy_of(pid: int, number: int) -> int:
    """Return a copy of a process' userfaultfd, -1: it cannot be had, or is none any more."""
    with suppress(OSError):
        with pidfd.opened_process(pid) as process:
            copy = pidfd.take_descriptor(process, number)
        with suppress(OSError):
            if os.readlink(proc.path_of(copy)) == _LINK:
                return copy
        os.close(copy)
    return -1


def wake(userfaultfd: int, start: int, size: int) -> None:
    """Wake the threads that wait for a range (UFFDIO_WAKE)."""
    fcntl.ioctl(userfaultfd, _UFFDIO_WAKE, _range.pack(start, size))


def unregister(userfaultfd: int, start: int, size: int) -> None:
    """Unregister a range and wake the threads that wait for it (UFFDIO_UNREGISTER)."""
    fcntl.ioctl(userfaultfd, _UFFDIO_UNREGISTER, _range.pack(start, size))
