# SPDX-License-Identifier: Apache-2.0
"""``AsyncServiceManager``: finds and offers services by name; trio flavour.

Nothing here may be imported from ``binderclient.trio``, which has these names as well.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import trio

from binderclient.errors import DeadObject, DeviceGone, RemoteException
from binderclient.objects import RemoteObject, Service
from binderclient.recovery import pauses
from binderclient.servicemanager import formats
from binderclient.servicemanager.client import Offer, no_manager, proxy_of
from binderclient.servicemanager.values import ConnectionInfo, DebugInfo, Offered
from binderwire.service_manager import DEFAULT_ANDROID, DUMP_PRIORITY_ALL, dialect_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.ibinder import IBinder
    from binderclient.parcel import Parcel
    from binderclient.trio import AsyncDevice, AsyncProxy

_UNREGISTER_SECONDS: Final = 1.0

# AsyncServiceManager has a method that is called list.
_Names: TypeAlias = list[str]
_DebugInfos: TypeAlias = list[DebugInfo]


class AsyncServiceManager:
    """Finds and offers services by name; trio flavour of ``ServiceManager``.

    Args:
        device, android: see ``ServiceManager``.

    Every method raises DeadObject when no service manager runs on that device.
    """

    def __init__(self, device: AsyncDevice, android: str | int = DEFAULT_ANDROID) -> None:
        self._device = device
        self._dialect = dialect_of(android)

    async def add(self, name: str, service: Service) -> None:
        """Offer ``service``; see ``ServiceManager.add``.  Starts to serve."""
        self._device.start_serving()
        with self._device.offering(name, Offer(name, service, self._dialect)):
            await self._do(formats.add_call(self._dialect, name, service))

    async def check(self, name: str) -> IBinder | None:
        """Return the service of that name, None if there is none."""
        found: Offered | None = await self._ask("checkService", name)
        return None if found is None else found.binder

    async def get(self, name: str) -> AsyncProxy:
        """Return the proxy of the service of that name.

        Raises:
            ServiceNotFound: there is none, now.
        """
        return _proxy_of(name, await self.check(name))

    async def list(self) -> list[str]:
        """Return all names, sorted."""
        if not self._dialect.is_legacy:
            return list(await self._ask("listServices", DUMP_PRIORITY_ALL))
        names: list[str] = []
        with contextlib.suppress(RemoteException):  # there is none at that place
            while True:
                names.append(await self._ask("listServices", len(names), DUMP_PRIORITY_ALL))
        return names

    async def wait(self, name: str) -> AsyncProxy:
        """Return the proxy of the service of that name, as soon as there is one.

        With ``reconnect`` it also waits for the device and for a service manager.
        """
        waits = pauses()
        while True:
            try:
                return await self._wait_with_manager(name)
            except DeadObject:
                if not self._device.reconnects:
                    raise
            await self._device.wait_back()
            await trio.sleep(next(waits))

    def named(self, name: str) -> AsyncNamedService:
        """Return the service of that name, whichever it is at the time of each call."""
        return AsyncNamedService(self, name)

    async def register_for_notifications(
        self, name: str, registered: Callable[[str, IBinder], object]
    ) -> formats.RegistrationCallback:
        """Have a function called in the trio thread; see ``ServiceManager``.  Starts to serve."""
        callback = formats.RegistrationCallback(self._dialect, registered)
        self._device.start_serving()
        await self._ask("registerForNotifications", name, Offered(callback))
        return callback

    async def unregister_for_notifications(
        self, name: str, callback: formats.RegistrationCallback
    ) -> None:
        """Take back ``register_for_notifications``; raises like ``ServiceManager``'s."""
        await self._ask("unregisterForNotifications", name, Offered(callback))

    # What is declared

    async def is_declared(self, name: str) -> bool:
        """Say whether an instance is declared, whether or not it is there now."""
        return bool(await self._ask("isDeclared", name))

    async def declared_instances(self, interface: str) -> _Names:
        """Return the names of the declared instances of an interface."""
        return list(await self._ask("getDeclaredInstances", interface))

    async def updatable_via_apex(self, name: str) -> str | None:
        """Return the package with which an instance is updated."""
        apex: str | None = await self._ask("updatableViaApex", name)
        return apex

    async def updatable_names(self, apex: str) -> _Names:
        """Return the instances that are updated with a package."""
        return list(await self._ask("getUpdatableNames", apex))

    async def connection_info(self, name: str) -> ConnectionInfo | None:
        """Return where an instance can be reached through the network."""
        info: ConnectionInfo | None = await self._ask("getConnectionInfo", name)
        return info

    async def debug_info(self) -> _DebugInfos:
        """Return all services with the numbers of their processes."""
        return list(await self._ask("getServiceDebugInfo"))

    # Lazy services

    async def register_client_callback(
        self, name: str, service: Service, changed: Callable[[bool], object]
    ) -> formats.ClientCallback:
        """Have a function called in the trio thread; see ``ServiceManager``.  Starts to serve."""
        callback = formats.ClientCallback(self._dialect, changed)
        self._device.start_serving()
        await self._ask("registerClientCallback", name, Offered(service), Offered(callback))
        return callback

    async def try_unregister(self, name: str, service: Service) -> None:
        """Take an own service back, unless it has clients; raises like ``ServiceManager``'s."""
        await self._ask("tryUnregisterService", name, Offered(service))

    async def _wait_with_manager(self, name: str) -> AsyncProxy:
        """Wait as long as the service manager lives."""
        if self._dialect.is_legacy:
            return await self._wait_by_asking(name)
        found: list[IBinder] = []
        arrived = trio.Event()

        def registered(_name: str, service: IBinder) -> None:
            # Until the manager hears of a death, it hands out what we may know to be dead.
            if isinstance(service, RemoteObject) and service.dead:
                return
            found.append(service)
            arrived.set()

        def manager_died(_manager: RemoteObject) -> None:
            self._device.run_soon(lambda _device: arrived.set())

        callback = await self.register_for_notifications(name, registered)
        manager = self._device.context_manager
        await self._device.link(manager, manager_died)
        try:
            await arrived.wait()
        finally:
            with trio.move_on_after(_UNREGISTER_SECONDS) as scope:
                scope.shield = True
                await self._device.unlink(manager, manager_died)
                with contextlib.suppress(RemoteException, DeadObject):
                    await self.unregister_for_notifications(name, callback)
        if not found:
            raise no_manager()
        return _proxy_of(name, found[-1])

    async def _wait_by_asking(self, name: str) -> AsyncProxy:
        """See ``ServiceManager``."""
        waits = pauses()
        while (service := await self.check(name)) is None:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(next(waits))
        return _proxy_of(name, service)

    async def _ask(self, method: str, *values: object) -> Any:  # noqa: ANN401 - by method
        return await self._do(formats.call(self._dialect, method, *values))

    async def _do(self, asked: formats.Call) -> Any:  # noqa: ANN401 - by method
        return asked.result(await self._call(asked.code, asked.request))

    async def _call(self, code: int, request: Parcel) -> Parcel:
        try:
            return await self._device.context_manager.call(code, request)
        except DeviceGone:
            raise
        except DeadObject:
            raise no_manager() from None


class AsyncNamedService:
    """A service that is held by its name; trio flavour of ``NamedService``."""

    def __init__(self, manager: AsyncServiceManager, name: str) -> None:
        self.name = name
        self._manager = manager
        self._proxy: AsyncProxy | None = None

    async def proxy(self) -> AsyncProxy:
        """See ``NamedService.proxy``."""
        proxy = self._proxy
        if proxy is None or proxy.dead:
            proxy = self._proxy = await self._manager.get(self.name)
        return proxy

    async def wait(self) -> AsyncProxy:
        """See ``NamedService.wait``."""
        proxy = self._proxy
        if proxy is None or proxy.dead:
            proxy = self._proxy = await self._manager.wait(self.name)
        return proxy

    async def call(
        self, code: int, data: Parcel | None = None, *, oneway: bool = False, clear: bool = False
    ) -> Parcel:
        """See ``NamedService.call``."""
        proxy = await self.proxy()
        try:
            return await proxy.call(code, data, oneway=oneway, clear=clear)
        except DeadObject:
            self._proxy = None
            raise


def _proxy_of(name: str, service: IBinder | None) -> AsyncProxy:
    return cast("AsyncProxy", proxy_of(name, service, RemoteObject))
