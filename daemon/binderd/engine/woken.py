# SPDX-License-Identifier: Apache-2.0
"""What is woken during a call of the engine runs at its end, as if the driver's target ran then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.engine import read

if TYPE_CHECKING:
    from binderd.engine.hub import Hub
    from binderd.engine.roster import Roster


def run_woken(hub: Hub, roster: Roster) -> None:
    """Take up the reads of all threads that were woken, and the freezes that may go on."""
    runnable, drained = roster.runnable, hub.drained
    while runnable or drained:
        while runnable:
            thread = runnable.popleft()
            if thread.parked is not None:
                read.resume(thread, thread.parked)
        while drained:
            waiting = drained.pop()
            for freezing in list(waiting.values()):
                if freezing.ticket in waiting and freezing.may_go_on():
                    freezing.wait_is_over(is_early=True)
