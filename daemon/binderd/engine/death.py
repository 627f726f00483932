# SPDX-License-Identifier: Apache-2.0
"""Death notifications: processes are told when a node's owner has died (N11).

A notice is registered on a ref, announced in its process' queue when the owner dies, and after it
was read it waits for BC_DEAD_BINDER_DONE.  Clearing it while it is announced or read does not take
it back: the client sees BR_DEAD_BINDER, and the clear's acknowledgement only after its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.engine import views
from binderd.engine.notice import Notification
from binderwire.binder_abi import (
    BR_CLEAR_DEATH_NOTIFICATION_DONE,
    BR_DEAD_BINDER,
    binder_uintptr_t,
)

if TYPE_CHECKING:
    from binderd.engine.owner import Owner, Reader
    from binderd.engine.returns import Returns


class Death(Notification):
    """One registration."""

    __slots__ = ("only_acknowledge",)

    def __init__(self, process: Owner, cookie: int) -> None:
        super().__init__(process, cookie, process.delivered_deaths)
        # Is BR_CLEAR_DEATH_NOTIFICATION_DONE all that is left to say?
        self.only_acknowledge: bool = False
        process.hub.stats.deaths += 1
        process.hub.stats.deaths_made += 1

    def deliver(self, thread: Reader, out: Returns) -> int:
        """BR_DEAD_BINDER, or that it is withdrawn."""
        if self.only_acknowledge:
            return self.tell_cleared(BR_CLEAR_DEATH_NOTIFICATION_DONE, out)
        return self.tell(BR_DEAD_BINDER, binder_uintptr_t.pack(self.cookie), out)

    def clear(self, thread: Reader) -> None:
        """BC_CLEAR_DEATH_NOTIFICATION with the right cookie."""
        self.cleared = True
        if self.queue is None and not self.sent:
            self._acknowledge(thread)

    def done(self, thread: Reader) -> None:
        """BC_DEAD_BINDER_DONE for a notice that was read."""
        self.undeliver()
        if self.cleared:
            self._acknowledge(thread)

    def kind(self) -> int:
        if self.only_acknowledge:
            return views.CLEAR_DEATH_NOTIFICATION
        return views.DEAD_BINDER_AND_CLEAR if self.cleared else views.DEAD_BINDER

    def count_out(self) -> None:
        super().count_out()
        self.process.hub.stats.deaths -= 1

    def _acknowledge(self, thread: Reader) -> None:
        self.only_acknowledge = True
        if thread.is_looper():
            thread.enqueue(self)
        else:
            self.announce()
