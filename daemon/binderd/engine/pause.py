# SPDX-License-Identifier: Apache-2.0
"""Pauses: what stops in the middle, so that others have their turn, and goes on later.

A client chooses how much it asks for in one go. Where that is more than others should have to wait
for, the engine stops between two steps, lists what is left in ``Engine.paused`` and returns; the
transport calls ``Engine.go_on`` when it is that work's turn again. What a client sees is what it
sees of a driver that was preempted there: other threads have come in between, and that is all.

What has to be fetched by somebody else (``ports.NotYet``) waits in ``Engine.errands`` before that.

The engine has no clock. ``Engine.pace`` is asked after each step whether this slice is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.engine.completion import Completion
from binderd.engine.errors import KernelErrno

if TYPE_CHECKING:
    from binderd.engine.thread import Thread, WriteRead
    from binderd.engine.user import User


class Paused:
    """Work that stopped in the middle.

    Args:
        ticket: under which it is listed; nothing else has it. If it answers a request, that one's.
        user: whose time it takes.
    """

    __slots__ = ("ticket", "user")

    def __init__(self, ticket: int, user: User) -> None:
        self.ticket = ticket
        self.user = user

    def go_on(self) -> None:
        """Do some more; what is not through then is listed anew."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """A signal has reached the thread whose request this is."""

    def abandon(self) -> None:
        """It will not go on: leave nothing behind but the request, which somebody else ends."""


class PausedIoctl(Paused):
    """A BINDER_WRITE_READ between two of its commands, or before its read.

    The driver does not look for signals before it is through with the commands, and has to sleep;
    so one that came is remembered until then.
    """

    __slots__ = ("is_interrupted", "request", "thread")

    def __init__(self, thread: Thread, request: WriteRead) -> None:
        super().__init__(request.ticket, thread.process.user)
        self.thread = thread
        self.request = request
        self.is_interrupted = False

    def go_on(self) -> None:
        thread, engine = self.thread, self.thread.process.engine
        thread.paused = None
        engine.carry_on(thread, self.request)
        if self.is_interrupted:
            engine.interrupt(self.ticket)  # if it sleeps, or has paused once more

    def interrupt(self) -> None:
        self.is_interrupted = True


class PausedOther(Paused):
    """Any other ioctl, whose argument leads to what has to be fetched; it is done anew.

    Args:
        request, argument, ticket: as of ``Engine.ioctl``.
    """

    __slots__ = ("_argument", "_request", "thread")

    def __init__(self, thread: Thread, request: int, argument: bytes, ticket: int) -> None:
        super().__init__(ticket, thread.process.user)
        self.thread = thread
        self._request = request
        self._argument = argument

    def go_on(self) -> None:
        thread, engine, ticket = self.thread, self.thread.process.engine, self.ticket
        try:
            engine.other_ioctl(thread, self._request, self._argument, ticket)
        except KernelErrno as failure:
            engine.outbox.append(Completion(ticket, -failure.errno, self._argument))
        if ticket not in engine.errands:
            thread.memory.forget()
