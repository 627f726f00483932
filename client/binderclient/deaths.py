# SPDX-License-Identifier: Apache-2.0
"""The death registry: callbacks for the end of a remote object's process.

One registration in the driver per proxy, whatever the number of callbacks, identified by a cookie
that is never used twice.  The driver allows one registration per handle and ignores a second one
(statement E7), so that between BC_CLEAR_DEATH_NOTIFICATION and its DONE new callbacks have to
wait.  A registration keeps its proxy alive: a callback comes even if the caller keeps nothing.

No locks here, and the registry returns callbacks and never calls them: code that shares it between
threads serialises the calls and runs ``Obituary.tell`` afterwards.
"""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING, Any, Final, Protocol

from binderclient.errors import DeadObject
from binderwire.binder_abi import (
    BC_CLEAR_DEATH_NOTIFICATION,
    BC_DEAD_BINDER_DONE,
    BC_REQUEST_DEATH_NOTIFICATION,
    binder_handle_cookie,
)
from binderwire.commands import append

if TYPE_CHECKING:
    from collections.abc import Callable


_log: Final = logging.getLogger("binderclient")


class Mortal(Protocol):
    """What this registry needs of a proxy."""

    handle: int
    dead: bool


class Obituary:
    """A death, and the callbacks for it.  ``proxy`` may be anything that ``link`` was given."""

    __slots__ = ("callbacks", "proxy")

    def __init__(self, proxy: Any, callbacks: list[Callable[[Any], object]]) -> None:  # noqa: ANN401
        self.proxy = proxy
        self.callbacks = callbacks

    def tell(self) -> None:
        """Call all callbacks; what they raise is logged.  Hold no lock."""
        for callback in self.callbacks:
            try:
                callback(self.proxy)
            except Exception:
                _log.exception("a death callback failed")


class _Watch:
    """One registration in the driver."""

    __slots__ = ("callbacks", "clearing", "cookie", "proxy")

    def __init__(self, proxy: Mortal, cookie: int) -> None:
        self.proxy = proxy
        self.cookie = cookie
        self.clearing = False  # BC_CLEAR was sent, its DONE has not come
        self.callbacks: list[Callable[[Any], object]] = []


class DeathRegistry:
    """The death notifications of one open device file."""

    def __init__(self) -> None:
        self._by_cookie: dict[int, _Watch] = {}
        # By identity: a dead manager's proxy and its successor's share handle 0.
        self._by_proxy: dict[int, _Watch] = {}
        self._last_cookie = 0

    def __len__(self) -> int:
        return len(self._by_cookie)

    def link(self, proxy: Mortal, callback: Callable[[Any], object], out: bytearray) -> None:
        """Add a callback; the first one appends BC_REQUEST_DEATH_NOTIFICATION to ``out``.

        Raises:
            DeadObject: its death is known already.
        """
        if proxy.dead:
            raise DeadObject("the process of this object is gone")
        watch = self._by_proxy.get(id(proxy))
        if watch is None:
            watch = self._request(proxy, out)
        watch.callbacks.append(callback)

    def unlink(self, proxy: Mortal, callback: Callable[[Any], object], out: bytearray) -> bool:
        """Remove a callback; the last one appends BC_CLEAR_DEATH_NOTIFICATION to ``out``.

        Returns:
            Was it there?  False also when the death was reported before.
        """
        watch = self._by_proxy.get(id(proxy))
        if watch is None or callback not in watch.callbacks:
            return False
        watch.callbacks.remove(callback)
        if not watch.callbacks and not watch.clearing:
            self._clear(watch, out)
        return True

    def dead(self, cookie: int, out: bytearray) -> Obituary | None:
        """Handle BR_DEAD_BINDER: acknowledge it, and take the registration back.

        Returns:
            The death, whose callbacks are to be called; None for a cookie that is not known.
        """
        append(out, BC_DEAD_BINDER_DONE, struct.pack("=Q", cookie))
        watch = self._by_cookie.get(cookie)
        if watch is None:
            return None
        watch.proxy.dead = True
        callbacks, watch.callbacks = watch.callbacks, []
        if not watch.clearing:
            self._clear(watch, out)
        return Obituary(watch.proxy, callbacks)

    def cleared(self, cookie: int, out: bytearray) -> None:
        """Handle BR_CLEAR_DEATH_NOTIFICATION_DONE; asks again for callbacks that came since."""
        watch = self._by_cookie.pop(cookie, None)
        if watch is None:
            return
        del self._by_proxy[id(watch.proxy)]
        if watch.callbacks:
            self._request(watch.proxy, out).callbacks = watch.callbacks

    def all_dead(self) -> list[Obituary]:
        """Handle the end of the driver: take all registrations back.

        Returns:
            The deaths that were not reported before, whose callbacks are to be called.
        """
        watches = list(self._by_cookie.values())
        self._by_cookie.clear()
        self._by_proxy.clear()
        return [Obituary(watch.proxy, watch.callbacks) for watch in watches if watch.callbacks]

    def watches(self, proxy: Mortal) -> bool:
        """Is there a registration for ``proxy``?"""
        return id(proxy) in self._by_proxy

    def _request(self, proxy: Mortal, out: bytearray) -> _Watch:
        self._last_cookie += 1
        watch = _Watch(proxy, self._last_cookie)
        self._by_cookie[watch.cookie] = self._by_proxy[id(proxy)] = watch
        append(
            out,
            BC_REQUEST_DEATH_NOTIFICATION,
            binder_handle_cookie.pack(proxy.handle, watch.cookie),
        )
        return watch

    def _clear(self, watch: _Watch, out: bytearray) -> None:
        watch.clearing = True
        append(
            out,
            BC_CLEAR_DEATH_NOTIFICATION,
            binder_handle_cookie.pack(watch.proxy.handle, watch.cookie),
        )
