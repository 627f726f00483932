# SPDX-License-Identifier: Apache-2.0
"""The calls of the service manager, for every flavour of client, and the callbacks that it makes.

Nothing here sends anything.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from binderclient.arguments import check_callable, check_type
from binderclient.errors import MisuseError, ParcelError, RemoteException
from binderclient.ibinder import IBinder
from binderclient.objects import Service, transaction
from binderclient.parcel import Parcel
from binderclient.servicemanager.values import (
    Offered,
    read_arguments,
    read_result,
    write_arguments,
)
from binderclient.tokens import Token
from binderwire.service_manager import (
    CALLBACK_CODE,
    CALLBACK_DESCRIPTOR,
    CLIENT_CALLBACK_DESCRIPTOR,
    DESCRIPTOR,
    DUMP_PRIORITY_DEFAULT,
    ON_CLIENTS,
    ON_REGISTRATION,
    Dialect,
    Method,
)

if TYPE_CHECKING:
    from collections.abc import Callable


_log: Final = logging.getLogger("binderclient.servicemanager")


class Call(NamedTuple):
    """A call that is ready to be sent to the manager."""

    dialect: Dialect
    method: Method
    code: int
    request: Parcel

    def result(self, reply: Parcel) -> Any:  # noqa: ANN401 - by method
        """Return what the reply says; closes it, and raises like ``values.read_result``."""
        return read_result(reply, self.dialect, self.method)


def call(dialect: Dialect, name: str, *values: object) -> Call:
    """Make a call.

    Args:
        dialect: what the manager speaks.
        name: the method's, in AIDL.
        values: what it takes.

    Raises:
        MisuseError: that Android has no such method.
    """
    code = dialect.code(name)
    method = dialect.method(code or 0)
    if code is None or method is None:
        raise MisuseError(f"the service manager of Android {dialect.android} has no {name}")
    _check(name, values)
    request = Parcel()
    Token(dialect.era).write(request, DESCRIPTOR)
    write_arguments(request, dialect, method, values)
    return Call(dialect, method, code, request)


def _check(method: str, values: tuple[object, ...]) -> None:
    """Refuse what a program has passed on: a name comes first, then what is offered."""
    for number, value in enumerate(values, 1):
        if isinstance(value, Offered):
            check_type(f"{method}(): argument {number}", value.binder, IBinder)
        elif number == 1 and method != "listServices":  # which takes numbers
            check_type(f"{method}(): name", value, str)


def add_call(dialect: Dialect, name: str, service: IBinder) -> Call:
    """Make a call of addService.

    Raises:
        TypeError: this is no name, or no service.
    """
    check_type("add(): name", name, str)
    check_type("add(): service", service, IBinder)
    return call(dialect, "addService", name, Offered(service), False, DUMP_PRIORITY_DEFAULT)


def _notice(data: Parcel, dialect: Dialect, method: Method) -> tuple[Any, ...]:
    """Read a notification.  It is one-way: of one that does not fit only the log can tell."""
    try:
        return read_arguments(data, dialect, method)
    except (ParcelError, RemoteException) as error:
        _log.warning(
            "refused a notification that is no %s of Android %d: %s; does the service manager "
            "speak another Android?",
            method.name,
            dialect.android,
            error,
        )
        raise


class RegistrationCallback(Service):
    """An IServiceCallback that calls a function.

    Args:
        dialect: what the manager speaks.
        registered: gets the name and the service, in a thread that serves.
    """

    descriptor: ClassVar[str] = CALLBACK_DESCRIPTOR

    def __init__(self, dialect: Dialect, registered: Callable[[str, IBinder], object]) -> None:
        check_callable("register_for_notifications(): registered", registered)
        self._dialect = dialect
        self._registered = registered

    @transaction(CALLBACK_CODE)
    def on_registration(self, data: Parcel, _reply: Parcel) -> None:
        """Handle the notification."""
        name, offered = _notice(data, self._dialect, ON_REGISTRATION)
        self._registered(name, offered.binder)


class ClientCallback(Service):
    """An IClientCallback that calls a function.

    Args:
        dialect: what the manager speaks.
        changed: gets whether the service has clients, in a thread that serves.
    """

    descriptor: ClassVar[str] = CLIENT_CALLBACK_DESCRIPTOR

    def __init__(self, dialect: Dialect, changed: Callable[[bool], object]) -> None:
        check_callable("register_client_callback(): changed", changed)
        self._dialect = dialect
        self._changed = changed

    @transaction(CALLBACK_CODE)
    def on_clients(self, data: Parcel, _reply: Parcel) -> None:
        """Handle the notification."""
        _service, has_clients = _notice(data, self._dialect, ON_CLIENTS)
        self._changed(has_clients)
