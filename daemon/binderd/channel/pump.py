# SPDX-License-Identifier: Apache-2.0
"""The loop: a batch of requests to the session, each one's replies back to the kernel.

Cancellation: once a request is read it is handled and its replies are written with no checkpoint in
between, so a cancelled pump never loses one.  Trio gets its turn between batches only: a checkpoint
costs as much as a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

from binderd.channel.kernel_fd import ENDED, WOULD_BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.channel.kernel_fd import KernelFd

BATCH_SIZE: Final = 64  # requests between two checkpoints


class Receiver(Protocol):
    """A protocol server without I/O."""

    outgoing: list[bytes]

    def receive(self, frame: bytearray, size: int) -> None:
        """Handle the request at the start of ``frame`` and append what to write to ``outgoing``."""


class Pump:
    """Moves frames between a kernel channel and a session.

    Args:
        channel: read from and written to by nobody else.
        session: handles the requests.
        report_bug: called with the exception when the kernel does not understand a reply.
        trace: called with (True, request) and (False, reply), for debugging only.
    """

    __slots__ = ("_channel", "_report_bug", "_session", "_trace")

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
        self._trace = trace

    async def run(self) -> None:
        """Serve until the file system is unmounted.

        Raises:
            trio.ClosedResourceError: the channel was closed.
        """
        read, buffer = self._channel.read, self._channel.buffer
        receive, outgoing = self._session.receive, self._session.outgoing
        while True:
            for _ in range(BATCH_SIZE):
                size = read()
                if size <= 0:
                    break
                if self._trace is not None:
                    self._trace(True, bytes(buffer[:size]))
                receive(buffer, size)
                if outgoing:
                    self.flush()
            else:
                await trio.lowlevel.checkpoint()
                continue
            if size == ENDED:
                return
            assert size == WOULD_BLOCK
            await self._channel.wait()

    def flush(self) -> None:
        """Write the session's frames; never waits."""
        outgoing = self._session.outgoing
        write = self._channel.write
        for frame in outgoing:
            if self._trace is not None:
                self._trace(False, frame)
            try:
                write(frame)
            except OSError as error:
                self._report_bug(error)
        outgoing.clear()
