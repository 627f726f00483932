# SPDX-License-Identifier: Apache-2.0
"""``ClientWatch``: tells lazy services whether they have clients, so that they may end.

The driver counts the references to a service (BINDER_GET_NODE_INFO_FOR_REF).  A client that was
just handed one is not counted before its reply has come, therefore it is *guaranteed* until the
next look.  A service is told at once that clients have come, and at the next look only that they
have gone, since they often come back.  Where the driver cannot be asked, a service counts as having
clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderclient.objects import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.servicemanager.entries import Entry, Services, Subscriber, Subscribers

# References to a service that are not of its clients: the manager's own, and in a call also that
# of the call which carries it.
HELD_BY_MANAGER: Final = 1
HELD_IN_CALL: Final = 2


class ClientWatch:
    """Looks at the services that have client callbacks.

    Args:
        services, callbacks: the manager's tables.
        tell: tells a callback of a service whether it has clients.
    """

    def __init__(
        self,
        services: Services,
        callbacks: Subscribers,
        tell: Callable[[Subscriber, Entry, bool], None],
    ) -> None:
        self._services = services
        self._callbacks = callbacks
        self._tell = tell

    def hand_out(self, name: str, entry: Entry) -> None:
        """Note that a client is given a service now."""
        entry.guarantee_client = True
        self.has_clients(name)
        entry.guarantee_client = True

    def has_clients(self, name: str, held: int = HELD_IN_CALL, *, may_end: bool = False) -> bool:
        """Look at a service, and tell its callbacks what has changed.

        Args:
            name: the service's.
            held: how many references are not of clients: HELD_BY_MANAGER or HELD_IN_CALL.
            may_end: is this the look at which clients may be found gone?

        Returns:
            Whether it counts as having clients.
        """
        entry = self._services.find(name)
        if entry is None or not self._callbacks.of(name):
            return True
        count = _strong_count(entry)
        if count is None:
            return True
        is_counted = count > held
        if (entry.guarantee_client or is_counted) and not entry.has_clients:
            self._change(name, entry, True)
        if may_end and not is_counted and not entry.guarantee_client and entry.has_clients:
            self._change(name, entry, False)
        entry.guarantee_client = False
        return entry.has_clients

    def _change(self, name: str, entry: Entry, has_clients: bool) -> None:
        entry.has_clients = has_clients
        for subscriber in self._callbacks.of(name):
            self._tell(subscriber, entry, has_clients)


def _strong_count(entry: Entry) -> int | None:
    binder = entry.offered.binder
    return binder.device.strong_count(binder.handle) if isinstance(binder, Proxy) else None
