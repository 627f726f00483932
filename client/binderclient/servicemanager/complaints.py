# SPDX-License-Identifier: Apache-2.0
"""``Complaints``: says in the log what a manager refused, so that it is not refused silently.

Each of a user's ways to be wrong is said once, and of none there can be more than a few: the log is
not a client's to fill.
"""

from __future__ import annotations

import logging
from typing import Final

from binderclient.objects import caller

_PER_USER: Final = 32
_USERS_MAX: Final = 1024
_log: Final = logging.getLogger("binderclient.servicemanager")


class Complaints:
    """What was said already.

    Args:
        hint: what to do about it, at the end of each.
    """

    def __init__(self, hint: str) -> None:
        self._hint = hint
        self._said: dict[int, set[tuple[int, str]]] = {}

    def refused(self, code: int, reason: str) -> None:
        """Say that the call that is being handled was refused."""
        who = caller()
        said = self._said.get(who.sender_euid)
        if said is None:
            if len(self._said) >= _USERS_MAX:
                return
            said = self._said[who.sender_euid] = set()
        if (code, reason) in said or len(said) >= _PER_USER:
            return
        said.add((code, reason))
        _log.warning(
            "refused code %d of process %d, user %d: %s (%s)",
            code,
            who.sender_pid,
            who.sender_euid,
            reason,
            self._hint,
        )
