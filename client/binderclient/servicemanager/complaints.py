# SPDX-License-Identifier: Apache-2.0
"""``Complaints``: logs which requests a manager has refused, and why.

Each user's mistake is logged once, and of each user 32 different ones at most: no client can fill
the log.
"""

from __future__ import annotations

import logging
from typing import Final

from binderclient.objects import caller

_PER_USER: Final = 32
_USERS_MAX: Final = 1024
_log: Final = logging.getLogger("binderclient.servicemanager")


class Complaints:
    """Logs refused requests, each kind once.

    Args:
        hint: what to do about them, at the end of each line.
    """

    def __init__(self, hint: str) -> None:
        self._hint = hint
        self._said: dict[int, set[tuple[int, str]]] = {}

    def refused(self, code: int, reason: str) -> None:
        """Log that the call that is being handled was refused.

        Args:
            code: the call's transaction code.
            reason: why.
        """
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
