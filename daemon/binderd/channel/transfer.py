# SPDX-License-Identifier: Apache-2.0
"""Frames in and out of a kernel channel, without waiting: the part of the loop that has no trio.

On a channel each read is one request and each write one reply. This is on the request path and
compiled (setup.py); the coroutines of ``pump.py`` call it.
"""

from __future__ import annotations

import os
from errno import ECONNABORTED, ENODEV, ENOENT, ENOTCONN
from typing import TYPE_CHECKING, Final, Protocol

from binderd.heartbeat import beat

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.fuse.turns import Turns

MOMENT_NS: Final = 500_000  # so long is a channel served in one go
_LOOK_NS: Final = 100_000  # after so long the channel is looked at before requests that wait

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


def write_all(
    fd: int,
    frames: list[bytes],
    report_bug: Callable[[OSError], None],
    trace: Callable[[bool, bytes], None] | None,
) -> None:
    """Write frames in order and forget them; one that is not understood is reported."""
    for frame in frames:
        if trace is not None:
            trace(False, frame)
        try:
            write_frame(fd, frame)
        except OSError as error:
            report_bug(error)
    frames.clear()


def serve(
    fd: int,
    buffers: list[bytearray],
    receiver: Receiver,
    turns: Turns,
    report_bug: Callable[[OSError], None],
    trace: Callable[[bool, bytes], None] | None,
) -> int:
    """Serve for a moment: handle requests, and write the replies of each before the next is read.

    Those that wait for their turn are of any channel; they have it when the channel has nothing
    to read, and one of them has it in any case.

    Returns:
        WOULD_BLOCK or ENDED when there was nothing more to do, else a positive number.
    """
    receive, outgoing, frame = receiver.receive, receiver.outgoing, buffers[0]
    now = turns.begin()
    end = now + MOMENT_NS
    if turns.waiting:
        _run_waiting(turns, now, now)
    while True:
        size = read_frame(fd, buffers)
        if size > 0:
            if trace is not None:
                trace(True, bytes(frame[:size]))
            beat()
            receive(frame, size)
            if outgoing:
                write_all(fd, outgoing, report_bug, trace)
            now = turns.charge()
        elif size == ENDED:
            return ENDED
        else:
            now = _run_waiting(turns, now, now + _LOOK_NS) if turns.waiting else 0
            if not now:
                turns.rest()
                return WOULD_BLOCK
        if now >= end:
            return size if size > 0 else 1


def _run_waiting(turns: Turns, now: int, until: int) -> int:
    """Serve a request that waits, and others up to a time; return the time, 0: none's turn."""
    beat()
    if not turns.run_next(now):
        return 0
    now = turns.charge()
    while now < until:
        beat()
        if not turns.run_next(now):
            break
        now = turns.charge()
    return now
