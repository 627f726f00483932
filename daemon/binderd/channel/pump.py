# SPDX-License-Identifier: Apache-2.0
"""The loop: a batch of requests to the session, each one's replies back to the kernel.

Cancellation: once a request is read it is handled and its replies are written with no checkpoint in
between, so a cancelled pump never loses one. Trio gets its turn between batches only: a checkpoint
costs as much as a request, and waiting with trio costs more. A channel that was busy a moment ago
is therefore waited for a millisecond directly, before trio is asked to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from binderd.channel.transfer import ENDED, WOULD_BLOCK, serve_batch, write_all
from binderd.heartbeat import beat

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.channel.kernel_fd import KernelFd
    from binderd.channel.transfer import Receiver

BATCH_SIZE: Final = 8  # requests in one go
TURNS: Final = 16  # batches, or moments of waiting, between two checkpoints


class Pump:
    """Moves frames between a kernel channel and a session.

    Args:
        channel: read from and written to by nobody else.
        session: handles the requests.
        report_bug: called with the exception when the kernel does not understand a reply.
        trace: called with (True, request) and (False, reply), for debugging only.
    """

    __slots__ = ("_channel", "_report_bug", "_rounds", "_rounds_seen", "_session", "trace")

    def __init__(
        self,
        channel: KernelFd,
        session: Receiver,
        report_bug: Callable[[OSError], None],
        trace: Callable[[bool, bytes], None] | None = None,
    ) -> None:
        self._channel = channel
        self._session = session
        self._report_bug = report_bug
        self.trace = trace
        self._rounds = 0  # how often has the loop gone round?
        self._rounds_seen = -1  # by the last ``is_alive``

    async def run(self) -> None:
        """Serve until the file system is unmounted.

        Raises:
            trio.ClosedResourceError: the channel was closed.
        """
        channel, turns = self._channel, 0
        while True:
            self._rounds += 1
            size = self._serve() if channel.fileno() >= 0 else WOULD_BLOCK
            if size == ENDED:
                return
            turns += 1
            if turns < TURNS and (size > 0 or channel.linger()):
                continue
            turns = 0
            if size > 0:
                await trio.lowlevel.checkpoint()
            else:
                await channel.wait()

    def _serve(self) -> int:
        """Handle what is there, at most a batch; results as ``serve_batch``."""
        channel = self._channel
        if self.trace is None:
            return serve_batch(
                channel.fileno(), channel.buffers, self._session, BATCH_SIZE, self._report_bug
            )
        size = channel.read()
        if size > 0:
            self.trace(True, bytes(channel.buffer[:size]))
            beat()
            self._session.receive(channel.buffer, size)
            self.flush()
        return size

    def is_alive(self) -> bool:
        """Whether the loop has gone round since the last time this was asked, or has no reason to.

        It has one while a request waits to be read.
        """
        seen, self._rounds_seen = self._rounds_seen, self._rounds
        return seen != self._rounds or not self._channel.is_waiting()

    def flush(self) -> None:
        """Write the session's frames; never waits."""
        if self.trace is not None:
            for frame in self._session.outgoing:
                self.trace(False, frame)
        write_all(self._channel.fileno(), self._session.outgoing, self._report_bug)
