# SPDX-License-Identifier: Apache-2.0
"""From the negotiation with the kernel to the end: when all is served we say so; why we end.

Nothing here may know how anything is served.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from binderd import compilation
from binderd.linux.sd_notify import notify

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.channel.errors import StartError

_log: Final = logging.getLogger("binderd")


class Shutdown:
    """Whether the daemon is to end, and why."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()  # everything runs inside
        self.refusal: StartError | None = None  # why does it not come about?
        self.is_lost = False  # did somebody else take away what we serve?

    def begin(self) -> None:
        """Shutdown."""
        self.scope.cancel()

    def refuse(self, reason: StartError) -> None:
        """Shutdown, as the kernel and we do not come together."""
        self.refusal = reason
        self.begin()

    def lose(self) -> None:
        """Shutdown, as somebody took away what we serve."""
        self.is_lost = True
        self.begin()


class Negotiation:
    """The negotiation with the kernel on one channel.

    Args:
        shutdown: where there is none.
        kind: makes the error of the reason.
        agreed: called when there is one, before the next request is handled.
    """

    def __init__(
        self,
        shutdown: Shutdown,
        kind: Callable[[str], StartError],
        agreed: Callable[[], None] = lambda: None,
    ) -> None:
        self._shutdown = shutdown
        self._kind = kind
        self._agreed = agreed
        self._event = trio.Event()

    def ended(self, refusal: str | None) -> None:
        """The kernel and we agree; with a reason if we cannot."""
        if refusal is not None:
            self._shutdown.refuse(self._kind(refusal))
            return
        self._agreed()
        self._event.set()

    async def wait(self) -> None:
        """Wait for it; its answer has been written then."""
        await self._event.wait()


class Readiness:
    """How much of what is to be served is not there yet.

    Args:
        pending: how many file systems and devices there will be.
        where: returns what is served, in words.
        show: makes what leads there; returns what could not be done, a sentence each.
    """

    def __init__(
        self, pending: int, where: Callable[[], str], show: Callable[[], list[str]]
    ) -> None:
        self._pending = pending
        self._where = where
        self._show = show
        self._restrictions: list[str] = []

    def one_is_there(self, restriction: str = "") -> None:
        """One more is; say so when all are.

        Args:
            restriction: what of it is not, in a sentence.
        """
        if restriction:
            self._restrictions.append(restriction)
        self._pending -= 1
        if self._pending:
            return
        self._restrictions += self._show()
        where = self._where()
        _log.info("ready: %s", where)
        for line in self._restrictions:
            _log.warning("%s", line)
        _log.info("request path: %s", compilation.describe())
        notify("READY=1", f"STATUS=Serving {where}")
