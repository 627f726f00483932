# SPDX-License-Identifier: Apache-2.0
"""Questions to /proc about processes and threads.

A question has three outcomes. It is answered; or the process that it is about is gone, which every
function here and in ``maps.py`` reports as ``ProcessLookupError``; or it could not be asked, for
want of a descriptor or memory or because access is denied: any other ``OSError``, from which
nothing follows.

A place is where /proc shows a process or thread: ``/proc/TID`` as long as a request of that thread
is open, for its number is its own till then; afterwards the path of a descriptor that was opened
meanwhile.
"""

from __future__ import annotations

import os
from errno import ESRCH
from typing import Final

FOLDER: Final = "/proc"
OWN: Final = "/proc/self"  # the place of this process
_PTRACE_SCOPE = f"{FOLDER}/sys/kernel/yama/ptrace_scope"

_READ_SIZE: Final = 1 << 16
_CALL_SIZE: Final = 512  # bytes; more than ``syscall`` and ``stat`` have


def place_of(tid: int) -> str:
    """Return the place of a process, or of a thread that has a request open."""
    return f"{FOLDER}/{tid}"


def path_of(fd: int) -> str:
    """Return a path that leads to what a descriptor of ours has open; of a directory, a place."""
    return f"{OWN}/fd/{fd}"


def open_in(place: str, name: str, flags: int) -> int:
    """Open a file of /proc; return the descriptor, which the caller closes.

    Args:
        place: of a process or thread.
        name: of the file, beneath it.
        flags: of open(2).
    """
    try:
        return os.open(f"{place}/{name}", flags | os.O_CLOEXEC)
    except FileNotFoundError:
        raise gone() from None


def read_in(place: str, name: str) -> bytes:
    """Return what a file of /proc says; arguments as ``open_in``."""
    fd = open_in(place, name, os.O_RDONLY)
    try:
        pieces = []
        while piece := os.read(fd, _READ_SIZE):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def lines_in(place: str, name: str) -> list[bytes]:
    """Return the lines of a file of /proc; nothing but a newline ends one."""
    found = read_in(place, name).split(b"\n")
    if not found[-1]:
        del found[-1]
    return found


def exists_in(place: str, name: str) -> bool:
    """Return whether there is a file of /proc; arguments as ``open_in``."""
    try:
        os.stat(f"{place}/{name}")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def gone() -> ProcessLookupError:
    """Return what is raised where the owner of a number has gone."""
    return ProcessLookupError(ESRCH, os.strerror(ESRCH))


def status(place: str) -> dict[bytes, bytes]:
    """Return what the status of a process or thread says, by name; of one moment."""
    rows = [line.partition(b":") for line in read_in(place, "status").splitlines()]
    return {name: value for name, _, value in rows}


def status_field(place: str, name: bytes) -> bytes:
    """Return what the status of a process or thread says under ``name``; nothing: it has none."""
    start = name + b":"
    for line in read_in(place, "status").splitlines():
        if line.startswith(start):
            return line[len(start) :]
    return b""


def process_of(tid: int) -> int:
    """Return the process id (tgid) of the thread ``tid``, both in our pid namespace."""
    return int(status_field(place_of(tid), b"Tgid"))


def has_filter(place: str) -> bool:
    """Return whether a thread is under a seccomp filter, or can hardly call anything at all."""
    return status_field(place, b"Seccomp").strip() not in {b"", b"0"}


def tracer_of(place: str) -> int:
    """Return which process traces a thread, 0 if none does."""
    return int(status_field(place, b"TracerPid") or b"0")


def effective_capabilities(place: str) -> int:
    """Return the effective capabilities of a thread, a bit for each."""
    return int(status_field(place, b"CapEff"), 16)


def call_of(place: str) -> tuple[int, list[int]]:
    """Return the system call in which a thread sleeps: its number, and arguments and registers.

    Raises:
        ValueError: it sleeps in none, or runs.
    """
    number, *rest = _glance(place, "syscall").split()
    return int(number), [int(value, 16) for value in rest]


def is_running(place: str) -> bool:
    """Return whether a process runs, or waits for nothing but a processor."""
    return _glance(place, "stat").rpartition(b")")[2].split()[0] == b"R"


def is_over(stat: int) -> bool:
    """Return whether a thread has ended, whose number may be another's by now.

    Args:
        stat: a descriptor of its ``stat``, opened while it was there.
    """
    try:
        text = os.pread(stat, _CALL_SIZE, 0)
    except ProcessLookupError:
        return True
    return text.rpartition(b") ")[2][:1] in (b"Z", b"X")


def _glance(place: str, name: str) -> bytes:
    """Return what one read of a file of /proc gives."""
    fd = open_in(place, name, os.O_RDONLY)
    try:
        return os.read(fd, _CALL_SIZE)
    finally:
        os.close(fd)


def link_of(place: str, name: str) -> str:
    """Return where a link of /proc leads to."""
    return os.readlink(f"{place}/{name}")


def processes() -> list[int]:
    """Return the number of every process."""
    return [int(entry) for entry in os.listdir(FOLDER) if entry.isdecimal()]


def threads_of(place: str) -> list[int]:
    """Return the number of every thread of a process."""
    return [int(entry) for entry in os.listdir(f"{place}/task")]


def children_of(pid: int) -> list[int]:
    """Return the processes that the first thread of a process has forked."""
    return [int(child) for child in read_in(place_of(pid), f"task/{pid}/children").split()]


def set_memory_score(score: int) -> None:
    """Say how soon this process is killed for memory: -1000, never, to 1000, first of all.

    Raises:
        OSError: EACCES, less than before takes CAP_SYS_RESOURCE.
    """
    fd = os.open(f"{OWN}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(score).encode())
    finally:
        os.close(fd)


def check() -> None:
    """Raise OSError where there is no /proc that knows this process."""
    os.stat(f"{OWN}/mountinfo")


def file_system_types() -> dict[bytes, bool]:
    """Return which types of file systems this kernel has, and whether each lies on a disk."""
    rows = [line.split(b"\t") for line in lines_in(FOLDER, "filesystems")]
    return {row[1]: row[0] != b"nodev" for row in rows}


def ptrace_scope() -> int | None:
    """Return Yama's kernel.yama.ptrace_scope, None where there is no Yama."""
    try:
        with open(_PTRACE_SCOPE, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def own_descriptors() -> list[str]:
    """Return the numbers of the descriptors of this process."""
    return os.listdir(f"{OWN}/fd")
