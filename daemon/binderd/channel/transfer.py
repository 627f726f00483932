# SPDX-License-Identifier: Apache-2.0
"""Frames in and out of a kernel channel, without waiting: the part of the loop that has no trio.

On a channel each read is one request and each write one reply. This is on the request path and
compiled (setup.py); the coroutines of ``pump.py`` call it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderd.channel.readiness import NOTHING, READY
from binderd.edge.calls import beat, read_frame, write_frame
from binderd.edge.plain import ENDED, WOULD_BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.channel.readiness import Readiness
    from binderd.fuse.server import Server
    from binderd.fuse.turns import Turns

MOMENT_NS: Final = 500_000  # so long is a channel served in one go
_LOOK_NS: Final = 100_000  # after so long the channel is looked at before requests that wait

_beat: Final = beat
_read_frame: Final = read_frame
_write_frame: Final = write_frame


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
            _write_frame(fd, frame)
        except OSError as error:
            report_bug(error)
    frames.clear()


def serve_while_busy(
    fd: int,
    frame: bytearray,
    readiness: Readiness,
    until: int,
    receiver: Server,
    turns: Turns,
    report_bug: Callable[[OSError], None],
    trace: Callable[[bool, bytes], None] | None,
) -> int:
    """Serve as long as requests follow each other, or until a time; see ``serve``.

    Returns:
        WOULD_BLOCK when there has been nothing to read for a moment, ENDED, or a positive number:
        there may be more.
    """
    while True:
        size = serve(fd, frame, receiver, turns, report_bug, trace)
        if size == ENDED or turns.now >= until:
            return size
        if size == WOULD_BLOCK:
            found = readiness.look()
            if found != READY:
                return WOULD_BLOCK if found == NOTHING else 1


def serve(
    fd: int,
    frame: bytearray,
    receiver: Server,
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
    outgoing = receiver.outgoing
    now = turns.begin()
    end = now + MOMENT_NS
    if turns.waiting:
        _run_waiting(turns, now, now)
    while True:
        size = _read_frame(fd, frame)
        if size > 0:
            if trace is not None:
                trace(True, bytes(frame[:size]))
            _beat()
            receiver.receive(frame, size)
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
    _beat()
    if not turns.run_next(now):
        return 0
    now = turns.charge()
    while now < until:
        _beat()
        if not turns.run_next(now):
            break
        now = turns.charge()
    return now
