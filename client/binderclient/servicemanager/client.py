# SPDX-License-Identifier: Apache-2.0
"""``ServiceManager``: finds and offers services by name; blocking flavour."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from binderclient.arguments import check_type
from binderclient.blocking import Device
from binderclient.deadlines import Deadline, checked_timeout
from binderclient.errors import (
    BinderError,
    CallTimeout,
    DeadObject,
    DeviceGone,
    RemoteException,
)
from binderclient.objects import Proxy, RemoteObject, call_flags
from binderclient.recovery import pauses
from binderclient.servicemanager.formats import (
    Call,
    ClientCallback,
    RegistrationCallback,
    add_call,
    call,
)
from binderclient.servicemanager.values import ConnectionInfo, DebugInfo, Offered
from binderwire.service_manager import (
    DEFAULT_ANDROID,
    DUMP_PRIORITY_ALL,
    Dialect,
    dialect_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.ibinder import IBinder
    from binderclient.objects import Service
    from binderclient.parcel import Parcel
    from binderclient.session import Session


PATIENCE: Final = 1.0  # seconds that a manager has to answer, however short a wait is to be

# ServiceManager has a method that is called list.
_Names: TypeAlias = list[str]
_DebugInfos: TypeAlias = list[DebugInfo]
_Kind = TypeVar("_Kind", bound=RemoteObject)


class ServiceNotFound(BinderError, LookupError):
    """No service has that name."""


class ServiceManager:
    """Finds and offers services by name; blocking flavour.

    Args:
        device: whose service manager is meant.
        android: which Android's it is: 8 … 16, an API level, a protocol of libgbinder.

    Every method raises DeadObject when no service manager runs on that device, ParcelError when its
    reply is not what that Android answers, MisuseError when that Android has no such method, and
    CallTimeout when the manager does not answer within ``timeout`` (seconds, None for ever).

    Raises:
        ValueError: there is no such Android.
    """

    def __init__(self, device: Device, android: str | int = DEFAULT_ANDROID) -> None:
        check_type("ServiceManager(): device", device, Device)
        self._device = device
        self._dialect = dialect_of(android)
        self._manager: Proxy | None = None  # of the last call

    def add(self, name: str, service: Service, *, timeout: float | None = None) -> None:
        """Offer ``service``; a service that had the name is replaced.

        The program must serve (``Device.start_thread_pool``) for anyone to be able to call it.
        With ``reconnect`` it is offered again to each new service manager, also when only that
        was restarted; the thread pool must run for this.

        Raises:
            RemoteException: EX_ILLEGAL_ARGUMENT for a name that is no name, EX_SECURITY if the
                caller may not.
        """
        offer = Offer(name, service, self._dialect)
        with self._device.recovery.offering(name, offer):
            self._do(add_call(self._dialect, name, service), timeout)

    def check(self, name: str, *, timeout: float | None = None) -> IBinder | None:
        """Return the service of that name, None if there is none.

        A service of this very process is returned as the ``Service`` it is.
        """
        found: Offered | None = self._ask("checkService", name, timeout=timeout)
        return None if found is None else found.binder

    def get(self, name: str, *, timeout: float | None = None) -> Proxy:
        """Return the proxy of the service of that name.

        Raises:
            ServiceNotFound: there is none, now; see ``wait``.
        """
        return proxy_of(name, self.check(name, timeout=timeout), Proxy)

    def list(self, *, timeout: float | None = None) -> list[str]:
        """Return all names, sorted."""
        if not self._dialect.is_legacy:
            return list(self._ask("listServices", DUMP_PRIORITY_ALL, timeout=timeout))
        names: list[str] = []
        limit = Deadline(checked_timeout(timeout))
        with contextlib.suppress(RemoteException):  # there is none at that place
            while True:
                place = len(names), DUMP_PRIORITY_ALL
                names.append(self._ask("listServices", *place, timeout=limit.for_a_call()))
        return names

    def wait(self, name: str, timeout: float | None = None) -> Proxy:
        """Return the proxy of the service of that name, as soon as there is one.

        The manager calls back: nothing polls.  Starts the device's thread pool.  With
        ``reconnect`` this also waits for the device and for a service manager.

        Args:
            timeout: seconds, None for ever.

        Raises:
            ServiceNotFound: not within ``timeout``.
            CallTimeout: the manager did not answer; it has a second at least.
        """
        limit = Deadline(timeout)
        waits = pauses()
        while True:
            try:
                return self._wait_with_manager(name, limit)
            except DeadObject:
                if not self._device.recovery.reconnect:
                    raise
            pause, rest = next(waits), limit.left()
            is_back = self._device.wait_back(rest)
            if not is_back or (rest is not None and rest <= pause):
                raise not_there(name)
            time.sleep(pause)

    def named(self, name: str) -> NamedService:
        """Return the service of that name, whichever it is at the time of each call."""
        return NamedService(self, name)

    def register_for_notifications(
        self,
        name: str,
        registered: Callable[[str, IBinder], object],
        *,
        timeout: float | None = None,
    ) -> RegistrationCallback:
        """Have a function called with the name and the service, now and each time one is added.

        It runs in a thread that serves; starts the device's thread pool.

        Returns:
            What ``unregister_for_notifications`` wants; the manager keeps it alive.
        """
        callback = RegistrationCallback(self._dialect, registered)
        self._device.start_thread_pool()
        self._ask("registerForNotifications", name, Offered(callback), timeout=timeout)
        return callback

    def unregister_for_notifications(
        self, name: str, callback: RegistrationCallback, *, timeout: float | None = None
    ) -> None:
        """Take back ``register_for_notifications``.

        Raises:
            RemoteException: EX_ILLEGAL_STATE, it is not registered.
        """
        self._ask("unregisterForNotifications", name, Offered(callback), timeout=timeout)

    # What is declared

    def is_declared(self, name: str, *, timeout: float | None = None) -> bool:
        """Say whether an instance is declared, whether or not it is there now."""
        return bool(self._ask("isDeclared", name, timeout=timeout))

    def declared_instances(self, interface: str, *, timeout: float | None = None) -> _Names:
        """Return the names of the declared instances of an interface."""
        return list(self._ask("getDeclaredInstances", interface, timeout=timeout))

    def updatable_via_apex(self, name: str, *, timeout: float | None = None) -> str | None:
        """Return the APEX package with which an instance is updated; None if with none."""
        apex: str | None = self._ask("updatableViaApex", name, timeout=timeout)
        return apex

    def updatable_names(self, apex: str, *, timeout: float | None = None) -> _Names:
        """Return the names of the instances that are updated with an APEX package."""
        return list(self._ask("getUpdatableNames", apex, timeout=timeout))

    def connection_info(self, name: str, *, timeout: float | None = None) -> ConnectionInfo | None:
        """Return where an instance can be reached through the network; None if it cannot."""
        info: ConnectionInfo | None = self._ask("getConnectionInfo", name, timeout=timeout)
        return info

    def debug_info(self, *, timeout: float | None = None) -> _DebugInfos:
        """Return all services with the numbers of their processes."""
        return list(self._ask("getServiceDebugInfo", timeout=timeout))

    # Lazy services

    def register_client_callback(
        self,
        name: str,
        service: Service,
        changed: Callable[[bool], object],
        *,
        timeout: float | None = None,
    ) -> ClientCallback:
        """Have a function called with whether an own service has clients, when that changes.

        It runs in a thread that serves; starts the device's thread pool.  That clients have gone is
        told some seconds later.
        """
        callback = ClientCallback(self._dialect, changed)
        self._device.start_thread_pool()
        self._ask(
            "registerClientCallback", name, Offered(service), Offered(callback), timeout=timeout
        )
        return callback

    def try_unregister(self, name: str, service: Service, *, timeout: float | None = None) -> None:
        """Take an own service back, unless it has clients.

        Raises:
            RemoteException: EX_ILLEGAL_STATE, it has, or it is not there.
        """
        self._ask("tryUnregisterService", name, Offered(service), timeout=timeout)

    def _wait_with_manager(self, name: str, limit: Deadline) -> Proxy:
        """Wait as long as the service manager lives."""
        if self._dialect.is_legacy:
            return self._wait_by_asking(name, limit)
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

        patience = limit.for_a_call(PATIENCE)
        callback = self.register_for_notifications(name, registered, timeout=patience)
        manager = self._device.context_manager
        manager.link_to_death(manager_died)
        try:
            over.wait(limit.left())
        finally:
            manager.unlink_to_death(manager_died)
            with contextlib.suppress(RemoteException, DeadObject, CallTimeout):
                patience = limit.for_a_call(PATIENCE)
                self.unregister_for_notifications(name, callback, timeout=patience)
        if deaths and not found:
            raise no_manager()
        return proxy_of(name, found[-1] if found else None, Proxy)

    def _wait_by_asking(self, name: str, limit: Deadline) -> Proxy:
        """Ask again and again, as managers before Android 11 make no callbacks."""
        waits = pauses()
        while (service := self.check(name, timeout=limit.for_a_call(PATIENCE))) is None:
            left, pause = limit.left(), next(waits)
            if left is not None and left <= 0:
                break
            time.sleep(pause if left is None else min(pause, left))
        return proxy_of(name, service, Proxy)

    def _ask(self, method: str, *values: object, timeout: float | None = None) -> Any:  # noqa: ANN401
        return self._do(call(self._dialect, method, *values), timeout)

    def _do(self, asked: Call, timeout: float | None = None) -> Any:  # noqa: ANN401
        return asked.result(self._call(asked, timeout))

    def _call(self, asked: Call, timeout: float | None) -> Parcel:
        if self._manager is None or self._manager.dead:
            self._manager = self._device.context_manager
        try:
            return self._manager.call(asked.code, asked.request, timeout=timeout)
        except CallTimeout as error:
            raise error.named(method=asked.method.name) from None
        except DeviceGone:
            raise
        except DeadObject:
            # Handle 0 is the current manager's: there may be a new one the next time.
            self._manager = None
            raise no_manager() from None


class NamedService:
    """A service that is held by its name: looked up when it is first called, and after its death.

    Args:
        manager: where to look.
        name: the service's.
    """

    def __init__(self, manager: ServiceManager, name: str) -> None:
        check_type("named(): name", name, str)
        self.name = name
        self._manager = manager
        self._proxy: Proxy | None = None

    def proxy(self, *, timeout: float | None = None) -> Proxy:
        """Return the proxy of the service that has the name now; raises like ``call``."""
        proxy = self._proxy
        if proxy is None or proxy.dead:
            proxy = self._proxy = self._manager.get(self.name, timeout=timeout)
        return proxy

    def wait(self, timeout: float | None = None) -> Proxy:
        """Return the proxy as soon as there is one; see ``ServiceManager.wait``."""
        proxy = self._proxy
        if proxy is None or proxy.dead:
            proxy = self._proxy = self._manager.wait(self.name, timeout)
        return proxy

    def call(
        self,
        code: int,
        data: Parcel | None = None,
        *,
        oneway: bool = False,
        clear: bool = False,
        timeout: float | None = None,
    ) -> Parcel:
        """Call the service; see ``Proxy.call``.  A call that fails is not repeated.

        Raises:
            ServiceNotFound: no service has the name, now.
            DeadObject: it died, or there is no service manager; the next call looks it up again.
        """
        limit = Deadline(checked_timeout(timeout))
        proxy = self.proxy(timeout=limit.for_a_call())
        try:
            patience = limit.for_a_call()
            return proxy.call(code, data, oneway=oneway, clear=clear, timeout=patience)
        except CallTimeout as error:
            raise error.named(service=self.name) from None
        except DeadObject:
            self._proxy = None
            raise


class Offer:
    """A service that is offered under a name, to the service manager of any session."""

    def __init__(self, name: str, service: Service, dialect: Dialect) -> None:
        self._name = name
        self._service = service
        self._dialect = dialect

    def __call__(self, session: Session) -> None:
        """Offer it; raises like ``ServiceManager.add``."""
        asked = add_call(self._dialect, self._name, self._service)
        flags = call_flags(oneway=False, clear=False)
        asked.result(session.transact(0, asked.code, asked.request, flags))


def no_manager() -> DeadObject:
    """Return what is raised where there is no context manager."""
    return DeadObject("no service manager is running on this device")


def not_there(name: str) -> ServiceNotFound:
    """Return what is raised where there was not even a manager to ask."""
    return ServiceNotFound(f"no service is called {name!r}, and there is no manager")


def proxy_of(name: str, service: IBinder | None, kind: type[_Kind]) -> _Kind:
    """Return what was found under a name, as the flavour's kind of proxy.

    Raises:
        ServiceNotFound: nothing, or a service of this process.
    """
    if service is None:
        raise ServiceNotFound(f"no service is called {name!r}")
    if not isinstance(service, kind):
        raise ServiceNotFound(f"{name!r} is a service of this process: use it directly")
    return service
