# SPDX-License-Identifier: Apache-2.0
"""``ServiceManagerService``: the service manager itself.

A request's token says of which era it is; within that, the manager speaks the Android that it was
told.  ``binderwire.service_manager`` has the methods, ``values`` their bytes, ``entries`` the
tables, ``lazy`` the client callbacks.  The manager makes one-way calls only, so it never waits
for a process that does not answer.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from binderclient import android
from binderclient.arguments import check_type
from binderclient.errors import BinderError, DeadObject, ParcelError, RemoteException
from binderclient.objects import Caller, Proxy, ShellCommand, caller
from binderclient.parcel import Parcel
from binderclient.servicemanager.complaints import Complaints
from binderclient.servicemanager.declared import Declared
from binderclient.servicemanager.entries import (
    Entry,
    Subscriber,
)
from binderclient.servicemanager.names import is_service_name
from binderclient.servicemanager.registry import Registry
from binderclient.servicemanager.report import Reporter
from binderclient.servicemanager.values import (
    ConnectionInfo,
    DebugInfo,
    Offered,
    ServiceWithMetadata,
    read_arguments,
    write_arguments,
    write_result,
)
from binderclient.tokens import Token, read_token
from binderwire.service_manager import (
    CALLBACK_CODE,
    CALLBACK_DESCRIPTOR,
    CLIENT_CALLBACK_DESCRIPTOR,
    DEFAULT_ANDROID,
    DESCRIPTOR,
    DUMP_PRIORITY_ALL,
    DUMP_PRIORITY_DEFAULT,
    FLAG_IS_LAZY_SERVICE,
    MANAGER_NAME,
    ON_CLIENTS,
    ON_REGISTRATION,
    Dialect,
    Method,
    dialect_for,
    dialect_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable


_LEGACY_FAILURE: Final = -1  # the one status that the manager had before AIDL
# User numbers that Android gives to isolated processes.
_USER_RANGE: Final = 100_000
_FIRST_ISOLATED: Final = 99_000
_HINT: Final = "if it was written for another Android, start this manager with --android"


class _Request(NamedTuple):
    """A request that fits its code."""

    dialect: Dialect
    token: Token
    method: Method
    values: tuple[Any, ...]


class ServiceManagerService(Registry):
    """The service manager itself: give it to ``Device.become_context_manager`` and serve.

    One thread is to serve it (``max_threads=0``), which keeps callers in order.

    Args:
        android: which Android's manager it is: 8 … 16, an API level, a protocol of libgbinder.
        declared: the instances that isDeclared and its like know.

    Raises:
        ValueError: there is no such Android.
    """

    descriptor: ClassVar[str] = DESCRIPTOR
    accepts_descriptors: ClassVar[bool] = True  # for dump and shell commands

    def __init__(
        self, android: str | int = DEFAULT_ANDROID, declared: Iterable[Declared] = ()
    ) -> None:
        super().__init__(_notify_clients)
        declared = list(declared)
        for number, each in enumerate(declared):
            check_type(f"ServiceManagerService(): declared[{number}]", each, Declared)
        self._dialect = dialect_of(android)
        self._declared = {each.name: each for each in declared}
        self._complaints = Complaints(_HINT)
        self._reporter = Reporter()
        self._services.put(
            MANAGER_NAME,
            Entry(Offered(self), False, DUMP_PRIORITY_DEFAULT, os.getpid(), os.geteuid()),
        )
        self._handlers: dict[str, Callable[..., object]] = {
            "getService": self._get_service,
            "checkService": self._get_service,
            "getService2": self._get_service2,
            "checkService2": self._get_service2,
            "addService": self._add_service,
            "registerForNotifications": self._register_for_notifications,
            "unregisterForNotifications": self._unregister_for_notifications,
            "isDeclared": self._is_declared,
            "getDeclaredInstances": self._get_declared_instances,
            "updatableViaApex": self._updatable_via_apex,
            "getUpdatableNames": self._get_updatable_names,
            "getConnectionInfo": self._get_connection_info,
            "registerClientCallback": self._register_client_callback,
            "tryUnregisterService": self._try_unregister_service,
            "getServiceDebugInfo": self._get_service_debug_info,
            "listServices": self._list_services,
        }

    # Requests

    def on_transact(
        self, code: int, data: Parcel, reply: Parcel, _flags: int
    ) -> Awaitable[None] | None:
        """See ``Service``."""
        with self._lock:
            request = self._read(code, data)
            try:
                result = self._handlers[request.method.name](request, *request.values)
            except (RemoteException, DeadObject) as error:
                raise _failure(request.dialect, error) from None
            write_result(reply, request.dialect, request.method, result)
        return None

    def _read(self, code: int, data: Parcel) -> _Request:
        """Read a request to its end.

        Raises:
            RemoteException: it does not fit its code, as Android's manager would say it.
        """
        dialect = self._dialect
        try:
            token = read_token(data, DESCRIPTOR)
        except ParcelError as error:
            self._complaints.refused(code, str(error))
            is_known = dialect.method(code) is not None
            status = android.STATUS_BAD_TYPE if is_known else android.STATUS_UNKNOWN_TRANSACTION
            raise RemoteException(status=status) from None
        dialect = dialect_for(token.era, dialect)
        method = dialect.method(code)
        if method is None:
            self._complaints.refused(code, f"Android {dialect.android} has no such method")
            raise _failure(dialect, RemoteException(status=android.STATUS_UNKNOWN_TRANSACTION))
        try:
            return _Request(dialect, token, method, read_arguments(data, dialect, method))
        except (ParcelError, RemoteException) as error:
            self._complaints.refused(
                code, f"no {method.name} of Android {dialect.android}: {error}"
            )
            failure = error
        if isinstance(failure, ParcelError):
            failure = RemoteException(status=android.STATUS_NOT_ENOUGH_DATA)
        raise _failure(dialect, failure) from None

    def may_add(self, _who: Caller, _name: str) -> bool:
        """Return whether a caller may offer a service of that name; override it to refuse some."""
        return True

    # Services

    def _get_service(self, _request: _Request, name: str) -> Offered | None:
        entry = self._handed_out(name)
        return None if entry is None else entry.offered

    def _get_service2(self, _request: _Request, name: str) -> ServiceWithMetadata:
        entry = self._handed_out(name)
        if entry is None:
            return ServiceWithMetadata(None)
        return ServiceWithMetadata(entry.offered, bool(entry.dump_priority & FLAG_IS_LAZY_SERVICE))

    def _handed_out(self, name: str) -> Entry | None:
        entry = self._find(name)
        if entry is None or (_is_isolated(caller()) and not entry.allow_isolated):
            return None
        self._watch.hand_out(name, entry)
        return entry

    def _find(self, name: str) -> Entry | None:
        """Return a service, unless it is known to be dead and only its death is not told yet."""
        entry = self._services.find(name)
        return None if entry is None or _is_dead(entry) else entry

    def _add_service(
        self, _request: _Request, name: str, offered: Offered, isolated: bool, priority: int
    ) -> None:
        who = caller()
        if name == MANAGER_NAME or not self.may_add(who, name):
            raise RemoteException(android.EX_SECURITY, f"May not add {name!r}.")
        _check_name(name)
        if offered.stability == android.STABILITY_VINTF and name not in self._declared:
            raise RemoteException(android.EX_ILLEGAL_ARGUMENT, "VINTF declaration error.")
        entry = Entry(offered, isolated, priority, who.sender_pid, who.sender_euid)
        previous = self._services.find(name)
        if previous is not None:  # its callbacks have been told of them
            entry.has_clients = previous.has_clients
        self._keep(offered.binder, lambda: self._services.put(name, entry))
        if previous is not None:
            self._let_go(previous.offered.binder)
        waiting = list(self._callbacks.of(name))
        if waiting:
            self._watch.hand_out(name, entry)
        for subscriber in waiting:
            _notify_registered(subscriber, name, offered)

    def _list_services(
        self, request: _Request, first: int, mask: int = DUMP_PRIORITY_ALL
    ) -> list[str] | str:
        is_legacy = request.dialect.is_legacy
        wanted = mask if is_legacy else first
        names = [
            name
            for name, entry in self._services.items()
            if entry.dump_priority & wanted and not _is_dead(entry)
        ]
        if not is_legacy:
            return names
        if not 0 <= first < len(names):
            raise RemoteException(status=_LEGACY_FAILURE)
        return names[first]

    def _get_service_debug_info(self, _request: _Request) -> list[DebugInfo]:
        return [DebugInfo(name, entry.pid) for name, entry in self._services.items()]

    # Notifications

    def _register_for_notifications(self, request: _Request, name: str, callback: Offered) -> None:
        if _is_isolated(caller()):
            raise RemoteException(android.EX_SECURITY, "Isolated app.")
        _check_name(name)
        subscriber = _subscriber(request, callback)
        self._keep(callback.binder, lambda: self._callbacks.add(name, subscriber))
        entry = self._find(name)
        if entry is not None:
            _notify_registered(subscriber, name, entry.offered)

    def _unregister_for_notifications(
        self, _request: _Request, name: str, callback: Offered
    ) -> None:
        if not self._callbacks.remove(name, callback.binder):
            raise RemoteException(android.EX_ILLEGAL_STATE, "Nothing to unregister.")
        self._let_go(callback.binder)

    # What is declared

    def _is_declared(self, _request: _Request, name: str) -> bool:
        return name in self._declared

    def _get_declared_instances(self, _request: _Request, interface: str) -> list[str]:
        return sorted(
            each.instance for each in self._declared.values() if each.interface == interface
        )

    def _updatable_via_apex(self, _request: _Request, name: str) -> str | None:
        declared = self._declared.get(name)
        return declared.apex if declared is not None else None

    def _get_updatable_names(self, _request: _Request, apex: str) -> list[str]:
        return sorted(each.name for each in self._declared.values() if each.apex == apex)

    def _get_connection_info(self, _request: _Request, name: str) -> ConnectionInfo | None:
        declared = self._declared.get(name)
        return declared.connection if declared is not None else None

    # Lazy services

    def _register_client_callback(
        self, request: _Request, name: str, service: Offered, callback: Offered
    ) -> None:
        entry = self._find(name)
        if entry is None:
            raise RemoteException(android.EX_ILLEGAL_ARGUMENT, "Service doesn't exist.")
        if not _is_server(caller(), entry):
            text = "Only service can register client callback for itself."
            raise RemoteException(android.EX_UNSUPPORTED_OPERATION, text)
        if entry.offered.binder is not service.binder:
            raise RemoteException(android.EX_ILLEGAL_ARGUMENT, "Service mismatch.")
        subscriber = _subscriber(request, callback)
        self._keep(callback.binder, lambda: self._client_callbacks.add(name, subscriber))
        if entry.has_clients:
            _notify_clients(subscriber, entry, True)
        self._watch.has_clients(name)

    def _try_unregister_service(self, _request: _Request, name: str, service: Offered) -> None:
        entry = self._find(name)
        if entry is None:
            raise RemoteException(android.EX_ILLEGAL_STATE, "Service not registered.")
        if not _is_server(caller(), entry):
            text = "Service can only unregister itself."
            raise RemoteException(android.EX_UNSUPPORTED_OPERATION, text)
        if entry.offered.binder is not service.binder:
            text = "Different service registered under this name."
            raise RemoteException(android.EX_ILLEGAL_STATE, text)
        if entry.guarantee_client:
            raise RemoteException(android.EX_ILLEGAL_STATE, "Can't unregister, pending client.")
        if self._watch.has_clients(name):
            entry.guarantee_client = True
            raise RemoteException(android.EX_ILLEGAL_STATE, "Can't unregister, known client.")
        self._services.remove(name)
        self._let_go(service.binder)

    # Dump and shell commands

    def dump(self, descriptor: int, arguments: list[str]) -> None:
        """See ``Service``: what is there, or with names as arguments, these."""
        self._reporter.write(caller().sender_euid, descriptor, self._report(arguments))

    def shell_command(self, command: ShellCommand) -> int | None:
        """See ``Service``: ``list``, and ``dump`` with names or without."""
        words = command.arguments
        text, result = _USAGE, -1
        if words[:1] == ["list"]:
            with self._lock:
                text, result = "".join(f"{name}\n" for name, _ in self._services.items()), 0
        elif words[:1] == ["dump"]:
            text, result = self._report(words[1:]), 0
        target = command.error if result else command.output
        uid = caller().sender_euid
        self._reporter.write(uid, target, text, lambda: command.finish(result))
        return None

    def _report(self, names: list[str]) -> str:
        with self._lock:
            lines = [f"service manager of Android {self._dialect.android}"]
            for name, entry in self._services.items():
                if not names or name in names:
                    waiting = len(self._callbacks.of(name))
                    lines.append(
                        f"{name}: process {entry.pid}, user {entry.uid}, stability "
                        f"{entry.offered.stability:#x}, dump priority {entry.dump_priority:#x}, "
                        f"callbacks {waiting}"
                    )
        return "\n".join(lines) + "\n"


_USAGE: Final = "usage: list | dump [NAME ...]\n"


def _check_name(name: str) -> None:
    if not is_service_name(name):
        raise RemoteException(android.EX_ILLEGAL_ARGUMENT, f"{name[:128]!r} is no service name")


def _failure(dialect: Dialect, error: BinderError) -> RemoteException:
    """Return what tells a caller of that dialect about a failure."""
    if dialect.is_legacy:
        return RemoteException(status=_LEGACY_FAILURE)
    if isinstance(error, RemoteException):
        return error
    return RemoteException(status=android.STATUS_DEAD_OBJECT)


def _is_isolated(who: Caller) -> bool:
    return who.sender_euid % _USER_RANGE >= _FIRST_ISOLATED


def _is_server(who: Caller, entry: Entry) -> bool:
    return not who.one_way and (who.sender_pid, who.sender_euid) == (entry.pid, entry.uid)


def _is_dead(entry: Entry) -> bool:
    binder = entry.offered.binder
    return isinstance(binder, Proxy) and binder.dead


def _subscriber(request: _Request, callback: Offered) -> Subscriber:
    return Subscriber(callback.binder, caller().sender_euid, request.dialect, request.token)


def _notify_registered(subscriber: Subscriber, name: str, offered: Offered) -> None:
    _notify(subscriber, CALLBACK_DESCRIPTOR, ON_REGISTRATION, (name, offered))


def _notify_clients(subscriber: Subscriber, entry: Entry, has_clients: bool) -> None:
    _notify(subscriber, CLIENT_CALLBACK_DESCRIPTOR, ON_CLIENTS, (entry.offered, has_clients))


def _notify(
    subscriber: Subscriber, descriptor: str, method: Method, values: tuple[Any, ...]
) -> None:
    """Tell one callback; what became of it is its own business."""
    assert subscriber.token is not None
    assert subscriber.dialect is not None
    if isinstance(subscriber.binder, Proxy):
        notice = Parcel()
        subscriber.token.write(notice, descriptor)
        write_arguments(notice, subscriber.dialect, method, values)
        with contextlib.suppress(BinderError):
            subscriber.binder.call(CALLBACK_CODE, notice, oneway=True)
