# SPDX-License-Identifier: Apache-2.0
"""Waiting for the next request of a busy channel without trio, whose way costs more than a request:
it enters and leaves the scheduler and changes the set of descriptors twice.

This is on the request path and compiled (setup.py). Nothing here may know requests or trio.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

from binderd.channel.spin import Spin

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.channel.spin import Poll

# How long a busy channel is waited for without trio, in milliseconds: so long may a signal, the end
# of a thread or a timer have to wait for its turn.
_POLL_MS: Final = 1

# Results of ``look``.
NOTHING: Final = 0
READY: Final = 1  # the channel can be read, and nothing else has happened
NEWS: Final = 2  # anything else: see whether the channel is still there, and has something to read


class Readiness:
    """What is looked at while a channel is busy.

    Args:
        fd: the channel's descriptor.
        spin_ns: nanoseconds; so long the next request is looked for without sleeping.
        poll: looks at descriptors; None: the system does.
    """

    __slots__ = ("_callbacks", "_fd", "_fds", "_poll", "_spin", "shares_loop")

    def __init__(self, fd: int, spin_ns: int, poll: Poll | None = None) -> None:
        self._fd = fd
        self._poll: Poll = select.poll() if poll is None else poll
        self._poll.register(fd, select.POLLIN)
        self._spin = Spin(spin_ns)
        self.shares_loop = False  # with other channels?
        self._callbacks: dict[int, Callable[[], None]] = {}  # of descriptors beside the channel's
        self._fds: dict[Callable[[], None], int] = {}  # the other way round

    def register(self, fd: int, callback: Callable[[], None]) -> None:
        """Look at another descriptor as well.

        Args:
            fd: in the place of the one that had the same callback; -1 for none.
            callback: called when it is readable.
        """
        last = self._fds.pop(callback, -1)
        if last >= 0:
            del self._callbacks[last]
            self._poll.unregister(last)
        if fd >= 0:
            self._fds[callback] = fd
            self._callbacks[fd] = callback
            self._poll.register(fd, select.POLLIN)

    def yield_to(self, fd: int) -> None:
        """Let another channel have its turn when it has something to read."""
        self.shares_loop = True
        self._poll.register(fd, select.POLLIN)

    def look(self) -> int:
        """Wait a moment; return READY, NEWS or NOTHING."""
        ready = self._spin.look(self._poll)
        if not ready:
            ready = self._poll.poll(_POLL_MS)
        if len(ready) == 1 and ready[0][0] == self._fd:
            return READY
        fds = {fd for fd, _ in ready}
        for fd in fds:
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback()
        has_news = self._fd in fds if self.shares_loop else bool(ready)
        return NEWS if has_news else NOTHING
