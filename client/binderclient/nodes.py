# SPDX-License-Identifier: Apache-2.0
"""The node table: the local objects that other processes may hold references to.

The driver knows a local object by a pointer and a cookie that it never looks behind; here both are
a number that is never used twice.  An object stays in the table, and thereby alive, as long as the
driver counts references on it (BR_INCREFS/BR_ACQUIRE … BR_RELEASE/BR_DECREFS) or a parcel that
carries it is on its way.  Counting, not flags: a BR_RELEASE that one thread has read may be handled
after the BR_ACQUIRE that another thread read later.

No locks here: code that shares a table between threads serialises the calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from binderclient.objects import Service

# Plain BINDER_SET_CONTEXT_MGR makes a node whose pointer and cookie are 0 (statement N8).
PLAIN_MANAGER: Final = 0
_STEP: Final = 16  # looks like the address of something, which is what other tools expect


class _Node:
    """A local object, and what keeps it alive."""

    __slots__ = ("in_flight", "service", "strong", "weak")

    def __init__(self, service: Service) -> None:
        self.service = service
        self.strong = 0  # BR_ACQUIREs without their BR_RELEASE
        self.weak = 0  # BR_INCREFS without their BR_DECREFS
        self.in_flight = 0  # parcels that were sent and not yet accepted or refused


class NodeTable:
    """The local objects of one open device file."""

    def __init__(self) -> None:
        self._nodes: dict[int, _Node] = {}
        self._numbers: dict[int, int] = {}  # id(service) -> number, while it is in the table
        self._last = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def export(self, service: Service) -> int:
        """Return the number of ``service`` and keep it alive until ``settle``."""
        number = self._numbers.get(id(service))
        if number is None:
            number = self._last = self._last + _STEP
            self._enter(number, service)
        self._nodes[number].in_flight += 1
        return number

    def export_as_manager(self, service: Service, *, plain: bool) -> int:
        """Return the number of the context manager's object, which stays for good (N8)."""
        if plain:
            self._enter(PLAIN_MANAGER, service)
            self._nodes[PLAIN_MANAGER].in_flight += 1
            return PLAIN_MANAGER
        return self.export(service)

    def find(self, number: int) -> Service | None:
        """Return the local object behind a pointer that the driver named, None if unknown."""
        node = self._nodes.get(number)
        return node.service if node is not None else None

    def settle(self, number: int) -> Service | None:
        """Undo one ``export``; return the object if nobody needs it any more."""
        return self._change(number, in_flight=-1)

    def acquire(self, number: int, *, weak: bool) -> None:
        """Count a BR_ACQUIRE, or a BR_INCREFS if ``weak``."""
        self._change(number, strong=not weak, weak=weak)

    def release(self, number: int, *, weak: bool) -> Service | None:
        """Count a BR_RELEASE, or a BR_DECREFS if ``weak``.

        Returns:
            The object if nobody needs it any more: let go of it outside of any lock.
        """
        return self._change(number, strong=-(not weak), weak=-weak)

    def clear(self) -> list[Service]:
        """Forget all objects, because the driver is gone; let go of them outside of any lock."""
        kept = [node.service for node in self._nodes.values()]
        self._nodes.clear()
        self._numbers.clear()
        return kept

    def _enter(self, number: int, service: Service) -> None:
        self._nodes[number] = _Node(service)
        self._numbers[id(service)] = number

    def _change(
        self, number: int, *, strong: int = 0, weak: int = 0, in_flight: int = 0
    ) -> Service | None:
        node = self._nodes.get(number)
        if node is None:
            return None
        node.strong += strong
        node.weak += weak
        node.in_flight += in_flight
        if node.strong > 0 or node.weak > 0 or node.in_flight > 0:
            return None
        del self._nodes[number]
        del self._numbers[id(node.service)]
        return node.service
