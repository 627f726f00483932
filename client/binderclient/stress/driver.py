# SPDX-License-Identifier: Apache-2.0
"""What a driver and its daemon tell about themselves, as far as they can be asked.

Counts come from the driver's own texts (``binder_logs``, or debugfs for the kernel's). The daemon
is found by asking the device for a message (docs/EXTENSION.md): the kernel says which
process has sent it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from binderclient.stress.errors import StressError
from binderwire.binder_abi import BINDER_FREEZE, BINDER_VERSION, binder_freeze_info
from binderwire.extension_abi import (
    BINDERD_ATTACH,
    BINDERD_ATTACH_AREA,
    BINDERD_GET_INFO,
    BINDERD_HAS_MMAP,
    BINDERD_INJECTS,
    binderd_attach,
    binderd_info,
)

_KERNEL_LOGS: Final = "/sys/kernel/debug/binder"
_COUNT: Final = re.compile(r"^(\w+): active (\d+)", re.MULTILINE)
_PROCESS: Final = re.compile(r"^proc (\d+)$", re.MULTILINE)
_CREDENTIALS: Final = struct.Struct("=iII")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Facts(NamedTuple):
    """What a device says about itself."""

    is_kernel: bool
    has_mmap: bool
    injects: bool  # do clients that do not attach get files?
    daemon: int  # process id; 0 if there is none, or none that we can see


def ask_device(fd: int, path: str) -> Facts:
    """Return the facts of an open device.

    Raises:
        StressError: it is no binder device.
    """
    try:
        fcntl.ioctl(fd, BINDER_VERSION, bytearray(4))
    except OSError as error:
        raise StressError(f"{path}: this is no binder device ({error.strerror})") from None
    answer = bytearray(binderd_info.size)
    try:
        fcntl.ioctl(fd, BINDERD_GET_INFO, answer)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTTY}:
            raise StressError(f"{path}: {error.strerror}") from None
        return Facts(is_kernel=True, has_mmap=True, injects=True, daemon=0)
    flags = binderd_info.read(answer).flags
    has_mmap, injects = bool(flags & BINDERD_HAS_MMAP), bool(flags & BINDERD_INJECTS)
    return Facts(is_kernel=False, has_mmap=has_mmap, injects=injects, daemon=_daemon(fd))


def _daemon(fd: int) -> int:
    """Return the process that serves an open device: 0 if it is not in this pid namespace."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        request = binderd_attach.pack(theirs.fileno(), BINDERD_ATTACH_AREA)
        try:
            fcntl.ioctl(fd, BINDERD_ATTACH, bytearray(request))
            room = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(_CREDENTIALS.size)
            _, ancillary, _, _ = ours.recvmsg(4096, room, socket.MSG_DONTWAIT)
        except OSError:
            return 0
    pid = 0
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid = _CREDENTIALS.unpack(data)[0]
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            os.close(struct.unpack("=i", data)[0])
    return pid


def freeze(fd: int, pid: int, *, is_on: bool, timeout_ms: int) -> int:
    """Freeze or thaw a process; returns 0 or the errno."""
    request = bytearray(binder_freeze_info.pack(pid, int(is_on), timeout_ms))
    # Not fcntl.ioctl: it holds the interpreter's lock while it waits.
    area = (ctypes.c_char * len(request)).from_buffer(request)
    library = ctypes.CDLL(None, use_errno=True)
    while library.ioctl(fd, ctypes.c_ulong(BINDER_FREEZE), area) < 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            return number
    return 0


class Logs:
    """The texts of the driver behind a device.

    Args:
        device: its path.
        is_kernel: is it Linux's own?
    """

    def __init__(self, device: str, *, is_kernel: bool) -> None:
        places = [Path(device).resolve().parent / "binder_logs"]
        if is_kernel:
            places.insert(0, Path(_KERNEL_LOGS))
        readable = [place for place in places if os.access(place / "stats", os.R_OK)]
        self.place = readable[0] if readable else None

    def counts(self) -> dict[str, int]:
        """Return how many objects of each kind there are; empty if that cannot be asked."""
        return parse_counts(self._read("stats"))

    def processes(self) -> set[int]:
        """Return the processes that have a device open."""
        return set(map(int, _PROCESS.findall(self._read("state"))))

    def _read(self, name: str) -> str:
        if self.place is not None:
            with suppress(OSError):
                return (self.place / name).read_text(errors="replace")
        return ""


def parse_counts(stats: str) -> dict[str, int]:
    """Return the counts of ``stats``: the part before the processes has those of all together."""
    return {kind: int(count) for kind, count in _COUNT.findall(stats.partition("\nproc ")[0])}


class Usage:
    """What the daemon takes of the machine: it and its helpers together.

    Args:
        pid: the daemon's; 0: there is none, and everything is 0.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.cpu_start = self.cpu = self._cpu()
        self.memory_start = self.memory = self.memory_max = self._memory()

    def look(self) -> None:
        """Look again."""
        self.cpu = max(self.cpu, self._cpu())
        self.memory = self._memory() or self.memory
        self.memory_max = max(self.memory_max, self.memory)

    @property
    def seconds(self) -> float:
        """Processor time since the start."""
        return self.cpu - self.cpu_start

    def _cpu(self) -> float:
        return sum(map(_cpu_seconds, _family(self._pid))) if self._pid else 0.0

    def _memory(self) -> int:
        """Return the bytes of memory that the daemon itself has, areas of clients included."""
        try:
            text = Path(f"/proc/{self._pid}/statm").read_text()
        except OSError:
            return 0
        return int(text.split()[1]) * _PAGE


def _family(pid: int) -> list[int]:
    try:
        lists = [(t / "children").read_text() for t in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return [pid]
    children = [int(child) for each in lists for child in each.split()]
    return [pid, *(member for child in children for member in _family(child))]


def _cpu_seconds(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
