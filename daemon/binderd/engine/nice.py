# SPDX-License-Identifier: Apache-2.0
"""Nice values: a thread works at its caller's, as far as the node allows it (I3).

What a thread's is now is asked once in each of its ioctls. Nothing here may know a transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from binderd.engine.ports import ClientMemory


class Nice:
    """The nice value of one thread."""

    __slots__ = ("_known", "_memory")

    def __init__(self, memory: ClientMemory) -> None:
        self._memory: ClientMemory = memory
        self._known: int | None = None  # for the current ioctl, during which it cannot change

    def forget(self) -> None:
        """The thread has been in user space: what was known is old.

        Differs: the driver also notices what somebody else makes of it while the thread is blocked.
        Asking again for each call would cost every call a system call.
        """
        self._known = None

    def get(self) -> int:
        """Return it."""
        if self._known is None:
            self._known = self._memory.nice()
        return self._known

    def set(self, nice: int) -> None:
        """Change it (binder_set_nice).

        Differs: who has that value already keeps it, also if its limit does not allow it any more;
        asking for the limit would cost every call a system call.
        """
        if self.get() != nice:
            self._memory.set_nice(nice)
            self._known = None

    def borrow(self, caller: int, least: int, *, one_way: bool) -> int:
        """Work at the caller's, bounded by the node's (binder_transaction_priority).

        Args:
            caller: of who has sent the call.
            least: of the node, which a call never runs below in importance.

        Returns:
            What it was before.
        """
        before = self.get()
        if caller < least and not one_way:
            self.set(caller)
        elif not one_way or before > least:
            self.set(least)
        return before
