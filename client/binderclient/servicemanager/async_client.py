# SPDX-License-Identifier: Apache-2.0
"""``AsyncServiceManager``: finds and offers services by name, for event loops.

Nothing here may be imported from ``binderclient.trio`` or ``binderclient.aio``, which have these
names as well.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from binderclient.arguments import check_type
from binderclient.asynchronous import AsyncDevice
from binderclient.deadlines import Deadline, checked_timeout
from binderclient.errors import CallTimeout, DeadObject, DeviceGone, RemoteException
from binderclient.objects import RemoteObject, Service
from binderclient.recovery import pauses
from binderclient.servicemanager import formats
from binderclient.servicemanager.client import (
    PATIENCE,
    Offer,
    no_manager,
    not_there,
    proxy_of,
)
from binderclient.servicemanager.values import ConnectionInfo, DebugInfo, Offered
from binderwire.service_manager import DEFAULT_ANDROID, DUMP_PRIORITY_ALL, dialect_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.asynchronous import AsyncProxy
    from binderclient.ibinder import IBinder
    from binderclient.parcel import Parcel

# AsyncServiceManager has a method that is called list.
_Names: TypeAlias = list[str]
_DebugInfos: TypeAlias = list[DebugInfo]


class AsyncServiceManager:
    """Finds and offers services by name; like ``ServiceManager``, for event loops.

    Args:
        device, android: see ``ServiceManager``.

    Its methods raise what those of ``ServiceManager`` do: DeadObject when no service manager runs
    on that device, for one.
    """

    def __init__(self, device: AsyncDevice, android: str | int = DEFAULT_ANDROID) -> None:
        check_type("AsyncServiceManager(): device", device, AsyncDevice)
        self._device = device
        self._dialect = dialect_of(android)

    async def add(self, name: str, service: Service, *, timeout: float | None = None) -> None:
        """Offer ``service``; see ``ServiceManager.add``.  Starts to serve."""
        self._device.start_serving()
        with self._device.offering(name, Offer(name, service, self._dialect)):
            await self._do(formats.add_call(self._dialect, name, service), timeout)

    async def check(self, name: str, *, timeout: float | None = None) -> IBinder | None:
        """Return the service of that name, None if there is none."""
        found: Offered | None = await self._ask("checkService", name, timeout=timeout)
        return None if found is None else found.binder

    async def get(self, name: str, *, timeout: float | None = None) -> AsyncProxy:
        """Return the proxy of the service of that name.

        Raises:
            ServiceNotFound: there is none, now.
        """
        return _proxy_of(name, await self.check(name, timeout=timeout))

    async def list(self, *, timeout: float | None = None) -> list[str]:
        """Return all names, sorted."""
        if not self._dialect.is_legacy:
            return list(await self._ask("listServices", DUMP_PRIORITY_ALL, timeout=timeout))
        names: list[str] = []
        limit = Deadline(checked_timeout(timeout))
        with contextlib.suppress(RemoteException):  # there is none at that place
            while True:
                place = len(names), DUMP_PRIORITY_ALL
                names.append(await self._ask("listServices", *place, timeout=limit.for_a_call()))
        return names

    async def wait(self, name: str, timeout: float | None = None) -> AsyncProxy:
        """Return the proxy of the service of that name, as soon as there is one.

        See ``ServiceManager.wait`` for arguments and exceptions.
        """
        limit = Deadline(timeout)
        waits = pauses()
        while True:
            try:
                return await self._wait_with_manager(name, limit)
            except DeadObject:
                if not self._device.reconnects:
                    raise
            pause, rest = next(waits), limit.left()
            is_back = await self._device.wait_back(rest)
            if not is_back or (rest is not None and rest <= pause):
                raise not_there(name)
            await self._device.loop.sleep(pause)

    def named(self, name: str) -> AsyncNamedService:
        """Return the service of that name, whichever it is at the time of each call."""
        return AsyncNamedService(self, name)

    async def register_for_notifications(
        self,
        name: str,
        registered: Callable[[str, IBinder], object],
        *,
        timeout: float | None = None,
    ) -> formats.RegistrationCallback:
        """Have a function called in the loop's thread; see ``ServiceManager``.  Starts to serve."""
        callback = formats.RegistrationCallback(self._dialect, registered)
        self._device.start_serving()
        await self._ask("registerForNotifications", name, Offered(callback), timeout=timeout)
        return callback

    async def unregister_for_notifications(
        self, name: str, callback: formats.RegistrationCallback, *, timeout: float | None = None
    ) -> None:
        """Take back ``register_for_notifications``; raises like ``ServiceManager``'s."""
        await self._ask("unregisterForNotifications", name, Offered(callback), timeout=timeout)

    # What is declared

    async def is_declared(self, name: str, *, timeout: float | None = None) -> bool:
        """Say whether an instance is declared, whether or not it is there now."""
        return bool(await self._ask("isDeclared", name, timeout=timeout))

    async def declared_instances(self, interface: str, *, timeout: float | None = None) -> _Names:
        """Return the names of the declared instances of an interface."""
        return list(await self._ask("getDeclaredInstances", interface, timeout=timeout))

    async def updatable_via_apex(self, name: str, *, timeout: float | None = None) -> str | None:
        """Return the APEX package with which an instance is updated; None if with none."""
        apex: str | None = await self._ask("updatableViaApex", name, timeout=timeout)
        return apex

    async def updatable_names(self, apex: str, *, timeout: float | None = None) -> _Names:
        """Return the names of the instances that are updated with an APEX package."""
        return list(await self._ask("getUpdatableNames", apex, timeout=timeout))

    async def connection_info(
        self, name: str, *, timeout: float | None = None
    ) -> ConnectionInfo | None:
        """Return where an instance can be reached through the network; None if it cannot."""
        info: ConnectionInfo | None = await self._ask("getConnectionInfo", name, timeout=timeout)
        return info

    async def debug_info(self, *, timeout: float | None = None) -> _DebugInfos:
        """Return all services with the numbers of their processes."""
        return list(await self._ask("getServiceDebugInfo", timeout=timeout))

    # Lazy services

    async def register_client_callback(
        self,
        name: str,
        service: Service,
        changed: Callable[[bool], object],
        *,
        timeout: float | None = None,
    ) -> formats.ClientCallback:
        """Have a function called in the loop's thread; see ``ServiceManager``.  Starts to serve."""
        callback = formats.ClientCallback(self._dialect, changed)
        self._device.start_serving()
        await self._ask(
            "registerClientCallback", name, Offered(service), Offered(callback), timeout=timeout
        )
        return callback

    async def try_unregister(
        self, name: str, service: Service, *, timeout: float | None = None
    ) -> None:
        """Take an own service back, unless it has clients; raises like ``ServiceManager``'s."""
        await self._ask("tryUnregisterService", name, Offered(service), timeout=timeout)

    async def _wait_with_manager(self, name: str, limit: Deadline) -> AsyncProxy:
        """Wait as long as the service manager lives."""
        if self._dialect.is_legacy:
            return await self._wait_by_asking(name, limit)
        found: list[IBinder] = []
        deaths: list[RemoteObject] = []
        over = self._device.loop.event()

        def registered(_name: str, service: IBinder) -> None:
            # Until the manager hears of a death, it hands out what we may know to be dead.
            if isinstance(service, RemoteObject) and service.dead:
                return
            found.append(service)
            over.set()

        def manager_died(manager: RemoteObject) -> None:
            deaths.append(manager)
            self._device.run_soon(lambda _device: over.set())

        patience = limit.for_a_call(PATIENCE)
        callback = await self.register_for_notifications(name, registered, timeout=patience)
        manager = self._device.context_manager
        await self._device.link(manager, manager_died)
        try:
            with self._device.alarm(limit.left(), over.set):
                await over.wait()
        finally:
            await self._device.loop.finish(self._end_wait(name, callback, manager, manager_died))
        if deaths and not found:
            raise no_manager()
        return _proxy_of(name, found[-1] if found else None)

    async def _end_wait(
        self,
        name: str,
        callback: formats.RegistrationCallback,
        manager: AsyncProxy,
        manager_died: Callable[[RemoteObject], object],
    ) -> None:
        await self._device.unlink(manager, manager_died)
        with contextlib.suppress(RemoteException, DeadObject, CallTimeout):
            await self.unregister_for_notifications(name, callback, timeout=PATIENCE)

    async def _wait_by_asking(self, name: str, limit: Deadline) -> AsyncProxy:
        """See ``ServiceManager``."""
        waits = pauses()
        while (service := await self.check(name, timeout=limit.for_a_call(PATIENCE))) is None:
            left, pause = limit.left(), next(waits)
            if left is not None and left <= 0:
                break
            await self._device.loop.sleep(pause if left is None else min(pause, left))
        return _proxy_of(name, service)

    async def _ask(self, method: str, *values: object, timeout: float | None = None) -> Any:  # noqa: ANN401
        return await self._do(formats.call(self._dialect, method, *values), timeout)

    async def _do(self, asked: formats.Call, timeout: float | None = None) -> Any:  # noqa: ANN401
        return asked.result(await self._call(asked, timeout))

    async def _call(self, asked: formats.Call, timeout: float | None) -> Parcel:
        manager = self._device.context_manager
        try:
            return await manager.call(asked.code, asked.request, timeout=timeout)
        except CallTimeout as error:
            raise error.named(method=asked.method.name) from None
        except DeviceGone:
            raise
        except DeadObject:
            raise no_manager() from None


