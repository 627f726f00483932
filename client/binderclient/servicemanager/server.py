# SPDX-License-Identifier: Apache-2.0
"""``ServiceManagerService``: the service manager itself."""

from __future__ import annotations

import contextlib
import re
import threading
from typing import TYPE_CHECKING, ClassVar, Final

from binderclient import android
from binderclient.errors import BinderError, RemoteException
from binderclient.objects import Caller, Proxy, Service, caller, transaction
from binderclient.parcel import Parcel
from binderclient.servicemanager.formats import (
    ADD_SERVICE,
    CALLBACK_DESCRIPTOR,
    CHECK_SERVICE,
    DESCRIPTOR,
    GET_SERVICE,
    LIST_SERVICES,
    ON_REGISTRATION,
    REGISTER_FOR_NOTIFICATIONS,
    UNREGISTER_FOR_NOTIFICATIONS,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from binderclient.objects import IBinder

# What a client can make the manager keep.
SERVICES_MAX: Final = 4096
CALLBACKS_MAX: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z0-9_.\-/]{1,127}\Z")  # as Android's isValidServiceName


class ServiceManagerService(Service):
    """The service manager itself: give it to ``Device.become_context_manager`` and serve.

    One thread is to serve it (``max_threads=0``), which keeps callers in order.  Deaths may be told
    by another, when the driver goes, so the tables have a lock.
    """

    descriptor: ClassVar[str] = DESCRIPTOR

    def __init__(self) -> None:
        self._services: dict[str, IBinder] = {}
        self._callbacks: dict[str, list[IBinder]] = {}
        self._lock = threading.RLock()

    def on_transact(
        self, code: int, data: Parcel, reply: Parcel, flags: int
    ) -> Awaitable[None] | None:
        """See ``Service``."""
        with self._lock:
            return super().on_transact(code, data, reply, flags)

    def may_add(self, _who: Caller, _name: str) -> bool:
        """Say whether a caller may offer a service of that name; here everybody may."""
        return True

    @transaction(GET_SERVICE)
    @transaction(CHECK_SERVICE)
    def check_service(self, data: Parcel, reply: Parcel) -> None:
        """Answer with the service of a name, or null."""
        service = self._find(data.read_string16() or "")
        reply.write_no_exception()
        reply.write_strong_binder(service)

    @transaction(ADD_SERVICE)
    def add_service(self, data: Parcel, reply: Parcel) -> None:
        """Enter a service and tell those who wait for it."""
        name = _checked_name(data)
        service = _checked_binder(data)
        if not self.may_add(caller(), name):
            raise RemoteException(android.EX_SECURITY, f"may not add {name!r}")
        if name not in self._services and len(self._services) >= SERVICES_MAX:
            raise RemoteException(android.EX_ILLEGAL_STATE, "too many services")
        self._link(service, self._service_died)
        previous, self._services[name] = self._services.get(name), service
        if previous is not None:
            self._unlink(previous, self._service_died)
        reply.write_no_exception()
        for callback in list(self._callbacks.get(name, ())):
            _notify_registered(callback, name, service)

    @transaction(LIST_SERVICES)
    def list_services(self, _data: Parcel, reply: Parcel) -> None:
        """Answer with all names, sorted."""
        reply.write_no_exception()
        reply.write_string16_array(sorted(name for name in self._services if self._find(name)))

    @transaction(REGISTER_FOR_NOTIFICATIONS)
    def register_for_notifications(self, data: Parcel, reply: Parcel) -> None:
        """Enter a callback; it is called at once if the name is taken."""
        name = _checked_name(data)
        callback = _checked_binder(data)
        if sum(map(len, self._callbacks.values())) >= CALLBACKS_MAX:
            raise RemoteException(android.EX_ILLEGAL_STATE, "too many callbacks")
        self._link(callback, self._callback_died)
        self._callbacks.setdefault(name, []).append(callback)
        reply.write_no_exception()
        service = self._find(name)
        if service is not None:
            _notify_registered(callback, name, service)

    @transaction(UNREGISTER_FOR_NOTIFICATIONS)
    def unregister_for_notifications(self, data: Parcel, reply: Parcel) -> None:
        """Remove a callback."""
        name = _checked_name(data)
        callback = _checked_binder(data)
        if callback not in self._callbacks.get(name, ()):
            raise RemoteException(android.EX_ILLEGAL_STATE, "that callback is not registered")
        self._remove_callback(name, callback)
        self._unlink(callback, self._callback_died)
        reply.write_no_exception()

    def _find(self, name: str) -> IBinder | None:
        """Return a service, unless it is known to be dead and only its death is not told yet."""
        service = self._services.get(name)
        return None if isinstance(service, Proxy) and service.dead else service

    def _remove_callback(self, name: str, callback: IBinder) -> None:
        callbacks = self._callbacks[name]
        callbacks.remove(callback)
        if not callbacks:
            del self._callbacks[name]

    def _link(self, binder: IBinder, died: Callable[[Proxy], object]) -> None:
        if isinstance(binder, Proxy):
            binder.link_to_death(died)

    def _unlink(self, binder: IBinder, died: Callable[[Proxy], object]) -> None:
        if isinstance(binder, Proxy):
            binder.unlink_to_death(died)

    def _service_died(self, service: Proxy) -> None:
        # Called once per name that it was added as; the first call removes them all.
        with self._lock:
            for name in [n for n, known in self._services.items() if known is service]:
                del self._services[name]

    def _callback_died(self, callback: Proxy) -> None:
        with self._lock:
            for name in [n for n, known in self._callbacks.items() if callback in known]:
                while callback in self._callbacks.get(name, ()):
                    self._remove_callback(name, callback)


def is_service_name(name: str) -> bool:
    """Say whether a service may be called that."""
    return _NAME.match(name) is not None


def _checked_name(data: Parcel) -> str:
    name = data.read_string16()
    if name is None or not is_service_name(name):
        raise RemoteException(android.EX_ILLEGAL_ARGUMENT, f"{name!r} is no service name")
    return name


def _checked_binder(data: Parcel) -> IBinder:
    binder = data.read_strong_binder()
    if binder is None:
        raise RemoteException(android.EX_NULL_POINTER, "a binder object is wanted here")
    return binder


def _notify_registered(callback: IBinder, name: str, service: IBinder) -> None:
    """Tell one callback; what became of it is its own business."""
    notice = Parcel.for_interface(CALLBACK_DESCRIPTOR)
    notice.write_string16(name)
    notice.write_strong_binder(service)
    if isinstance(callback, Proxy):
        with contextlib.suppress(BinderError):
            callback.call(ON_REGISTRATION, notice, oneway=True)
