# SPDX-License-Identifier: Apache-2.0
"""Which call the daemon sleeps in, and whether that reaches into a client.

/proc/PID/syscall tells: of a process that runs, or waits for nothing but a processor, it says just
that. Only calls of a list count, on what belongs to a process: the daemon may also sleep because
its log is not read, and that is no client's fault.

Nothing here may know whose client it is, or what is done about it.
"""

from __future__ import annotations

import os
import platform
import re
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from binderd.linux import proc

if TYPE_CHECKING:
    from collections.abc import Callable

_IOVEC: Final = struct.Struct("=QQ")
_PROC: Final = f"{proc.FOLDER}/".encode()

# By architecture: process_vm_readv and _writev; pread64, pwrite64; calls whose first argument is a
# descriptor, or whose first or second is a path. pidfd_getfd has the same number everywhere.
_BY_PID: Final = {"x86_64": (310, 311), "aarch64": (270, 271)}
_AT_OFFSET: Final = {"x86_64": (17, 18), "aarch64": (67, 68)}
# read, fstat, lseek, ioctl, getdents64
_BY_FILE: Final = {"x86_64": (0, 5, 8, 16, 217), "aarch64": (63, 80, 62, 29, 61)}
# open, stat, readlink
_BY_PATH: Final = {"x86_64": (2, 4, 89), "aarch64": ()}
# openat, newfstatat, readlinkat
_BY_PATH_AT: Final = {"x86_64": (257, 262, 267), "aarch64": (56, 79, 78)}
_STATX: Final = {"x86_64": 332, "aarch64": 291}  # of a file that a client sends
_PIDFD_GETFD: Final = 438
_PTRACE: Final = {"x86_64": 101, "aarch64": 117}  # the helper's
_TABLES: Final = (b"/pagemap", b"/maps")
_MEMORY: Final = re.compile(_PROC + rb"(\d+)/mem")


class Access(NamedTuple):
    """One call that reaches into a client."""

    tid: int  # a thread of the client's, where the call names one; else 0
    start: int  # first byte, in the client's address space
    size: int  # bytes; 0: it is not about memory


def current_access(daemon: int) -> Access | None:
    """Return in which access to a client the daemon sleeps, None if in none.

    Raises:
        OSError: it could not be asked.
    """
    try:
        number, arguments = proc.call_of(proc.place_of(daemon))
        return _access(daemon, number, arguments)
    except (ValueError, IndexError, struct.error):
        return None  # it runs, or has gone on meanwhile


def current_call(pid: int) -> tuple[int, list[int]] | None:
    """Return the call that a process sleeps in, None if in none."""
    try:
        return proc.call_of(proc.place_of(pid))
    except (OSError, ValueError):
        return None


def _access(daemon: int, number: int, arguments: list[int]) -> Access | None:
    machine = platform.machine()
    if number in _BY_PID.get(machine, ()):
        return Access(arguments[0], *_IOVEC.unpack(_peek(daemon, arguments[3], _IOVEC.size)))
    if number in _AT_OFFSET.get(machine, ()):
        if not _is_of_process(lambda: _link(daemon, arguments[0])):
            return None
        link = _link(daemon, arguments[0])
        if link.endswith(_TABLES):
            return Access(0, 0, 0)  # the offset there is none of memory
        match = _MEMORY.fullmatch(link)
        return Access(int(match[1]) if match is not None else 0, arguments[3], arguments[2])
    if number == _PTRACE.get(machine):
        return Access(arguments[1], 0, 0)
    concerns_client = (
        number in (_PIDFD_GETFD, _STATX.get(machine))
        or (
            number in _BY_FILE.get(machine, ())
            and _is_of_process(lambda: _link(daemon, arguments[0]))
        )
        or (
            number in _BY_PATH.get(machine, ())
            and _is_of_process(lambda: _peek(daemon, arguments[0], len(_PROC)))
        )
        or (
            number in _BY_PATH_AT.get(machine, ())
            and _is_of_process(lambda: _peek(daemon, arguments[1], len(_PROC)))
        )
    )
    return Access(0, 0, 0) if concerns_client else None


def _is_of_process(name: Callable[[], bytes]) -> bool:
    try:
        return name().startswith(_PROC)
    except OSError:
        return False


def _link(daemon: int, fd: int) -> bytes:
    """Return what a descriptor leads to; of an ended process that is still told."""
    return os.fsencode(proc.link_of(proc.place_of(daemon), f"fd/{fd}"))


def _peek(pid: int, address: int, size: int) -> bytes:
    memory = proc.open_in(proc.place_of(pid), "mem", os.O_RDONLY)
    try:
        return os.pread(memory, size, address)
    finally:
        os.close(memory)