class AsyncNamedService:
    """A service that is held by its name; like ``NamedService``, for event loops."""

    def __init__(self, manager: AsyncServiceManager, name: str) -> None:
        check_type("named(): name", name, str)
        self.name = name
        self._manager = manager
        self._proxy: AsyncProxy | None = None

    async def proxy(self, *, timeout: float | None = None) -> AsyncProxy:
        """See ``NamedService.proxy``."""
        proxy = self._proxy
        if proxy is None or proxy.dead:
            proxy = self._proxy = await self._manager.get(self.name, timeout=timeout)
        return proxy

    async def wait(self, timeout: float | None = None) -> AsyncProxy:
        """See ``NamedService.wait``."""
        proxy = self._proxy
        if proxy is None or proxy.dead:
            proxy = self._proxy = await self._manager.wait(self.name, timeout)
        return proxy

    async def call(
        self,
        code: int,
        data: Parcel | None = None,
        *,
        oneway: bool = False,
        clear: bool = False,
        timeout: float | None = None,
    ) -> Parcel:
        """See ``NamedService.call``."""
        limit = Deadline(checked_timeout(timeout))
        proxy = await self.proxy(timeout=limit.for_a_call())
        try:
            patience = limit.for_a_call()
            return await proxy.call(code, data, oneway=oneway, clear=clear, timeout=patience)
        except CallTimeout as error:
            raise error.named(service=self.name) from None
        except DeadObject:
            self._proxy = None
            raise


def _proxy_of(name: str, service: IBinder | None) -> AsyncProxy:
    return cast("AsyncProxy", proxy_of(name, service, RemoteObject))
