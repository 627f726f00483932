# SPDX-License-Identifier: Apache-2.0
"""``ServiceManager``: finds and offers services by name; blocking flavour."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from binderclient.errors import BinderError, DeadObject, DeviceGone, RemoteException
from binderclient.objects import Proxy, call_flags
from binderclient.recovery import pauses
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
    from binderclient.session import Session


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
        self._manager: Proxy | None = None  # of the last call

    def add(self, name: str, service: Service) -> None:
        """Offer ``service``; a service that had the name is replaced.

        The program must serve (``Device.start_thread_pool``) for anyone to be able to call it.
        With ``reconnect`` it is offered again to each new service manager, also when only that
        was restarted; the thread pool must run for this.

        Raises:
            RemoteException: EX_ILLEGAL_ARGUMENT for a name that is no name, EX_SECURITY if the
                caller may not.
        """
        with self._device.recovery.offering(name, Offer(name, service)):
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

        The manager calls back: nothing polls.  Starts the device's thread pool.  With
        ``reconnect`` this also waits for the device and for a service manager.

        Args:
            timeout: seconds, None for ever.

        Raises:
            ServiceNotFound: not within ``timeout``.
        """
        deadline = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if deadline is None else max(0.0, deadline - time.monotonic())

        waits = pauses()
        while True:
            try:
                return self._wait_with_manager(name, left())
            except DeadObject:
                if not self._device.recovery.reconnect:
                    raise
            pause, rest = next(waits), left()
            is_back = self._device.wait_back(rest)
            if not is_back or (rest is not None and rest <= pause):
                raise ServiceNotFound(f"no service is called {name!r}, and there is no manager")
            time.sleep(pause)

    def named(self, name: str) -> NamedService:
        """Return the service of that name, whichever it is at the time of each call."""
        return NamedService(self, name)

    def _wait_with_manager(self, name: str, timeout: float | None) -> Proxy:
        """Wait as long as the service manager lives."""
        found: list[IBinder] = []
        over = threading.Event()
        deaths: list[Proxy] = []

        def registered(_name: str, service: IBinder) -> None:
            # Until the manager hears of a death, it hands out what we may know to be dead.
            if isinstance(service, Proxy) and service.dead:
                return
            found.append(service)
            over.set()

        def manager_died(manager: Proxy) -> None:
            deaths.append(manager)
            over.set()

        callback = RegistrationCallback(registered)
        self._device.start_thread_pool()
        request = callback_request(name, callback)
        read_empty_reply(self._call(REGISTER_FOR_NOTIFICATIONS, request))
        manager = self._device.context_manager
        manager.link_to_death(manager_died)
        try:
            over.wait(timeout)
        finally:
            manager.unlink_to_death(manager_died)
            with contextlib.suppress(RemoteException, DeadObject):
                request = callback_request(name, callback)
                read_empty_reply(self._call(UNREGISTER_FOR_NOTIFICATIONS, request))
        if deaths and not found:
            raise _no_manager()
        return _as_proxy(name, found[-1] if found else None)

    def _call(self, code: int, request: Parcel) -> Parcel:
        if self._manager is None or self._manager.dead:
            self._manager = self._device.context_manager
        try:
            return self._manager.call(code, request)
        except DeviceGone:
            raise
        except DeadObject:
            # Handle 0 is whoever is manager: there may be a new one the next time.
            self._manager = None
            raise _no_manager() from None


class NamedService:
    """A service that is held by its name: looked up when it is first called, and after its death.

    Args:
        manager: where to look.
        name: the service's.
    """

    def __init__(self, manager: ServiceManager, name: str) -> None:
        self.name = name
        self._manager = manager
        self._proxy: Proxy | None = None

    def proxy(self) -> Proxy:
        """Return the proxy of the service that has the name now; raises like ``call``."""
        proxy = self._proxy
        if proxy is None or proxy.dead:
            proxy = self._proxy = self._manager.get(self.name)
        return proxy

    def wait(self, timeout: float | None = None) -> Proxy:
        """Return the proxy as soon as there is one; see ``ServiceManager.wait``."""
        proxy = self._proxy
        if proxy is None or proxy.dead:
            proxy = self._proxy = self._manager.wait(self.name, timeout)
        return proxy

    def call(
        self, code: int, data: Parcel | None = None, *, oneway: bool = False, clear: bool = False
    ) -> Parcel:
        """Call the service; see ``Proxy.call``.  A call that fails is not repeated.

        Raises:
            ServiceNotFound: no service has the name, now.
            DeadObject: it died, or there is no service manager; the next call looks it up again.
        """
        proxy = self.proxy()
        try:
            return proxy.call(code, data, oneway=oneway, clear=clear)
        except DeadObject:
            self._proxy = None
            raise


class Offer:
    """A service that is offered under a name, to the service manager of any session."""

    def __init__(self, name: str, service: Service) -> None:
        self._name = name
        self._service = service

    def __call__(self, session: Session) -> None:
        """Offer it; raises like ``ServiceManager.add``."""
        flags = call_flags(oneway=False, clear=False)
        request = add_request(self._name, self._service)
        read_empty_reply(session.transact(0, ADD_SERVICE, request, flags))


def _no_manager() -> DeadObject:
    return DeadObject("no service manager is running on this device")


def _as_proxy(name: str, service: IBinder | None) -> Proxy:
    if service is None:
        raise ServiceNotFound(f"no service is called {name!r}")
    if not isinstance(service, Proxy):
        raise ServiceNotFound(f"{name!r} is a service of this process: use it directly")
    return service
