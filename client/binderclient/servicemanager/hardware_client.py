# SPDX-License-Identifier: Apache-2.0
"""``HardwareManager``: finds HIDL's services on hwbinder.

Programs that use such a service have code generated from HIDL, which does this itself.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from binderclient import android, hidl
from binderclient.deadlines import Deadline
from binderclient.errors import (
    CallTimeout,
    DeadObject,
    DeviceGone,
    ParcelError,
    RemoteException,
)
from binderclient.objects import Proxy, Service
from binderclient.parcel import Parcel
from binderclient.servicemanager.client import PATIENCE, ServiceNotFound, no_manager, proxy_of
from binderwire import hidl as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.blocking import Device

_SEPARATOR: Final = "/"  # between an interface and its instance


class HardwareService:
    """A service of HIDL.

    Args:
        proxy: by which it is reached.
    """

    def __init__(self, proxy: Proxy) -> None:
        self.handle = proxy.handle
        self.call = proxy.call
        self._proxy = proxy

    def interface(self, *, timeout: float | None = None) -> str:
        """Return the name of its interface."""
        with _ask(self._proxy, wire.IBASE, wire.INTERFACE_DESCRIPTOR, timeout=timeout) as reply:
            return hidl.read_string(reply)

    def ping(self, *, timeout: float | None = None) -> None:
        """Return if it answers."""
        _ask(self._proxy, wire.IBASE, wire.PING, timeout=timeout).close()


class HardwareManager:
    """Finds services of HIDL by name, which is ``package@1.0::IInterface/instance``.

    Args:
        device: whose manager is meant.

    Every method raises DeadObject when no service manager runs on that device, RemoteException when
    there is one that does not speak HIDL, ParcelError when its reply makes no sense, CallTimeout
    when it does not answer within ``timeout`` (seconds, None for ever).
    """

    def __init__(self, device: Device) -> None:
        self._device = device

    def list(self, *, timeout: float | None = None) -> list[str]:
        """Return all names, sorted."""
        with self._ask(wire.MANAGER_1_0, wire.LIST, timeout=timeout) as reply:
            return sorted(hidl.read_strings(reply))

    def get(self, name: str, *, timeout: float | None = None) -> HardwareService:
        """Return the service of that name.

        Raises:
            ServiceNotFound: there is none, now, or it is one of this process.
        """
        with self._ask(wire.MANAGER_1_0, wire.GET, *_split(name), timeout=timeout) as reply:
            found = reply.read_bare_binder()
        return HardwareService(proxy_of(name, found, Proxy))

    def wait(self, name: str, timeout: float | None = None) -> HardwareService:
        """Return the service of that name, as soon as there is one; starts the thread pool.

        Args:
            timeout: seconds, None for ever.

        Raises:
            ServiceNotFound: not within ``timeout``.
        """
        key, arrival = _split(name), _Arrival()
        self._device.start_thread_pool()
        limit = Deadline(timeout)
        patience = limit.for_a_call(PATIENCE)
        register = wire.REGISTER_FOR_NOTIFICATIONS
        with self._ask(wire.MANAGER_1_0, register, *key, arrival, timeout=patience) as reply:
            if not reply.read_bool():
                raise ServiceNotFound(f"the manager does not tell of {name!r}")
        try:
            arrival.event.wait(limit.left())
        finally:
            unregister, patience = wire.UNREGISTER_FOR_NOTIFICATIONS, limit.for_a_call(PATIENCE)
            with contextlib.suppress(RemoteException, DeadObject, CallTimeout):
                self._ask(wire.MANAGER_1_1, unregister, *key, arrival, timeout=patience).close()
        return self.get(name, timeout=limit.for_a_call(PATIENCE))

    def _ask(self, token: str, code: int, *values: str | Service, timeout: float | None) -> Parcel:
        try:
            return _ask(self._device.context_manager, token, code, *values, timeout=timeout)
        except DeviceGone:
            raise
        except DeadObject:
            raise no_manager() from None


def _ask(
    target: Proxy, token: str, code: int, *values: str | Service, timeout: float | None
) -> Parcel:
    """Return the reply to a call, behind its status."""
    request = Parcel()
    request.write_cstring(token)
    for value in values:
        if isinstance(value, str):
            hidl.write_string(request, value)
        else:
            request.write_bare_binder(value)
    reply = target.call(code, request, timeout=timeout)
    try:
        status = reply.read_int32()
        if status:
            raise RemoteException(status=status)
    except (ParcelError, RemoteException):
        reply.close()
        raise
    return reply


class _Arrival(Service):
    """The callback by which the manager tells that a service is there."""

    descriptor = wire.NOTIFICATION

    def __init__(self) -> None:
        self.event = threading.Event()
        self._answers: dict[int, Callable[[Parcel], None]] = {
            wire.ON_REGISTRATION: lambda _reply: self.event.set(),
            wire.PING: lambda _reply: None,
            wire.INTERFACE_CHAIN: lambda reply: hidl.write_strings(
                reply, (wire.NOTIFICATION, wire.IBASE)
            ),
        }

    def on_transact(self, code: int, data: Parcel, reply: Parcel, _flags: int) -> None:
        """See ``Service``."""
        if code not in self._answers:
            raise RemoteException(status=android.STATUS_UNKNOWN_TRANSACTION)
        data.read_cstring()
        reply.write_int32(android.STATUS_OK)
        self._answers[code](reply)


def _split(name: str) -> tuple[str, str]:
    interface, separator, instance = name.rpartition(_SEPARATOR)
    if not (interface and separator and instance):
        raise ServiceNotFound(f"{name!r} is no name of HIDL: package@1.0::IInterface/instance")
    return interface, instance
