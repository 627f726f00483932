# SPDX-License-Identifier: Apache-2.0
"""Draining the engine: its completions go to their connections, and the rest that is due is done.

It is done once, behind each call of the engine. Nothing here may know what was called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.device.pauses import Pauses
from binderd.device.replies import TICKET_SHIFT

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.device.open_file import OpenFile
    from binderd.device.opener import OpenedClient, Opener
    from binderd.device.pace import Pace
    from binderd.device.replies import Replies
    from binderd.engine.engine import Engine
    from binderd.engine.ports import OpenFile as EngineFile
    from binderd.fuse.turns import Turns


class Drain:
    """What the engine has for the outside, and where that goes.

    Args:
        engine: the driver.
        opener: told when a request is over that a client may have blocked.
        turns: of all users.
        pace: how long the engine works in one go.
        start_timer: called with a number and milliseconds; with negative milliseconds: stop it.
        wake: called when something waits for its turn, and the loop that serves turns may sleep.
        go_on: called with the ticket of something that has paused when it is its turn.
    """

    __slots__ = (
        "_channels",
        "_connections",
        "_opener",
        "_outbox",
        "_pace",
        "_paused",
        "_pauses",
        "_poll_wakes",
        "_released",
        "_start_timer",
        "_timers",
        "_turns",
        "_wake",
        "closing",
        "open",
    )

    def __init__(
        self,
        engine: Engine,
        opener: Opener,
        turns: Turns,
        pace: Pace,
        start_timer: Callable[[int, int], None],
        wake: Callable[[], None],
        go_on: Callable[[int], None],
    ) -> None:
        engine.set_pace(pace.is_over)
        self._pace = pace
        self._outbox = engine.outbox
        self._poll_wakes = engine.poll_wakes
        self._timers = engine.timers
        self._released = engine.released
        self._paused = engine.paused
        self._pauses = Pauses(engine.paused, turns, go_on)
        self._opener = opener
        self._turns = turns
        self._start_timer = start_timer
        self._wake = wake
        self._connections: list[Replies] = []  # by number
        self._channels = 0  # how many of them are written to
        self.open: dict[EngineFile, OpenFile] = {}  # the open files
        self.closing: dict[EngineFile, OpenedClient] = {}  # of files that are being released

    def connect(self, replies: Replies) -> None:
        """Answer through one more connection; the first is that of the file system."""
        self._channels += 1
        replies.ticket_base = len(self._connections) << TICKET_SHIFT
        self._connections.append(replies)

    def connect_lanes(self, replies: Replies) -> None:
        """Answer through slots as well, which nobody has to be told to write."""
        self.connect(replies)
        self._channels -= 1

    def run(self) -> None:
        """Hand on all that is there, in order."""
        self._opener.note_stalls()
        outbox = self._outbox
        if outbox:
            connections = self._connections
            for done in outbox:
                replies = connections[done.ticket >> TICKET_SHIFT]
                replies.answer(done.ticket, done.result, done.payload)
            outbox.clear()
        if self._poll_wakes:
            self._wake_pollers()
        if self._timers:
            for number, milliseconds in self._timers:
                self._start_timer(number, milliseconds)
            self._timers.clear()
        if self._released:
            self._close_released()
        self._pace.begin()  # the next call
        if self._paused:
            self._pauses.look()
        if self._channels > 1:
            # The loop of a connection writes the frames of that connection only.
            self._write_out()

    def write_replies(self) -> None:
        """Write what is due on every connection; to be called behind what is no request."""
        self._write_out()
        if self._turns.waiting:
            self._wake()

    def _write_out(self) -> None:
        for replies in self._connections:
            replies.write_out()

    def _close_released(self) -> None:
        """Close clients of which nothing will be used any more, each once whatever it does."""
        while self._released:
            self.closing.pop(self._released.pop(0)).close()

    def _wake_pollers(self) -> None:
        for process in self._poll_wakes:
            file = self.open.get(process)
            if file is not None and file.kernel_handle:
                file.replies.wake_poller(file.kernel_handle)
                file.kernel_handle = 0  # the kernel asks again for pollers that still wait
        self._poll_wakes.clear()
