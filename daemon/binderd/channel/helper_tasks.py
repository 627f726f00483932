# SPDX-License-Identifier: Apache-2.0
"""The tasks that hear the helper process, and send it what its socket did not take at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, Protocol

import trio

from binderd.channel.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE_SECONDS: Final = 0.001  # a socket with room may still lack something else


class Helper(Protocol):
    """The daemon's end of the helper process."""

    @property
    def is_waiting(self) -> bool:
        """Does something wait until ``fileno`` can be written to?"""

    def fileno(self) -> int:
        """Return the descriptor of the socket; -1: there is no helper."""

    def receive(self) -> None:
        """Take what the helper says, and pass it on."""

    def go_on(self) -> None:
        """Send what waits, as far as the helper takes it."""


class HelperTasks:
    """Serves the socket to the helper process.

    Args:
        attempt: called with what is done and a call; makes that, and sees to whatever comes of it.
    """

    def __init__(self, attempt: Callable[[str, Callable[[], None]], None]) -> None:
        self.listener = Listener(self._hear)
        self._attempt = attempt
        self._helper: Helper | None = None
        self._is_blocked = trio.Event()

    def blocked(self) -> None:
        """Something waits until the helper takes it."""
        self._is_blocked.set()

    def serve(self, helper: Helper) -> None:
        """Hear this helper from now on."""
        self._helper = helper

    async def run(self, helper: Helper) -> None:
        """Wait for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.listener.run)
            nursery.start_soon(self._send, helper)

    def _hear(self) -> None:
        if self._helper is not None:
            self._attempt("an installation", self._helper.receive)

    async def _send(self, helper: Helper) -> NoReturn:
        while True:
            await self._is_blocked.wait()
            self._is_blocked = trio.Event()
            while helper.is_waiting:
                try:
                    await trio.lowlevel.wait_writable(helper.fileno())
                except trio.ClosedResourceError:
                    continue
                self._attempt("an installation", helper.go_on)
                await trio.sleep(_PAUSE_SECONDS)
