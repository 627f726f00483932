# SPDX-License-Identifier: Apache-2.0
"""The handle table: one proxy per remote object, and the references that keep the handle valid.

Invariant: while a proxy exists, this process holds one weak and one strong reference of its own on
its handle (BC_INCREFS, BC_ACQUIRE), so the driver cannot give that number to another object
(statement N4).  References are counted by the driver, so that two generations of proxies for one
handle may overlap: each takes and releases its own.

No locks here: code that shares a table between threads serialises the calls.  Only a proxy's
finalizer may run at any point of any thread, therefore all it does is one ``deque.append``.
"""

from __future__ import annotations

import struct
import weakref
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from binderwire.binder_abi import BC_ACQUIRE, BC_DECREFS, BC_INCREFS, BC_RELEASE
from binderwire.commands import append

if TYPE_CHECKING:
    from collections.abc import Callable

_P = TypeVar("_P")


def _pack_handle(handle: int) -> bytes:
    return struct.pack("=I", handle)


class _Reference(weakref.ref[_P]):
    """A proxy that may be gone, and the handle whose references it still stands for."""

    __slots__ = ("handle", "held")

    handle: int
    held: bool


class HandleTable(Generic[_P]):
    """The proxies of one open device file.

    Args:
        make: builds the proxy for a handle.
    """

    def __init__(self, make: Callable[[int], _P]) -> None:
        self._make = make
        self._proxies: dict[int, _Reference[_P]] = {}
        self.dropped: deque[weakref.ref[_P]] = deque()

    def __len__(self) -> int:
        """How many proxies there are, those that were just dropped included."""
        return len(self._proxies)

    def proxy(self, handle: int, out: bytearray) -> _P:
        """Return the proxy of ``handle``.

        A new one appends BC_INCREFS and BC_ACQUIRE to ``out``: write it before the buffer that
        brought the handle is freed, and before anyone else can get hold of the proxy.
        """
        known = self._proxies.get(handle)
        proxy = known() if known is not None else None
        if proxy is None:
            packed = _pack_handle(handle)
            proxy = self._make(handle)
            # Python calls this once, whichever way the proxy goes.
            reference = _Reference(proxy, self.dropped.append)
            reference.handle, reference.held = handle, True
            self._proxies[handle] = reference
            append(out, BC_INCREFS, packed)
            append(out, BC_ACQUIRE, packed)
        return proxy

    def owns(self, proxy: object, handle: int) -> bool:
        """Is ``proxy`` of this table, and the one for ``handle``?"""
        reference = self._proxies.get(handle)
        return reference is not None and reference() is proxy

    def find(self, handle: int) -> _P | None:
        """Return the proxy of ``handle`` if there is one in use."""
        reference = self._proxies.get(handle)
        return reference() if reference is not None else None

    def living(self) -> list[_P]:
        """Return all proxies that are in use."""
        found = [reference() for reference in list(self._proxies.values())]
        return [proxy for proxy in found if proxy is not None]

    def disown(self, proxy: _P, handle: int, out: bytearray) -> None:
        """Release the reference of a proxy that is still alive, because its object is dead."""
        reference = self._proxies.get(handle)
        if reference is not None and reference() is proxy:
            self._release(reference, out)

    def release_dropped(self, out: bytearray) -> None:
        """Append BC_RELEASE and BC_DECREFS for every proxy that was garbage collected."""
        while self.dropped:
            reference = self.dropped.popleft()
            if isinstance(reference, _Reference):
                self._release(reference, out)

    def _release(self, reference: _Reference[_P], out: bytearray) -> None:
        if not reference.held:
            return
        reference.held = False
        if self._proxies.get(reference.handle) is reference:
            del self._proxies[reference.handle]
        append(out, BC_RELEASE, _pack_handle(reference.handle))
        append(out, BC_DECREFS, _pack_handle(reference.handle))
