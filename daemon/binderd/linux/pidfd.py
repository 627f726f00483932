# SPDX-License-Identifier: Apache-2.0
"""Pidfds: descriptors that stand for one process or thread, also when its number is reused."""

from __future__ import annotations

import ctypes
import os
import select
import signal
from contextlib import contextmanager
from errno import EINVAL
from typing import TYPE_CHECKING, Final

from binderd.linux.libc import QUICK, check
from binderd.linux.proc import process_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIDFD_THREAD: Final = os.O_EXCL  # since Linux 6.9

_pidfd_getfd: Final = QUICK.pidfd_getfd
_pidfd_getfd.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_uint]
_pidfd_getfd.restype = ctypes.c_int


def open_process(pid: int) -> int:
    """Return a pidfd of a process, which is readable once that has ended; the caller closes it."""
    return os.pidfd_open(pid)


def open_thread(tid: int) -> int:
    """Return a pidfd of a single thread; as ``open_process``.

    Raises:
        OSError: EINVAL before Linux 6.9, which has them of processes only.
    """
    return os.pidfd_open(tid, _PIDFD_THREAD)


def open_for_descriptors(tid: int) -> int:
    """Return a pidfd that leads to the descriptors of thread ``tid``, whose number is its own.

    Differs: before Linux 6.9 there are pidfds of processes only, so a thread that has a table of
    descriptors of its own (without CLONE_FILES) is taken for its process' first one; and where that
    has ended nothing can be taken.

    Raises:
        OSError: there is none.
    """
    try:
        return open_thread(tid)
    except OSError as error:
        if error.errno != EINVAL:
            raise
    return open_process(process_of(tid))


@contextmanager
def opened_process(pid: int) -> Iterator[int]:
    """``open_process`` for the length of a block."""
    fd = open_process(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def has_ended(pidfd: int) -> bool:
    """Return whether the process or thread has ended; its number may have been reused then."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def take_descriptor(pidfd: int, fd: int) -> int:
    """Return a descriptor of ours for the open file that a process or thread has under ``fd``.

    Raises:
        OSError: EBADF, it has none there; others: it cannot be had.
    """
    return check(_pidfd_getfd(pidfd, fd, 0))


def kill(pidfd: int) -> None:
    """Kill a process; an open directory /proc/PID stands for its process as a pidfd does."""
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
