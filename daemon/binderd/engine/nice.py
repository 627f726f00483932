# SPDX-License-Identifier: Apache-2.0
"""Nice values: a thread serves a call at its caller's, as far as the node allows it (I3).

The kernel is asked for a thread's nice value once in each of the thread's ioctls. Nothing here may
know a transaction.
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
        """The thread has been in user space, and may have another value since.

        Differs: the driver also notices changes by other processes while the thread is blocked.
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

        Differs: a thread that has the value already keeps it, also if its limit has been lowered;
        asking for the limit would cost every call a system call.
        """
        if self.get() != nice:
            self._memory.set_nice(nice)
            self._known = None

    def borrow(self, caller: int, least: int, *, one_way: bool) -> int:
        """Work at the caller's, bounded by the node's (binder_transaction_priority).

        Args:
            caller: the sender's nice value.
            least: the node's; a call never runs at a less important one.

        Returns:
            The thread's own value, to be restored.
        """
        before = self.get()
        if caller < least and not one_way:
            self.set(caller)
        elif not one_way or before > least:
            self.set(least)
        return before
