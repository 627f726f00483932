# SPDX-License-Identifier: Apache-2.0
"""flock(2) of devices: each open has its own inode, so the kernel cannot tell which share one.

A lock that has to wait is data: its request stays unanswered until the lock is free or a signal
arrives (FUSE_INTERRUPT). The kernel names the open file that a lock belongs to by a number, the
``owner``. Requests that end an open file or another request pass through here on their way.

Differs: the locks of fcntl(2) are not served; the kernel keeps them per inode, so between two opens
they exclude no one.

Mirrors flock_lock_inode. Nothing here may know what a device is good for.
"""

from __future__ import annotations

from errno import EAGAIN, EINTR, EINVAL, ENOLCK
from typing import TYPE_CHECKING, Final

from binderd.fuse.frames import BODY, failure, success
from binderwire.fuse_abi import (
    F_RDLCK,
    F_UNLCK,
    F_WRLCK,
    FUSE_LK_FLOCK,
    FUSE_RELEASE_FLOCK_UNLOCK,
    fuse_interrupt_in,
    fuse_lk_in,
    fuse_release_in,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.fuse.directory import Device
    from binderd.fuse.server import Handler
    from binderd.fuse.tree import Charge, Tree

# Requests that wait for one device; more get ENOLCK.
WAITING_MAX: Final = 1024


class _Locks:
    """The locks of one device."""

    __slots__ = ("held", "waiting")

    def __init__(self) -> None:
        self.held: dict[int, int] = {}  # by owner: F_RDLCK or F_WRLCK
        self.waiting: dict[int, tuple[int, int]] = {}  # by request: (owner, kind); oldest first

    def is_free(self, kind: int) -> bool:
        """Whether a lock of that kind can be had by an open file that has none."""
        if kind == F_WRLCK or len(self.held) == 1:
            return not self.held or (kind == F_RDLCK and F_WRLCK not in self.held.values())
        return True  # nobody is alone


class LockHandlers:
    """The requests that concern locks.

    Args:
        tree: knows which inodes are of one device.
        outgoing: where replies to requests that have waited are put.
        release: handles FUSE_RELEASE.
        interrupt: handles FUSE_INTERRUPT.
        charge: called with user and thread of a request that waits; returns None if there is no
            room for that. None: it is not counted.
    """

    __slots__ = (
        "_by_device",
        "_by_request",
        "_charge",
        "_interrupt",
        "_outgoing",
        "_release",
        "_tree",
    )

    def __init__(
        self,
        tree: Tree,
        outgoing: list[bytes],
        release: Handler,
        interrupt: Handler,
        charge: Callable[[int, int], Charge | None] | None = None,
    ) -> None:
        self._tree = tree
        self._charge = charge
        self._outgoing = outgoing
        self._release = release
        self._interrupt = interrupt
        self._by_device: dict[Device | int, _Locks] = {}  # those with a lock or a wait
        # Which locks does a request wait for, and what is its user charged?
        self._by_request: dict[int, tuple[_Locks, Charge | None]] = {}

    def set_lock(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_SETLK: lock or unlock now or never."""
        return self._set(unique, nodeid, uid, tid, frame, waits=False)

    def wait_for_lock(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_SETLKW: lock or unlock, and wait for that."""
        return self._set(unique, nodeid, uid, tid, frame, waits=True)

    def release(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_RELEASE: the open file's lock goes with it."""
        _, _, flags, owner = fuse_release_in.unpack_from(frame, BODY)
        if flags & FUSE_RELEASE_FLOCK_UNLOCK:
            key = self._key(nodeid)
            locks = self._by_device.get(key)
            if locks is not None and locks.held.pop(owner, None) is not None:
                self._settle(key, locks)
        return self._release(unique, nodeid, uid, tid, frame, size)

    def interrupt(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, size: int
    ) -> bytes | int | None:
        """FUSE_INTERRUPT of a request that waits for a lock, or of another one."""
        interrupted = fuse_interrupt_in.unpack_from(frame, BODY)[0]
        if interrupted not in self._by_request:
            return self._interrupt(unique, nodeid, uid, tid, frame, size)
        del self._end_wait(interrupted).waiting[interrupted]
        self._outgoing.append(failure(interrupted, EINTR))
        return None

    def _set(
        self, unique: int, nodeid: int, uid: int, tid: int, frame: bytearray, *, waits: bool
    ) -> bytes | int | None:
        _, owner, _, _, kind, _, flags, _ = fuse_lk_in.unpack_from(frame, BODY)
        if not flags & FUSE_LK_FLOCK or kind > F_UNLCK:
            return EINVAL
        key = self._key(nodeid)
        locks = self._by_device.get(key)
        if locks is None:
            locks = self._by_device[key] = _Locks()
        before = locks.held.pop(owner, None)  # one that wants another kind lets go of what it has
        answer: bytes | int | None = b""
        if kind != F_UNLCK:
            if locks.is_free(kind):
                locks.held[owner] = kind
            elif not waits:
                answer = EAGAIN
            elif self._wait(locks, unique, uid, tid):
                locks.waiting[unique] = (owner, kind)
                answer = None
            else:
                answer = ENOLCK
        if before is not None or not (locks.held or locks.waiting):
            self._settle(key, locks)
        return answer

    def _wait(self, locks: _Locks, unique: int, uid: int, tid: int) -> bool:
        """Note that a request waits; False if it may not."""
        charge: Charge | None = None
        if len(locks.waiting) >= WAITING_MAX:
            return False
        if self._charge is not None:
            charge = self._charge(uid, tid)
            if charge is None:
                return False
        self._by_request[unique] = (locks, charge)
        return True

    def _end_wait(self, unique: int) -> _Locks:
        locks, charge = self._by_request.pop(unique)
        if charge is not None:
            charge.end()
        return locks

    def _key(self, nodeid: int) -> Device | int:
        node = self._tree.node(nodeid)
        return nodeid if node is None else node.device

    def _settle(self, key: Device | int, locks: _Locks) -> None:
        """Give waiting requests what has become free."""
        for unique, (owner, kind) in list(locks.waiting.items()):
            if locks.is_free(kind):
                del locks.waiting[unique]
                self._end_wait(unique)
                locks.held[owner] = kind
                self._outgoing.append(success(unique, b""))
        if not locks.held and not locks.waiting:
            del self._by_device[key]
