# SPDX-License-Identifier: Apache-2.0
"""Frames in and out of a kernel channel, without waiting: the part of the loop that has no trio.

On a channel each read is one request and each write one reply. This is on the request path and
compiled (setup.py); the coroutines next door call it.
"""

from __future__ import annotations

import os
from errno import ECONNABORTED, ENODEV, ENOENT, ENOTCONN
from typing import TYPE_CHECKING, Final, Protocol

from binderd.heartbeat import beat

if TYPE_CHECKING:
    from collections.abc import Callable

# Results of ``read_frame`` that are no frame size.
WOULD_BLOCK: Final = -1
ENDED: Final = 0

# What a read can fail with besides EAGAIN (nothing to do) and EINTR (Python tries again by itself):
#   ENOENT        the request was given up while it was being copied to us: as if it had never been
#   ENODEV        the file system was unmounted: the end
#   ECONNABORTED  somebody aborted the connection (umount -f, or through sysfs): the end
_ENDS: Final = (ENODEV, ECONNABORTED)

# What a write can fail with because nobody waits for that reply any more:
#   ENOENT            the request was given up
#   ENODEV, ENOTCONN, ECONNABORTED  the connection has ended; the next read says so
_NOBODY_WAITS: Final = (ENOENT, ENODEV, ENOTCONN, ECONNABORTED)


class Receiver(Protocol):
    """A protocol server without I/O."""

    outgoing: list[bytes]

    def receive(self, frame: bytearray, size: int) -> None:
        """Handle the request at the start of ``frame`` and append what to write to ``outgoing``."""


def read_frame(fd: int, buffers: list[bytearray]) -> int:
    """Read the next request into the buffer; never waits.

    Args:
        fd: non-blocking.
        buffers: the one buffer, in a list that was made once for readv.

    Returns:
        Its size in bytes, WOULD_BLOCK, or ENDED when there will be no more.
    """
    while True:
        try:
            return os.readv(fd, buffers)
        except BlockingIOError:
            return WOULD_BLOCK
        except OSError as error:
            if error.errno in _ENDS:
                return ENDED
            if error.errno != ENOENT:
                raise


def write_frame(fd: int, frame: bytes) -> None:
    """Write one frame; it goes out whole or, where nobody waits for it any more, not at all.

    Raises:
        OSError: the kernel does not understand the frame.
    """
    try:
        os.write(fd, frame)
    except OSError as error:
        if error.errno not in _NOBODY_WAITS:
            raise


def write_all(fd: int, frames: list[bytes], report_bug: Callable[[OSError], None]) -> None:
    """Write frames in order and forget them; one that is not understood is reported."""
    for frame in frames:
        try:
            write_frame(fd, frame)
        except OSError as error:
            report_bug(error)
    frames.clear()


def serve_batch(
    fd: int,
    buffers: list[bytearray],
    receiver: Receiver,
    count_max: int,
    report_bug: Callable[[OSError], None],
) -> int:
    """Handle up to ``count_max`` requests and write the replies of each before the next is read.

    Returns:
        WOULD_BLOCK or ENDED when there was nothing more to read, else a positive number.
    """
    receive, outgoing, frame = receiver.receive, receiver.outgoing, buffers[0]
    size = WOULD_BLOCK
    for _ in range(count_max):
        size = read_frame(fd, buffers)
        if size <= 0:
            break
        beat()
        receive(frame, size)
        if outgoing:
            write_all(fd, outgoing, report_bug)
    return size
