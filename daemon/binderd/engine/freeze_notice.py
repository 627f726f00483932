# SPDX-License-Identifier: Apache-2.0
"""Freeze notifications: processes are told when a node's owner is frozen or thawed (F5).

A registration on a ref, like a death notice, but it reports a state that changes back and forth:
only one report is in flight at a time, and it says the state as it is when it is read.

Mirrors binder_request_/clear_freeze_notification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.engine import views
from binderd.engine.notice import Notification
from binderwire.binder_abi import (
    BR_CLEAR_FREEZE_NOTIFICATION_DONE,
    BR_FROZEN_BINDER,
    binder_frozen_state_info,
)

if TYPE_CHECKING:
    from binderd.engine.owner import Owner, Reader
    from binderd.engine.returns import Returns


class FreezeNotice(Notification):
    """One registration."""

    __slots__ = ("is_frozen", "resend")

    def __init__(self, process: Owner, cookie: int) -> None:
        super().__init__(process, cookie, process.delivered_freezes)
        self.is_frozen: bool = False  # what the next report says
        self.resend: bool = False  # is there more to say once the client has acknowledged?
        process.hub.stats.freezes += 1
        process.hub.stats.freezes_made += 1

    def report(self, *, frozen: bool) -> None:
        """The state may have changed (F5)."""
        if self.queue is None and not self.sent:
            self.is_frozen = frozen
            self.announce()
            return
        if self.sent and self.is_frozen != frozen:
            self.resend = True
        self.is_frozen = frozen

    def deliver(self, thread: Reader, out: Returns) -> int:
        """BR_FROZEN_BINDER, or that it is withdrawn."""
        if self.cleared:
            return self.tell_cleared(BR_CLEAR_FREEZE_NOTIFICATION_DONE, out)
        report = binder_frozen_state_info.pack(self.cookie, self.is_frozen, 0)
        return self.tell(BR_FROZEN_BINDER, report, out)

    def clear(self, thread: Reader) -> None:
        """BC_CLEAR_FREEZE_NOTIFICATION: replaces a report that was not read yet (F5)."""
        self.cleared = True
        if self.sent:
            self.resend = True
        elif self.queue is None:
            self.announce()

    def done(self, thread: Reader) -> None:
        """BC_FREEZE_NOTIFICATION_DONE."""
        self.undeliver()
        if self.resend:
            self.resend = False
            self.announce()

    def kind(self) -> int:
        return views.CLEAR_FREEZE_NOTIFICATION if self.cleared else views.FROZEN_BINDER

    def count_out(self) -> None:
        super().count_out()
        self.process.hub.stats.freezes -= 1
