# SPDX-License-Identifier: Apache-2.0
"""What the outside must do next: answer a request, or have something go on that has paused."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from binderd.engine.request import WriteRead


class Completion:
    """The end of one ioctl.

    Args:
        ticket: the number that the caller gave to ``Engine.ioctl``.
        result: 0 or a negative errno.
        payload: the argument as it goes back to the client, also beside an errno.
        request: it is the end of this one, and goes back as that says; None: as ``payload`` says.
    """

    __slots__ = ("_payload", "request", "result", "ticket")

    def __init__(
        self, ticket: int, result: int, payload: bytes, request: WriteRead | None = None
    ) -> None:
        self.ticket = ticket
        self.result = result
        self._payload = payload
        self.request = request

    @property
    def payload(self) -> bytes:
        """The argument as it goes back to the client."""
        return self._payload if self.request is None else self.request.pack()


class Paused:
    """Work that stopped in the middle.

    Args:
        ticket: under which it is listed; nothing else has it. If it answers a request, that one's.
        payer: the number of the user whose time it takes.
    """

    __slots__ = ("payer", "ticket")

    def __init__(self, ticket: int, payer: int) -> None:
        self.ticket = ticket
        self.payer = payer

    def go_on(self) -> None:
        """Do some more; what is not through then is listed anew."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """A signal has reached the thread whose request this is."""

    def abandon(self) -> None:
        """It will not go on: leave nothing behind but the request, which somebody else ends."""
