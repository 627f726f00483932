# SPDX-License-Identifier: Apache-2.0
"""A BINDER_WRITE_READ that has stopped in the middle; ``pause.py`` says when that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.engine.completion import Paused

if TYPE_CHECKING:
    from binderd.engine.completion import WriteRead
    from binderd.engine.thread import Thread


class PausedIoctl(Paused):
    """A BINDER_WRITE_READ between two of its commands, before its read or in it.

    The driver does not look for signals before it is through with the commands, and has to sleep;
    so one that came is remembered until then.
    """

    __slots__ = ("is_interrupted", "request", "thread")

    def __init__(self, thread: Thread, request: WriteRead) -> None:
        super().__init__(request.ticket, thread.process.user.number)
        self.thread: Thread = thread
        self.request: WriteRead = request
        self.is_interrupted: bool = False

    def go_on(self) -> None:
        self.thread.paused = None
        self.take_up()
        if self.is_interrupted:
            self._interrupt_again()

    def take_up(self) -> None:
        """Go on where it has stopped."""
        raise NotImplementedError

    def interrupt(self) -> None:
        self.is_interrupted = True

    def _interrupt_again(self) -> None:
        """Interrupt it if it sleeps now, or has paused once more."""
        hub, parked = self.thread.process.hub, self.thread.parked
        paused = hub.paused.get(self.ticket) or hub.fetching.get(self.ticket)
        if paused is not None:
            paused.interrupt()
        elif parked is not None and parked.ticket == self.ticket:
            self.thread.interrupt()
