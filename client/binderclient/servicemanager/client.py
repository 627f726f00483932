# SPDX-License-Identifier: Apache-2.0
"""``ServiceManager``: finds and offers services by name; blocking flavour."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from binderclient.errors import BinderError, DeadObject, RemoteException
from binderclient.objects import Proxy
from binderclient.servicemanager.formats import (
    ADD_SERVICE,
    CHECK_SERVICE,
    LIST_SERVICES,
    REGISTER_FOR_NOTIFICATIONS,
    UNREGISTER_FOR_NOTIFICATIONS,
    RegistrationCallback,
    add_request,
    callback_request,
    list_request,
    name_request,
    read_binder_reply,
    read_empty_reply,
    read_list_reply,
)

if TYPE_CHECKING:
    from binderclient.blocking import Device
    from binderclient.objects import IBinder, Service
    from binderclient.parcel import Parcel


class ServiceNotFound(BinderError, LookupError):
    """No service has that name."""


class ServiceManager:
    """Finds and offers services by name; blocking flavour.

    Args:
        device: whose service manager is meant.

    Every method raises DeadObject when no service manager runs on that device.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._manager = device.context_manager

    def add(self, name: str, service: Service) -> None:
        """Offer ``service``; a service that had the name is replaced.

        The program must serve (``Device.start_thread_pool``) for anyone to be able to call it.

        Raises:
            RemoteException: EX_ILLEGAL_ARGUMENT for a name that is no name, EX_SECURITY if the
                caller may not.
        """
        read_empty_reply(self._call(ADD_SERVICE, add_request(name, service)))

    def check(self, name: str) -> IBinder | None:
        """Return the service of that name, None if there is none.

        A service of this very process is returned as the ``Service`` it is.
        """
        return read_binder_reply(self._call(CHECK_SERVICE, name_request(name)))

    def get(self, name: str) -> Proxy:
        """Return the proxy of the service of that name.

        Raises:
            ServiceNotFound: there is none, now; ``wait`` is for those who have time.
        """
        return _as_proxy(name, self.check(name))

    def list(self) -> list[str]:
        """Return all names, sorted."""
        return read_list_reply(self._call(LIST_SERVICES, list_request()))

    def wait(self, name: str, timeout: float | None = None) -> Proxy:
        """Return the proxy of the service of that name, as soon as there is one.

        The manager calls back: nothing polls.  Starts the device's thread pool.

        Args:
            timeout: seconds, None for ever.

        Raises:
            ServiceNotFound: not within ``timeout``.
        """
        found: list[IBinder] = []
        over = threading.Event()

        def registered(_name: str, service: IBinder) -> None:
            # Until the manager hears of a death, it hands out what we may know to be dead.
            if isinstance(service, Proxy) and service.dead:
                return
            found.append(service)
            over.set()

        def manager_died(_manager: Proxy) -> None:
            over.set()

        callback = RegistrationCallback(registered)
        self._device.start_thread_pool()
        request = callback_request(name, callback)
        read_empty_reply(self._call(REGISTER_FOR_NOTIFICATIONS, request))
        manager = self._manager
        manager.link_to_death(manager_died)
        try:
            over.wait(timeout)
        finally:
            manager.unlink_to_death(manager_died)
            with contextlib.suppress(RemoteException):
                request = callback_request(name, callback)
                read_empty_reply(self._call(UNREGISTER_FOR_NOTIFICATIONS, request))
        return _as_proxy(name, found[-1] if found else None)

    def _call(self, code: int, request: Parcel) -> Parcel:
        try:
            return self._manager.call(code, request)
        except DeadObject:
            # Handle 0 is whoever is manager: there may be a new one the next time.
            self._manager = self._device.context_manager
            raise DeadObject("no service manager is running on this device") from None


def _as_proxy(name: str, service: IBinder | None) -> Proxy:
    if service is None:
        raise ServiceNotFound(f"no service is called {name!r}")
    if not isinstance(service, Proxy):
        raise ServiceNotFound(f"{name!r} is a service of this process: use it directly")
    return service
