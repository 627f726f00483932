# SPDX-License-Identifier: Apache-2.0
"""From the negotiation with the kernel to the end: when the daemon is ready, and why it ends.

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
        self.refusal: StartError | None = None  # why nothing is served
        self.is_lost = False  # did another process unmount or abort what is served?

    def begin(self) -> None:
        """Shut down."""
        self.scope.cancel()

    def refuse(self, reason: StartError) -> None:
        """Shut down, as there is no agreement with the kernel."""
        self.refusal = reason
        self.begin()

    def lose(self) -> None:
        """Shut down, as another process has unmounted or aborted what is served."""
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
        """There is an agreement; with a reason if there is none."""
        if refusal is not None:
            self._shutdown.refuse(self._kind(refusal))
            return
        self._agreed()
        self._event.set()

    async def wait(self) -> None:
        """Wait for it; its answer has been written then."""
        await self._event.wait()


class Readiness:
    """Counts the file systems and devices that are not served yet.

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
        """One more is served; tell the service manager when all are.

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
