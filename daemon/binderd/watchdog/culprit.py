# SPDX-License-Identifier: Apache-2.0
"""The client behind a subject of the heartbeat: a process that can be killed, and its users.

Nothing here goes by a number whose owner can have gone. A descriptor of the daemon's leads to the
very process that opened a file, for ever; a thread with a request open stays until that is
answered, so its number is its own as long as the heartbeat stands still.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from binderd.linux import pidfd, proc

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = 0
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY
_EVERYBODY: Final = 1 << 32  # users of the first user namespace


class Culprit:
    """A client process; ``close`` it.

    Args:
        daemon: the process that has it as a client.
        subject: as the heartbeat has it.

    Raises:
        OSError: it cannot be had.
    """

    def __init__(self, daemon: int, subject: int) -> None:
        if subject > 0:
            # The very directory that the daemon opened, whatever has become of the number.
            self._fd = proc.open_in(proc.place_of(daemon), f"fd/{subject}", _DIRECTORY)
        else:
            pid = proc.process_of(-subject)
            self._fd = proc.open_in(proc.place_of(pid), "", _DIRECTORY)
        self.place = proc.path_of(self._fd)
        match = re.match(proc.FOLDER + r"/(\d+)", os.readlink(self.place))
        self.pid = int(match[1]) if match is not None else 0
        self.tid = -subject if subject < 0 else 0  # a thread with a request open
        self.user = os.fstat(self._fd).st_uid  # the effective one; it is told of the dead as well
        self._ranges = [(self.user, 1)]
        with suppress(OSError):  # it has ended: then it has no others
            self._ranges += _users(self.place)

    def has_user(self, uid: int) -> bool:
        """Whether it acts as that user, or can: in its user namespace it may be many."""
        return any(first <= uid < first + count for first, count in self._ranges)

    def kill(self, is_meant: Callable[[], bool]) -> OSError | None:
        """Kill it; return why it was not, ``Spared`` if it is not meant any more."""
        if not is_meant():
            return Spared()
        try:
            pidfd.kill(self._fd)
        except OSError as error:
            return error
        return None

    def close(self) -> None:
        """Keep nothing."""
        os.close(self._fd)


class Spared(OSError):
    """The process need not be killed any more."""


def _users(place: str) -> list[tuple[int, int]]:
    """Return ranges of users: first, how many."""
    ranges = [(int(uid), 1) for uid in proc.status_field(place, b"Uid").split()]
    for line in proc.lines_in(place, "uid_map"):
        _, outside, count = (int(word) for word in line.split())
        if count < _EVERYBODY - 1:
            ranges.append((outside, count))
    return ranges
