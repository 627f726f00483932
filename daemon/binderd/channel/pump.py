# SPDX-License-Identifier: Apache-2.0
"""The loop: requests to the session, each one's replies back to the kernel.

Cancellation: once a request is read it is handled and its replies are written with no checkpoint in
between, so a cancelled pump never loses one; or it waits for its turn, and the channel is closed
before it has it. Trio gets its turn every few milliseconds only: a checkpoint costs as much as a
request, and waiting with trio costs more. A channel that was busy a moment ago is therefore waited
for a millisecond directly, before trio is asked to. That goes by time: however long requests take,
signals, timers and the ends of threads are seen, and other channels served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from binderd.channel.transfer import serve_while_busy, write_all
from binderd.edge.plain import ENDED, WOULD_BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.channel.kernel_fd import KernelFd
    from binderd.fuse.server import Server
    from binderd.fuse.turns import Turns

CHECKPOINT_NS: Final = 3_000_000  # so long without one, while there is nobody else to serve
_NS_PER_SECOND: Final = 1_000_000_000


class Pump:
    """Moves frames between a kernel channel and a session.

    Args:
        channel: read from and written to by nobody else.
        session: handles the requests.
        turns: of all users; the session has the same.
        report_bug: called with the exception when the kernel does not understand a reply.
        trace: called with (True, request) and (False, reply), for debugging only.
    """

    __slots__ = (
        "_channel",
        "_report_bug",
        "_rounds",
        "_rounds_seen",
        "_session",
        "_turns",
        "_waiting",
        "trace",
    )

    def __init__(
        self,
        channel: KernelFd,
        session: Server,
        turns: Turns,
        report_bug: Callable[[OSError], None],
        trace: Callable[[bool, bytes], None] | None = None,
    ) -> None:
        self._channel = channel
        self._session = session
        self._turns = turns
        self._report_bug = report_bug
        self.trace = trace
        self._rounds = 0  # how often has the loop gone round?
        self._rounds_seen = -1  # by the last ``is_alive``
        self._waiting: trio.CancelScope | None = None  # while it waits for the channel

    async def run(self) -> None:
        """Serve until the file system is unmounted.

        Raises:
            trio.ClosedResourceError: the channel was closed.
        """
        channel, turns = self._channel, self._turns
        checked = turns.begin()
        while True:
            self._rounds += 1
            until = checked + channel.timeslice(CHECKPOINT_NS)
            size = self._serve(until) if channel.fileno() >= 0 else WOULD_BLOCK
            if size == ENDED:
                return
            if size > 0 and turns.now < until:
                continue
            if size > 0:
                await trio.lowlevel.checkpoint()
            else:
                await self._wait()
            checked = turns.begin()

    async def _wait(self) -> None:
        """Wait until there is something to read, or a turn comes that is waited for."""
        delay = self._turns.delay()
        with trio.CancelScope() as self._waiting:
            if delay >= 0:
                self._waiting.deadline = trio.current_time() + delay / _NS_PER_SECOND
            await self._channel.wait()
        self._waiting = None

    def wake(self) -> None:
        """Something has begun to wait for its turn, outside of the pumps."""
        if self._waiting is not None:
            self._waiting.cancel()

    def _serve(self, until: int) -> int:
        """Handle what is there and what comes, as ``serve_while_busy``."""
        channel = self._channel
        return serve_while_busy(
            channel.fileno(),
            channel.buffer,
            channel.readiness,
            until,
            self._session,
            self._turns,
            self._report_bug,
            self.trace,
        )

    def is_alive(self) -> bool:
        """Whether the loop has gone round since the last time this was asked, or has no reason to.

        It has one while a request waits to be read.
        """
        seen, self._rounds_seen = self._rounds_seen, self._rounds
        return seen != self._rounds or not self._channel.is_waiting()

    def flush(self) -> None:
        """Write the session's frames; never waits."""
        write_all(self._channel.fileno(), self._session.outgoing, self._report_bug, self.trace)
