# SPDX-License-Identifier: Apache-2.0
"""References: what one process holds on other processes' nodes, by handle.

A handle is a small number that means something only in its process' ``HandleTable``.  A ref lives
while its strong or weak count is not zero (N4).
"""

from __future__ import annotations

from errno import EINVAL, ENOMEM
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from binderd.engine.errors import BinderFailure
from binderd.engine.kinds import REFS
from binderwire.binder_abi import BR_FAILED_REPLY

if TYPE_CHECKING:
    from binderd.engine.death import Death
    from binderd.engine.freeze_notice import FreezeNotice
    from binderd.engine.node import Node
    from binderd.engine.owner import Owner, Reader


class Ref:
    """One process' reference to one node.

    Args:
        table: the handles of the process.
    """

    __slots__ = (
        "_table",
        "death",
        "debug_id",
        "freeze",
        "handle",
        "node",
        "process",
        "strong",
        "weak",
    )

    def __init__(self, table: HandleTable, node: Node, handle: int) -> None:
        process = table.process
        self.debug_id: int = process.hub.next_id()
        self.process: Owner = process
        self._table: HandleTable = table
        self.node: Node = node
        self.handle: int = handle  # Debian 12's mypy does not infer this type
        self.strong: int = 0  # how often the process has acquired it
        self.weak: int = 0
        self.death: Death | None = None  # tells the process when the node's owner dies
        self.freeze: FreezeNotice | None = None  # tells it when the owner is frozen
        node.refs[process] = self
        process.user.of(REFS).add(1)
        process.hub.stats.refs += 1
        process.hub.stats.refs_made += 1

    def increment(self, *, strong: bool, thread: Reader | None) -> None:
        """Count one more (binder_inc_ref).

        Args:
            thread: the sending thread if the node's owner is just passing the object on.

        Raises:
            BinderFailure: -EINVAL, a strong reference to a node that has none (N3).
        """
        if strong:
            if self.strong == 0:
                self.node.acquire_internal(thread)
            self.strong += 1
        else:
            if self.weak == 0:
                self.node.notice_weak(thread)
            self.weak += 1

    def decrement(self, *, strong: bool) -> None:
        """Count one less; the ref goes with the last (binder_dec_ref).

        A count that is zero already stays so: an unbalanced client hurts only itself (E7).
        """
        if strong:
            if self.strong == 0:
                return
            self.strong -= 1
            if self.strong == 0:
                self.node.release_internal()
        else:
            if self.weak == 0:
                return
            self.weak -= 1
        if self.strong == 0 and self.weak == 0:
            self.drop()

    def drop(self) -> None:
        """Forget the ref, whatever its counts (binder_cleanup_ref)."""
        self._table.remove(self.handle)
        node = self.node
        if self.strong:
            node.release_internal()
        del node.refs[self.process]
        node.settle()
        if self.death is not None:
            self.death.forget()
            self.death = None
        if self.freeze is not None:
            self.freeze.forget()
            self.freeze = None
        self.process.user.of(REFS).remove(1)
        self.process.hub.stats.refs -= 1


class HandleTable:
    """The refs of one process, and which handle comes next."""

    __slots__ = ("_free", "_next", "process", "refs")

    def __init__(self, process: Owner) -> None:
        self.process: Owner = process
        self.refs: dict[int, Ref] = {}
        self._free: list[int] = []  # heap of handles below _next that are not in use
        self._next = 1

    def find(self, handle: int, *, strong: bool) -> Ref | None:
        """Return the ref of ``handle``; with ``strong``, only if it has a strong count."""
        ref = self.refs.get(handle)
        if ref is not None and strong and ref.strong == 0:
            return None
        return ref

    def increment_for_node(self, node: Node, *, strong: bool, thread: Reader | None) -> Ref:
        """Count a reference to ``node``, with a new handle if it has none yet.

        Mirrors binder_inc_ref_for_node.

        Raises:
            BinderFailure: -EINVAL, nothing strong to acquire; -ENOMEM, the table is full.
        """
        ref = node.refs.get(self.process)
        if ref is not None:
            ref.increment(strong=strong, thread=thread)
            return ref
        limits, count = self.process.hub.limits, len(self.refs)
        if count >= limits.refs_per_process or (
            count >= limits.refs_granted and not self.process.user.of(REFS).has_room(1)
        ):
            raise BinderFailure(BR_FAILED_REPLY, -ENOMEM)
        ref = Ref(self, node, self._take(manager=node.is_manager()))
        self.refs[ref.handle] = ref
        try:
            ref.increment(strong=strong, thread=thread)
        except BinderFailure:
            ref.drop()
            raise
        return ref

    def update(self, handle: int, *, increment: bool, strong: bool) -> None:
        """Count one more or less on a handle that exists (binder_update_ref_for_handle).

        Raises:
            BinderFailure: -EINVAL, no such ref; callers ignore it (E7).
        """
        ref = self.find(handle, strong=strong)
        if ref is None:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        if increment:
            ref.increment(strong=strong, thread=None)
        else:
            ref.decrement(strong=strong)

    def remove(self, handle: int) -> None:
        """Make the number free again (N4)."""
        del self.refs[handle]
        if handle:
            heappush(self._free, handle)

    def _take(self, *, manager: bool) -> int:
        """Return the smallest free handle; 0 is the context manager's alone (N1)."""
        if manager and 0 not in self.refs:
            return 0
        if self._free:
            return heappop(self._free)
        self._next += 1
        return self._next - 1
