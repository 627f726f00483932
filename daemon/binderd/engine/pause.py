# SPDX-License-Identifier: Apache-2.0
"""Pauses: what stops in the middle, so that others have their turn, and goes on later.

A client chooses how much it asks for in one go. Where that is more than others should have to wait
for, the engine stops between two steps, lists what is left in ``Hub.paused`` and returns; the
transport calls ``Engine.go_on`` when it is that work's turn again. What a client sees is what it
sees of a driver that was preempted there: other threads have come in between, and that is all.

Work for which memory has to be fetched (``ports.NotYet``) waits in ``Hub.fetching`` before that.

The engine has no clock. ``Hub.pace`` is asked after each step whether this slice is over.

Here is what any such work is like; nothing here may know processes or threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.engine.completion import Paused

if TYPE_CHECKING:
    from binderd.engine.hub import Hub


class Steps(Paused):
    """Something that consists of any number of small steps and is no client's request."""

    __slots__ = ("hub",)

    def __init__(self, hub: Hub, payer: int) -> None:
        super().__init__(hub.next_step(), payer)
        self.hub: Hub = hub

    def go_on(self) -> None:
        hub = self.hub
        while self.step():
            if hub.pace():
                hub.pause(self)
                return
        self.end()

    def step(self) -> bool:
        """Do a little; False if there was nothing left to do."""
        raise NotImplementedError

    def end(self) -> None:
        """All steps are done."""


class Unfinished:
    """A command that has stopped in the middle."""

    __slots__ = ("number", "size")

    def __init__(self) -> None:
        self.number = 0  # of the command, among all
        self.size = 0  # of it in its stream, in bytes

    def go_on(self) -> bool:
        """Do some more; returns whether it is through."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Its thread is being released: leave nothing behind."""


class Waiting(Paused):
    """A request that waits until something ends or its time is up; a signal ends it, too."""

    __slots__ = ("timer",)

    def __init__(self, ticket: int, payer: int) -> None:
        super().__init__(ticket, payer)
        self.timer = 0  # which of the engine's timers ends the current wait? 0: none

    def may_go_on(self) -> bool:
        """Whether what it waits for has ended."""
        raise NotImplementedError

    def wait_is_over(self, *, is_early: bool) -> None:
        """What it waits for has ended, or its time is up: go on.

        Args:
            is_early: does its timer still run?
        """
        raise NotImplementedError

    def give_up(self) -> None:
        """A signal has ended the wait, and the request with it."""
        raise NotImplementedError
