# SPDX-License-Identifier: Apache-2.0
"""``Registry``: what both service managers have: tables of binders, which lose those that die.

The two are ``server`` and ``hardware``; which methods there are, and how they travel, is theirs.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from binderclient import android
from binderclient.errors import DeadObject, RemoteException
from binderclient.objects import Proxy, Service
from binderclient.servicemanager.entries import CALLBACKS_MAX, Entry, Quota, Services, Subscribers
from binderclient.servicemanager.lazy import HELD_BY_MANAGER, ClientWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.ibinder import IBinder
    from binderclient.servicemanager.entries import Subscriber


class Registry(Service):
    """Services, callbacks for new ones, callbacks about clients, and the lives of all of them.

    Deaths may be told by another thread than the one that serves, so the tables have a lock.

    Args:
        notify_clients: tells a callback of a service whether it has clients.
    """

    def __init__(self, notify_clients: Callable[[Subscriber, Entry, bool], None]) -> None:
        self._services = Services()
        quota = Quota("callbacks", CALLBACKS_MAX)
        self._callbacks = Subscribers(quota)
        self._client_callbacks = Subscribers(quota)
        self._watch = ClientWatch(self._services, self._client_callbacks, notify_clients)
        self._lock = threading.RLock()

    def look_for_clients(self) -> None:
        """Tell lazy services whose clients have gone; call it every few seconds, in any thread."""
        with self._lock:
            names = list(self._client_callbacks)
        for name in names:
            with self._lock:  # taken for each anew: callers are not to wait for all of them
                self._watch.has_clients(name, HELD_BY_MANAGER, may_end=True)

    def _tables(self) -> tuple[Services, Subscribers, Subscribers]:
        return self._services, self._callbacks, self._client_callbacks

    def _keep(self, binder: IBinder, enter: Callable[[], object]) -> None:
        """Enter a binder in a table, and link to its death.

        Args:
            binder: what is entered.
            enter: enters it.

        Raises:
            RemoteException: EX_ILLEGAL_STATE, it is dead; or as ``enter``.
        """
        is_new = not any(table.knows(binder) for table in self._tables())
        if is_new and isinstance(binder, Proxy):
            try:
                binder.link_to_death(self._died)
            except DeadObject:
                raise RemoteException(android.EX_ILLEGAL_STATE, "Couldn't link to death.") from None
        try:
            enter()
        except RemoteException:
            self._let_go(binder)
            raise

    def _let_go(self, binder: IBinder) -> None:
        """Unlink from the death of a binder that is entered nowhere any more."""
        if isinstance(binder, Proxy) and not any(t.knows(binder) for t in self._tables()):
            binder.unlink_to_death(self._died)

    def _died(self, binder: Proxy) -> None:
        with self._lock:
            for table in self._tables():
                table.remove_binder(binder)
