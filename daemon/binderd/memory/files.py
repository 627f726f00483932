# SPDX-License-Identifier: Apache-2.0
"""Taking open files out of clients (the port ``File``).

A sender's descriptor is looked up while its request is open, so the thread and its table of
descriptors are still there; afterwards the sender may close it (O7).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from errno import EINVAL
from typing import Final

from binderd.memory.proc import process_of

_PIDFD_THREAD: Final = os.O_EXCL

_pidfd_getfd = ctypes.PyDLL(None).pidfd_getfd
_pidfd_getfd.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_uint]
_pidfd_getfd.restype = ctypes.c_int


class TakenFile:
    """An open file of a sender, under a descriptor of ours."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def take_file(tid: int, fd: int) -> TakenFile | None:
    """Return the open file that thread ``tid`` has under ``fd``, None if it has none.

    Descriptors of ours that run out look like a bad descriptor to the sender: its transaction fails
    and nothing else does.
    """
    if not 0 <= fd < 1 << 31:
        return None
    try:
        pidfd = _open_pidfd(tid)
    except OSError:
        return None
    try:
        taken: int = _pidfd_getfd(pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if taken < 0:
        return None
    if fcntl.fcntl(taken, fcntl.F_GETFL) & os.O_PATH:  # the driver's fget takes none of these
        os.close(taken)
        return None
    return TakenFile(taken)


def _open_pidfd(tid: int) -> int:
    """Return a pidfd that leads to the descriptors of thread ``tid``.

    Differs: before Linux 6.9 there are pidfds of processes only, so a thread that has a table of
    descriptors of its own (without CLONE_FILES) is taken for its process' first one.
    """
    try:
        return os.pidfd_open(tid, _PIDFD_THREAD)
    except OSError as error:
        if error.errno != EINVAL:
            raise
    return os.pidfd_open(process_of(tid))
