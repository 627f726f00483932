# SPDX-License-Identifier: Apache-2.0
"""Who a client is, as itself and others see it: namespaces, security context, nice value.

A number that one process gives another must be one that the other knows: a sender's process id in
the reader's pid namespace, its user in the reader's user namespace (I1).

Differs: the driver takes the namespaces of the thread that reads. Ours are those that the process
had when it opened the file.
"""

from __future__ import annotations

import fcntl
import os
from errno import ESRCH
from functools import cache
from typing import Final

NO_ID: Final = 0xFFFFFFFF  # a user that a namespace has no number for

_NS_GET_PARENT: Final = 0xB702  # <linux/nsfs.h>
_CAP_SYS_NICE: Final = 23
_NICE_MAX: Final = 19
_NICE_VALUES: Final = 40
_NICE_LIMIT: Final = b"Max nice priority"


@cache
def _own_namespaces() -> tuple[int, int]:
    return _namespace(os.getpid(), "pid"), _namespace(os.getpid(), "user")


def _namespace(pid: int, kind: str) -> int:
    """Return the inode number by which a namespace is known, 0 if the process is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return 0


def is_foreign(pid: int) -> bool:
    """Return whether a process is in another pid or user namespace than we are."""
    return (_namespace(pid, "pid"), _namespace(pid, "user")) != _own_namespaces()


def pid_as_seen_by(reader: int, pid: int) -> int:
    """Return the process id of ``pid`` in the pid namespace of ``reader``, 0 if it has none there.

    Args:
        reader: a process id in our namespace.
        pid: another.
    """
    reader_ids, ids = _namespace_pids(reader), _namespace_pids(pid)
    levels_down = len(ids) - len(reader_ids)
    if not reader_ids or levels_down < 0:
        return 0
    if _ancestor_namespace(pid, levels_down) != _namespace(reader, "pid"):
        return 0
    return ids[len(reader_ids) - 1]


def uid_as_seen_by(reader: int, uid: int) -> int:
    """Return a user id of ours as the user namespace of ``reader`` has it, else NO_ID."""
    try:
        with open(f"/proc/{reader}/uid_map", encoding="ascii") as lines:
            for line in lines:
                inside, outside, count = (int(word) for word in line.split())
                if outside <= uid < outside + count:
                    return inside + uid - outside
    except OSError:
        pass
    return NO_ID


def security_context(tid: int) -> bytes | None:
    """Return the security context of a thread with its NUL, None where no LSM gives one (I2).

    Differs: where AppArmor gives it, the driver gets none, and fails the call.
    """
    try:
        with open(f"/proc/{tid}/attr/current", "rb") as file:
            context = file.read().rstrip(b"\n\0")
    except OSError:
        return None
    return context + b"\0" if context else None


def user_of(pid: int) -> int:
    """Return the effective user of a process, NO_ID if it is gone."""
    fields = _status_field(pid, b"Uid:").split()
    return int(fields[1]) if fields else NO_ID


def nice_of(tid: int) -> int:
    """Return the nice value of a thread, 0 if it is gone."""
    try:
        return os.getpriority(os.PRIO_PROCESS, tid)
    except OSError:
        return 0


def set_nice(tid: int, nice: int) -> None:
    """Give a thread a nice value as far as its own RLIMIT_NICE and CAP_SYS_NICE allow.

    Mirrors binder_set_nice: where the value is not allowed it takes the best that is, if any.
    """
    try:
        limit = _nice_limit(tid)
        wanted = _NICE_MAX + 1 - nice  # as the limit counts: 1 (nicest) to 40
        is_within = 0 <= wanted <= limit
        if not is_within and not _may_set_nice(tid):
            nice = _NICE_MAX + 1 - limit
        if nice <= _NICE_MAX:
            os.setpriority(os.PRIO_PROCESS, tid, nice)
    except OSError:
        pass  # gone, or we may not: then it stays as it is


def _nice_limit(tid: int) -> int:
    """Return the RLIMIT_NICE of a thread, as that counts.

    Raises:
        OSError: ESRCH, it is gone.
    """
    # Not prlimit(2): that demands CAP_SYS_RESOURCE for other users' processes, also to look.
    with open(f"/proc/{tid}/limits", "rb") as limits:
        for line in limits:
            if line.startswith(_NICE_LIMIT):
                soft = line[len(_NICE_LIMIT) :].split()[0]
                return _NICE_VALUES if soft == b"unlimited" else int(soft)
    raise OSError(ESRCH, os.strerror(ESRCH))


def _may_set_nice(tid: int) -> bool:
    """Return whether a thread has CAP_SYS_NICE where it counts, in our user namespace."""
    capabilities = int(_status_field(tid, b"CapEff:") or b"0", 16)
    return bool(capabilities >> _CAP_SYS_NICE & 1) and (
        _namespace(tid, "user") == _own_namespaces()[1]
    )


def _namespace_pids(pid: int) -> list[int]:
    """Return a process' ids, from our namespace down to its own."""
    return [int(word) for word in _status_field(pid, b"NSpid:").split()]


def _status_field(pid: int, name: bytes) -> bytes:
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            for line in status:
                if line.startswith(name):
                    return line[len(name) :]
    except OSError:
        pass
    return b""


def _ancestor_namespace(pid: int, levels_up: int) -> int:
    """Return the pid namespace some levels above that of ``pid``, 0 if it cannot be had."""
    try:
        fd = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for _ in range(levels_up):
                parent = fcntl.ioctl(fd, _NS_GET_PARENT)
                os.close(fd)
                fd = parent
            return os.fstat(fd).st_ino
        finally:
            os.close(fd)
    except OSError:
        return 0
