# SPDX-License-Identifier: Apache-2.0
"""A client's identity, as it and others see it: namespaces, users, security context, nice value.

A number that one process gives another must be one that the other knows: a sender's process id in
the reader's pid namespace, its user in the reader's user namespace (I1).

Differs: the driver takes the namespaces of the thread that reads. Ours are those that the process
had when it opened the file.

Places, and what is raised, are as in ``linux/proc.py``.
"""

from __future__ import annotations

import fcntl
import os
from errno import EINVAL, ENOENT, EOPNOTSUPP
from functools import cache
from struct import Struct
from typing import Final

from binderd.linux.proc import (
    OWN,
    effective_capabilities,
    gone,
    open_in,
    place_of,
    read_in,
    status,
    status_field,
)

NO_ID: Final = 0xFFFFFFFF  # a user that a namespace has no number for

# <linux/nsfs.h>
_NS_GET_PARENT: Final = 0xB702
_NS_GET_OWNER_UID: Final = 0xB704
_NESTING_MAX: Final = 32  # user namespaces in one another, as the kernel allows them
_uid: Final = Struct("=I")

_CAP_SYS_NICE: Final = 23
_NICE_MAX: Final = 19
_NICE_VALUES: Final = 40
_NICE_LIMIT: Final = b"Max nice priority"

# What a kernel answers that has no security module to ask.
_NO_CONTEXT: Final = frozenset({EINVAL, ENOENT, EOPNOTSUPP})

# Containers are charged together; their numbers begin where those of users end.
_CONTAINER_FIRST: Final = 1 << 32


def namespace(place: str, kind: str) -> int:
    """Return the inode number by which a process' namespace is known."""
    try:
        return os.stat(f"{place}/ns/{kind}").st_ino
    except FileNotFoundError:
        raise gone() from None


@cache
def _own_namespace(kind: str) -> int:
    return namespace(OWN, kind)


def is_foreign(place: str) -> bool:
    """Return whether a process is in another pid or user namespace than we are."""
    return any(namespace(place, kind) != _own_namespace(kind) for kind in ("pid", "user"))


class PidNamespace:
    """A pid namespace beneath ours, and how its processes number others.

    Args:
        place: of a process in it.
    """

    __slots__ = ("_depth", "_inode")

    def __init__(self, place: str) -> None:
        self._inode = namespace(place, "pid")
        self._depth = len(_namespace_pids(place))

    def number_of(self, place: str) -> int:
        """Return the number of another process in it, 0 if it has none."""
        numbers = _namespace_pids(place)
        levels_down = len(numbers) - self._depth
        if levels_down < 0 or _ancestor_namespace(place, levels_down) != self._inode:
            return 0
        return numbers[self._depth - 1]


class Users:
    """The users of a process' user namespace.

    Args:
        place: of the process.
    """

    __slots__ = ("_place", "_ranges")

    def __init__(self, place: str) -> None:
        self._place = place
        self._ranges: list[tuple[int, int, int]] = []  # first inside, first outside, count

    def number_of(self, uid: int) -> int:
        """Return the number of one of our users in there, NO_ID if it has none."""
        if not self._ranges:  # they are set once in the life of a namespace
            for line in read_in(self._place, "uid_map").splitlines():
                inside, outside, count = (int(word) for word in line.split())
                self._ranges.append((inside, outside, count))
        for inside, outside, count in self._ranges:
            if outside <= uid < outside + count:
                return inside + uid - outside
        return NO_ID


def payer_of(tid: int) -> int:
    """Return the user that is charged for what a thread with an open request makes us keep.

    Returns:
        Its effective user. A process in a user namespace can have many users for nothing, so the
        owner of the outermost namespace counts; if that is root then that container does, as a
        number above those of users.
    """
    place = place_of(tid)
    if namespace(place, "user") == _own_namespace("user"):
        return user_of(place)
    fd = open_in(place, "ns/user", os.O_RDONLY)
    try:
        for _ in range(_NESTING_MAX):
            parent = fcntl.ioctl(fd, _NS_GET_PARENT)
            if os.fstat(parent).st_ino == _own_namespace("user"):
                os.close(parent)
                break
            os.close(fd)
            fd = parent
        owner: int = _uid.unpack(fcntl.ioctl(fd, _NS_GET_OWNER_UID, bytes(_uid.size)))[0]
        return owner or _CONTAINER_FIRST + os.fstat(fd).st_ino
    finally:
        os.close(fd)


def payer_of_request(tid: int, uid: int) -> int:
    """Return the user that is charged for what a request makes us keep that opens no device.

    Args:
        tid: its thread, 0 if that is in no namespace that we see.
        uid: its user.

    Returns:
        As ``payer_of``. All that we cannot see are charged together, as one container.
    """
    if not tid:
        return _CONTAINER_FIRST
    try:
        return payer_of(tid)
    except OSError:
        return uid or _CONTAINER_FIRST  # a user that cannot be told is not root


def security_context(tid: int) -> bytes | None:
    """Return the security context of a thread with its NUL, None where no LSM gives one (I2).

    Differs: where AppArmor gives it, the driver gets none, and fails the call.
    """
    try:
        with open(f"{place_of(tid)}/attr/current", "rb", buffering=0) as file:
            context = file.read().rstrip(b"\n\0")
    except OSError as error:
        if error.errno in _NO_CONTEXT:
            return None
        raise
    return context + b"\0" if context else None


def user_of(place: str) -> int:
    """Return the effective user of a process or thread."""
    return int(status_field(place, b"Uid").split()[1])


def credentials_of(place: str) -> tuple[int, frozenset[int]]:
    """Return the effective user of a thread, and its effective and supplementary groups.

    From one reading, as they may change between two.
    """
    fields = status(place)
    groups = [fields[b"Gid"].split()[1], *fields[b"Groups"].split()]
    return int(fields[b"Uid"].split()[1]), frozenset(int(group) for group in groups)


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
        pass  # gone, or we may not, or could not ask: it stays as it is, and the next call tries


def _nice_limit(tid: int) -> int:
    """Return the RLIMIT_NICE of a thread, as that counts.

    Raises:
        OSError: ESRCH, it is gone; others, it could not be asked.
    """
    # Not prlimit(2): that demands CAP_SYS_RESOURCE for other users' processes, also to look.
    for line in read_in(place_of(tid), "limits").splitlines():
        if line.startswith(_NICE_LIMIT):
            soft = line[len(_NICE_LIMIT) :].split()[0]
            return _NICE_VALUES if soft == b"unlimited" else int(soft)
    raise gone()


def _may_set_nice(tid: int) -> bool:
    """Return whether a thread has CAP_SYS_NICE where it counts, in our user namespace."""
    place = place_of(tid)
    capabilities = effective_capabilities(place)
    return bool(capabilities >> _CAP_SYS_NICE & 1) and (
        namespace(place, "user") == _own_namespace("user")
    )


def _namespace_pids(place: str) -> list[int]:
    """Return a process' ids, from our namespace down to its own."""
    return [int(word) for word in status_field(place, b"NSpid").split()]


def _ancestor_namespace(place: str, levels_up: int) -> int:
    """Return the pid namespace some levels above that of a process, 0 if we may not know it."""
    fd = open_in(place, "ns/pid", os.O_RDONLY)
    try:
        for _ in range(levels_up):
            try:
                parent = fcntl.ioctl(fd, _NS_GET_PARENT)
            except PermissionError:
                return 0  # above our own
            os.close(fd)
            fd = parent
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)
