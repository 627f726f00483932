# SPDX-License-Identifier: Apache-2.0
"""A process beside the daemon that ends clients whose memory never answers.

The daemon reaches into the memory of its clients, and memory can be anything: pages of a file
system that the client serves itself, or pages that userfaultfd leaves to it. Such a client can keep
the daemon waiting, and everybody else with it. The driver does not have that problem: there it is
the client's own thread that waits.

Theory of operation. The request path pays nothing for this: /proc/PID/syscall shows from outside
which call the daemon, or its helper, is in, and with which arguments. If it is in the same one that
reaches client memory, and has not run since, for longer than the limit, then the client is killed.
Its blocked thread cannot go before the daemon answers it, so whatever holds the memory back is
undone as well: userfaultfd is unregistered, the connection of a FUSE file system aborted.

Nothing here may be imported by what serves requests, or share anything with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import re
import signal
import struct
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOKS_PER_LIMIT: Final = 4
_PATIENCE: Final = 1.0  # seconds for one remedy to help before the next is tried

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PIDFD_GETFD: Final = 438  # on every architecture
_UFFDIO_UNREGISTER: Final = 0x8010AA01

# The calls that reach client memory: by pid and iovecs, or through /proc/PID/mem. By architecture,
# as these four have other numbers on each.
_BY_PID: Final = {"x86_64": (310, 311), "aarch64": (270, 271)}
_BY_FILE: Final = {"x86_64": (17, 18), "aarch64": (67, 68)}

_IOVEC: Final = struct.Struct("=QQ")
_CONNECTIONS: Final = "/sys/fs/fuse/connections"
_USERFAULTFD: Final = "anon_inode:[userfaultfd]"

_libc = ctypes.CDLL(None, use_errno=True)


class Access(NamedTuple):
    """One call of the daemon that reaches into a client."""

    moment: tuple[str, str]  # compares equal as long as the daemon is in this very call
    pid: int  # the client's, or its thread's
    start: int  # first byte, in the client's address space
    size: int  # bytes


@contextmanager
def watching(limit: float, own_type: str) -> Iterator[None]:
    """Have a watchdog for this process as long as the block runs.

    Args:
        limit: seconds that one access to a client's memory may take.
        own_type: what our own file systems are called in /proc/self/mountinfo.
    """
    child = start(limit, own_type)
    try:
        yield
    finally:
        # Before we end: what we have as standard output is its own as well, and whoever reads that
        # takes its end for ours.
        _kill(child)
        os.waitpid(child, 0)


def start(limit: float, own_type: str) -> int:
    """Start the watchdog of this process; return its process id. It goes when its parent goes."""
    daemon = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.closerange(3, 1 << 20)  # what the daemon has open is to be closed when it is gone
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        _libc.prctl(_PR_SET_NAME, b"binderd-watch", 0, 0, 0)
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the daemon's business
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getppid() == daemon:
            _watch(daemon, limit, own_type)
    finally:
        os._exit(1)


def _watch(daemon: int, limit: float, own_type: str) -> NoReturn:
    seen: dict[int, tuple[Access, float]] = {}  # since when each of them is in an access
    while True:
        time.sleep(limit / LOOKS_PER_LIMIT)
        for pid in (daemon, *_helpers(daemon)):
            access = current_access(pid)
            last, since = seen.pop(pid, (None, 0.0))
            now = time.monotonic()
            if access is None:
                continue
            if last is None or access.moment != last.moment:
                seen[pid] = (access, now)
            elif now - since < limit:
                seen[pid] = (access, since)
            else:
                _end(pid, access, limit, own_type)


def _helpers(daemon: int) -> list[int]:
    """Return the processes that work for the daemon; they reach into clients as well."""
    children = "".join(_lines(f"/proc/{daemon}/task/{daemon}/children")).split()
    return [int(child) for child in children if int(child) != os.getpid()]


def current_access(daemon: int) -> Access | None:
    """Return how the process reaches into a client right now, None if it does not."""
    try:
        call = Path(f"/proc/{daemon}/syscall").read_text(encoding="ascii")
        number, *rest = call.split()
        machine = platform.machine()
        arguments = [int(value, 16) for value in rest]
        if _number_of(number) in _BY_PID.get(machine, ()):
            iovec = _peek(daemon, arguments[3], _IOVEC.size)
            moment = call, _switches(daemon)
            return Access(moment, _living(arguments[0]), *_IOVEC.unpack(iovec))
        if _number_of(number) in _BY_FILE.get(machine, ()):
            link = os.readlink(f"/proc/{daemon}/fd/{arguments[0]}")
            match = re.fullmatch(r"/proc/(\d+)/mem", link)
            if match is not None:
                moment = call, _switches(daemon)
                return Access(moment, _living(int(match[1])), arguments[3], arguments[2])
    except (OSError, ValueError, struct.error):
        pass  # it has gone on meanwhile
    return None


def _living(pid: int) -> int:
    """Return a thread that has what its process has, where the first one has ended before others.

    Such a first thread has no memory and no descriptors any more.
    """
    with suppress(OSError):
        for tid in (str(pid), *os.listdir(f"/proc/{pid}/task")):
            if _lines(f"/proc/{tid}/maps"):
                return int(tid)
    return pid


def _number_of(text: str) -> int | None:
    """Return the number of a call; a process that runs has none."""
    return int(text) if text.isdecimal() else None


def _switches(daemon: int) -> str:
    """Return how often the process has given up its processor."""
    status = Path(f"/proc/{daemon}/status").read_text(encoding="ascii", errors="replace")
    return status[status.index("voluntary_ctxt_switches") :]


def _peek(pid: int, address: int, size: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return os.pread(memory.fileno(), size, address)


# Ending it


def _end(daemon: int, access: Access, limit: float, own_type: str) -> None:
    """Kill the client, then take away what keeps its memory from answering."""
    connections = _connections(access, own_type)
    _say(f"client {access.pid} keeps its memory back for more than {limit:g} s: killed")
    _kill(access.pid)
    _unregister(access.pid, access)
    if _goes_on(daemon, access):
        return
    for number in connections:
        _say(f"FUSE connection {number}, from which that memory comes, does not answer: aborted")
        _abort(number)
    if connections and _goes_on(daemon, access):
        return
    for holder in _waited_for():
        _say(f"process {holder} holds that memory back with userfaultfd: killed")
        _kill(holder)
    if not _goes_on(daemon, access):
        _say(f"still waiting for memory of client {access.pid}, which nothing here can end")


def _goes_on(daemon: int, access: Access) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        now = current_access(daemon)
        if now is None or now.moment != access.moment:
            return True
        time.sleep(_PATIENCE / 50)
    return False


def _connections(access: Access, own_type: str) -> set[int]:
    """Return the numbers of the FUSE connections that the memory comes from, but for our own."""
    found = set()
    types = {}
    for line in _lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        types[before.split()[2]] = after.split()[0]
    for line in _lines(f"/proc/{access.pid}/maps"):
        bounds, _, _, device, *_ = line.split()
        first, end = (int(part, 16) for part in bounds.split("-"))
        major, minor = (int(part, 16) for part in device.split(":"))
        if end <= access.start or first >= access.start + access.size or major:
            continue  # other memory, or of a disk
        # What is mounted elsewhere only is not in our table: the number alone has to do then.
        kind = types.get(f"{major}:{minor}", "fuse")
        if minor and kind.startswith("fuse") and kind != own_type:
            found.add(minor)
    return found


def _abort(connection: int) -> None:
    path = Path(f"{_CONNECTIONS}/{connection}/abort")
    with suppress(OSError):
        if not os.path.ismount(_CONNECTIONS):
            _libc.mount(b"none", _CONNECTIONS.encode(), b"fusectl", 0, None)
        path.write_text("1", encoding="ascii")


def _unregister(pid: int, access: Access) -> None:
    """Have the client's own userfaultfds let go of the memory."""
    page = os.sysconf("SC_PAGESIZE")
    start = access.start & -page
    size = -(-(access.start + access.size) // page) * page - start
    for number in _userfaultfds(pid):
        with suppress(OSError):
            pidfd = _open_pidfd(pid)
            try:
                copy = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
            finally:
                os.close(pidfd)
            if copy >= 0:
                with suppress(OSError):
                    fcntl.ioctl(copy, _UFFDIO_UNREGISTER, struct.pack("=QQ", start, size))
                os.close(copy)


def _waited_for() -> Iterator[int]:
    """Yield the processes whose userfaultfd somebody waits for, now and a while later."""
    waiting = set(_pending())
    time.sleep(_PATIENCE / 2)
    yield from sorted({pid for pid, _ in waiting & set(_pending())} - {os.getpid()})


def _pending() -> Iterator[tuple[int, int]]:
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        for number in _userfaultfds(int(entry)):
            for line in _lines(f"/proc/{entry}/fdinfo/{number}"):
                if line.startswith("pending:") and line.split()[1] != "0":
                    yield int(entry), number


def _userfaultfds(pid: int) -> list[int]:
    folder = f"/proc/{pid}/fd"
    found = []
    with suppress(OSError):
        for number in os.listdir(folder):
            with suppress(OSError):
                if os.readlink(f"{folder}/{number}") == _USERFAULTFD:
                    found.append(int(number))
    return found


def _open_pidfd(tid: int) -> int:
    """Return a pidfd that leads to the descriptors of a thread; see ``memory/files.py``."""
    with suppress(OSError):
        return os.pidfd_open(tid, os.O_EXCL)
    return os.pidfd_open(_process_of(tid))


def _process_of(tid: int) -> int:
    for line in _lines(f"/proc/{tid}/status"):
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return tid


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _kill(pid: int) -> None:
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _say(text: str) -> None:
    with suppress(OSError):
        print(f"binderd: {text}", file=sys.stderr, flush=True)
