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
from errno import EINVAL, EPERM
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOKS_PER_LIMIT: Final = 4
_PATIENCE: Final = 1.0  # seconds for one remedy to help before the next is tried

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
# The same numbers on every architecture.
_PIDFD_GETFD: Final = 438
_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_UFFDIO_UNREGISTER: Final = 0x8010AA01

# The calls that reach client memory: by pid and iovecs, or through /proc/PID/mem. By architecture,
# as these four have other numbers on each.
_BY_PID: Final = {"x86_64": (310, 311), "aarch64": (270, 271)}
_BY_FILE: Final = {"x86_64": (17, 18), "aarch64": (67, 68)}

_IOVEC: Final = struct.Struct("=QQ")
_USERFAULTFD: Final = "anon_inode:[userfaultfd]"

_libc = ctypes.CDLL(None, use_errno=True)


class Access(NamedTuple):
    """One call of the daemon that reaches into a client."""

    moment: tuple[str, str]  # compares equal as long as the daemon is in this very call
    pid: int  # the client's, or its thread's
    start: int  # first byte, in the client's address space
    size: int  # bytes


class Own(NamedTuple):
    """What must not be harmed."""

    pids: frozenset[int]  # the daemon's processes
    fstype: str  # of our own file systems


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
        os.kill(child, signal.SIGKILL)  # ours until the wait, so the number is its own
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
        watched = (daemon, *_helpers(daemon))
        own = Own(frozenset({*watched, os.getpid()}), own_type)
        for pid in watched:
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
                _end(pid, access, limit, own)


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


def _end(daemon: int, access: Access, limit: float, own: Own) -> None:
    """Kill the client, then take away what keeps its memory from answering.

    Each line says what was done and succeeded, or what failed and why.
    """

    def is_still_in_it() -> bool:
        now = current_access(daemon)
        return now is not None and now.moment == access.moment

    connections = _connections(access, own.fstype)
    late = f"client {access.pid} keeps its memory back for more than {limit:g} s"
    # As long as the daemon is in that access, the thread's number is nobody else's.
    error = _kill(_process_of(access.pid), is_still_in_it)
    if isinstance(error, _Spared):
        return  # it has answered after all
    _say(f"{late}: killed" if error is None else f"{late}, and cannot be killed: {_why(error)}")
    for holder in (access.pid, *own.pids):
        _release(holder, access, "the client's" if holder == access.pid else "our")
    if _goes_on(is_still_in_it):
        return
    for number in connections:
        _say_whether(f"FUSE connection {number}, from which that memory comes", _abort(number))
    if connections and _goes_on(is_still_in_it):
        return
    for holder in _waited_for(own.pids):
        _release(holder, access, f"process {holder}'s")
    if not _goes_on(is_still_in_it):
        _kill_holders(own.pids)
    if not _goes_on(is_still_in_it):
        _say(f"still waiting for memory of client {access.pid}, which nothing here could end")


def _kill_holders(own: frozenset[int]) -> None:
    """The last resort: kill whose userfaultfd is waited for, whoever waits."""
    for holder in _waited_for(own):

        def is_waited_for(pid: int = holder) -> bool:
            return any(_pending_of(pid))

        error = _kill(holder, is_waited_for)
        if not isinstance(error, _Spared):
            what = f"process {holder}, whose userfaultfd somebody waits for, perhaps the daemon"
            _say(f"{what}: killed" if error is None else f"{what}, cannot be killed: {_why(error)}")


