# SPDX-License-Identifier: Apache-2.0
"""Programs outside of our pid namespace that open a device: they are refused, which is said once.

Such a program has no process id here, so its memory cannot be reached. Its user sees EACCES alone,
as for a device whose mode does not admit the user; only the daemon can tell that the two were put
into the wrong containers. A client can provoke the line at will, so it is logged once.
"""

from __future__ import annotations

import logging
from errno import EACCES
from typing import Final

_log: Final = logging.getLogger("binderd")


class ForeignPids:
    """The openers that were refused."""

    __slots__ = ("_was_said",)

    def __init__(self) -> None:
        self._was_said = False

    def refuse(self) -> int:
        """Return the errno for one of them; the first one is logged."""
        if not self._was_said:
            self._was_said = True
            _log.warning(
                "a program outside of the pid namespace of this daemon opened a device and was "
                "refused (EACCES), as there is no way to its memory: run the daemon outside of "
                "containers or in the host's pid namespace (--pid=host, hostPID), or the program "
                "in the daemon's (--pid=container:NAME, shareProcessNamespace)"
            )
        return EACCES
