# SPDX-License-Identifier: Apache-2.0
"""What a client does whose call finds no room at its receiver: it waits, and sends it again.

All callers of a process share its receive area. That it is full for a moment is no error: the
driver has not taken the call, or has not brought the reply of one that may be made twice.
"""

from __future__ import annotations

import errno
import random
import time
from typing import TYPE_CHECKING, Final

from binderclient.errors import FailedTransaction

if TYPE_CHECKING:
    from binderclient.objects import Proxy
    from binderclient.parcel import Parcel

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.ENOMEM})
_FIRST_SECONDS: Final = 0.001
_LONGEST_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 60.0


class Patience:
    """Counts how often it was needed; may be used from any thread."""

    def __init__(self) -> None:
        self.refused = 0

    def call(self, proxy: Proxy, code: int, request: Parcel, *, oneway: bool = False) -> Parcel:
        """Call, again and again while there is no room; see ``Proxy.call``.

        Raises:
            FailedTransaction: it was refused for another reason, or for a minute.
        """
        pause, deadline = _FIRST_SECONDS, time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return proxy.call(code, request, oneway=oneway)
            except FailedTransaction as refusal:
                if refusal.reason not in _NO_ROOM or time.monotonic() > deadline:
                    raise
            self.refused += 1
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, _LONGEST_SECONDS)