def _goes_on(is_still_in_it: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if not is_still_in_it():
            return True
        time.sleep(_PATIENCE / 50)
    return False


def _kill(pid: int, is_meant: Callable[[], bool]) -> OSError | None:
    """Kill a process, and none that has got its number since.

    Args:
        pid: its number.
        is_meant: does the number still belong to who is to be killed?

    Returns:
        Why it was not killed; ``_Spared``: it is not meant any more.
    """
    try:
        pidfd = os.pidfd_open(pid)
        try:
            if not is_meant():
                return _Spared()
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
    except OSError as error:
        return error
    return None


class _Spared(OSError):
    """Nobody had to be killed."""


def _why(error: OSError) -> str:
    if error.errno == EPERM:
        return f"{error.strerror} (other users' processes take CAP_KILL)"
    return error.strerror or str(error)


def _connections(access: Access, own_type: str) -> list[int]:
    """Return the numbers of the FUSE connections that the memory comes from, but for our own."""
    types = {**_mounted_types(f"/proc/{access.pid}"), **_mounted_types("/proc/self")}
    found = []
    for device in _devices_of(access):
        major, minor = device
        if major or not minor:
            continue  # of a disk, or of no file
        kind = types.get(device)
        if kind is None:  # anonymous memory, or what is mounted in yet another place
            is_fuse = _is_connection(minor)
        else:
            is_fuse = kind.startswith("fuse") and kind != own_type
        if is_fuse:
            found.append(minor)
    return found


def _mounted_types(process: str) -> dict[tuple[int, int], str]:
    """Return what is mounted for a process: device number -> type of file system."""
    types = {}
    for line in _lines(f"{process}/mountinfo"):
        before, _, after = line.partition(" - ")
        major, minor = before.split()[2].split(":")
        types[int(major), int(minor)] = after.split()[0]
    return types


def _devices_of(access: Access) -> list[tuple[int, int]]:
    """Return the device numbers of the files that the memory shows."""
    found = {}
    for line in _lines(f"/proc/{access.pid}/maps"):
        bounds, _, _, device, *_ = line.split()
        first, end = (int(part, 16) for part in bounds.split("-"))
        if first < access.start + access.size and access.start < end:
            major, minor = (int(part, 16) for part in device.split(":"))
            found[major, minor] = True
    return list(found)


@contextmanager
def _control() -> Iterator[int]:
    """A descriptor of the FUSE control file system, which need not be mounted anywhere.

    Raises:
        OSError: it cannot be had.
    """
    context = _call(_FSOPEN, ctypes.c_char_p(b"fusectl"), _FSOPEN_CLOEXEC)
    try:
        none = ctypes.c_void_p(None)
        _call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, none, none, 0)
        folder = _call(_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)
    try:
        yield folder
    finally:
        os.close(folder)


def _is_connection(number: int) -> bool:
    """Whether a FUSE connection has that number; not if that cannot be told."""
    try:
        with _control() as folder:
            os.stat(str(number), dir_fd=folder)
    except OSError:
        return False
    return True


def _abort(connection: int) -> OSError | None:
    """Abort a FUSE connection; return why that failed."""
    try:
        with _control() as folder:
            file = os.open(f"{connection}/abort", os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.write(file, b"1")
            finally:
                os.close(file)
    except OSError as error:
        return error
    return None


def _say_whether(what: str, error: OSError | None) -> None:
    _say(f"{what}: aborted" if error is None else f"{what}, cannot be aborted: {error.strerror}")


def _release(holder: int, access: Access, whose: str) -> None:
    """Have the userfaultfds of a process that are waited for let go of the client's memory."""
    page = os.sysconf("SC_PAGESIZE")
    start = access.start & -page
    size = -(-(access.start + access.size) // page) * page - start
    for number in _pending_of(holder):
        error = _unregister(holder, number, start, size)
        if error is None:
            _say(f"{whose} userfaultfd {number} has been told to let go of that memory")
        elif error.errno != EINVAL:  # that is somebody else's memory
            _say(f"{whose} userfaultfd {number} cannot be told to let go: {error.strerror}")


def _unregister(holder: int, number: int, start: int, size: int) -> OSError | None:
    try:
        pidfd = _open_pidfd(holder)
        try:
            copy = _call(_PIDFD_GETFD, pidfd, number, 0)
        finally:
            os.close(pidfd)
        try:
            fcntl.ioctl(copy, _UFFDIO_UNREGISTER, struct.pack("=QQ", start, size))
        finally:
            os.close(copy)
    except OSError as error:
        return error
    return None


def _waited_for(own: frozenset[int]) -> list[int]:
    """Return the processes whose userfaultfd somebody waits for, now and a while later."""
    waiting = {pid for pid in _processes() - own if any(_pending_of(pid))}
    time.sleep(_PATIENCE / 2)
    return sorted(pid for pid in waiting if any(_pending_of(pid)))


def _processes() -> set[int]:
    return {int(entry) for entry in os.listdir("/proc") if entry.isdecimal()}


def _pending_of(pid: int) -> Iterator[int]:
    """Yield the userfaultfds of a process that somebody waits for."""
    for number in _userfaultfds(pid):
        for line in _lines(f"/proc/{pid}/fdinfo/{number}"):
            if line.startswith("total:") and line.split()[1] != "0":
                yield number


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


def _call(number: int, *arguments: object) -> int:
    """Make a system call; raises OSError."""
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result


def _say(text: str) -> None:
    with suppress(OSError):
        print(f"binderd: {text}", file=sys.stderr, flush=True)
