# SPDX-License-Identifier: Apache-2.0
"""Taking open files out of clients (the port ``File``).

A sender's descriptor is looked up while its request is open, so the thread and its table of
descriptors are still there; afterwards the sender may close it (O7).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
from errno import EBADF, EINVAL
from struct import Struct
from typing import Final, Protocol

from binderd.engine.ports import NoAnswer
from binderd.memory.proc import process_of

_PIDFD_THREAD: Final = os.O_EXCL

_pidfd_getfd = ctypes.PyDLL(None, use_errno=True).pidfd_getfd
_pidfd_getfd.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_uint]
_pidfd_getfd.restype = ctypes.c_int


_AT_EMPTY_PATH: Final = 0x1000
_AT_STATX_DONT_SYNC: Final = 0x4000  # ask no server
_STATX_TYPE: Final = 0x01
_STATX_SIZE: Final = 256
_MODE: Final = Struct("=28xH")
_DEVICE: Final = Struct("=136xII")  # major and minor number of the file system

_statx = ctypes.PyDLL(None).statx
_statx_result = ctypes.create_string_buffer(_STATX_SIZE)


class Disposal(Protocol):
    """Closes what clients gave us, which may take any time."""

    def dispose(self, fd: int, *, flushes: bool) -> None:
        """Close ``fd``, without waiting for what that may do.

        Args:
            flushes: may any close, not only the last, take its time?
        """


class TakenFile:
    """An open file of a sender, under a descriptor of ours."""

    __slots__ = ("_disposal", "fd")

    def __init__(self, fd: int, disposal: Disposal) -> None:
        self.fd = fd
        self._disposal = disposal

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._disposal.dispose(fd, flushes=_flushes(fd))


def _device_of(fd: int) -> tuple[int, int, int]:
    """Return a file's mode, and its file system's major and minor number."""
    flags = _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC
    if _statx(fd, b"", flags, _STATX_TYPE, _statx_result):
        return stat.S_IFREG, 0, 0
    mode: int = _MODE.unpack_from(_statx_result)[0]
    major, minor = _DEVICE.unpack_from(_statx_result)
    return mode, major, minor


def _memory_device() -> tuple[int, int]:
    fd = os.memfd_create("binderd", os.MFD_CLOEXEC)
    try:
        return _device_of(fd)[1:]
    finally:
        os.close(fd)


_MEMORY_DEVICE: Final = _memory_device()


def memory_device() -> tuple[int, int]:
    """Return the major and minor number that memfds and shared anonymous memory show."""
    return _MEMORY_DEVICE


def _flushes(fd: int) -> bool:
    """Whether a file's file system may want to know of each close.

    Such are those of a network and of user space, our own first of all. They have no disk; it does
    no harm to suspect others without one.
    """
    mode, major, minor = _device_of(fd)
    has_data = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return has_data and not major and (major, minor) != _MEMORY_DEVICE


def take_file(tid: int, fd: int, disposal: Disposal) -> TakenFile | None:
    """Return the open file that thread ``tid`` has under ``fd``, None if it has none.

    Raises:
        NoAnswer: it could not be asked, for want of a descriptor of ours for example.
    """
    if not 0 <= fd < 1 << 31:
        return None
    try:
        pidfd = _open_pidfd(tid)
    except OSError as error:
        raise NoAnswer from error
    try:
        taken: int = _pidfd_getfd(pidfd, fd, 0)
        errno = ctypes.get_errno()
    finally:
        os.close(pidfd)
    if taken < 0:
        if errno != EBADF:
            raise NoAnswer(errno)
        return None
    if fcntl.fcntl(taken, fcntl.F_GETFL) & os.O_PATH:  # the driver's fget takes none of these
        os.close(taken)
        return None
    return TakenFile(taken, disposal)


def _open_pidfd(tid: int) -> int:
    """Return a pidfd that leads to the descriptors of thread ``tid``.

    Differs: before Linux 6.9 there are pidfds of processes only, so a thread that has a table of
    descriptors of its own (without CLONE_FILES) is taken for its process' first one; and where that
    has ended nothing can be taken.
    """
    try:
        return os.pidfd_open(tid, _PIDFD_THREAD)
    except OSError as error:
        if error.errno != EINVAL:
            raise
    return os.pidfd_open(process_of(tid))
