# SPDX-License-Identifier: Apache-2.0
"""The requests and replies of the service manager, for every flavour of client and server.

Nothing here sends anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from binderclient.objects import Service, transaction
from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.objects import IBinder

DESCRIPTOR: Final = "android.os.IServiceManager"
CALLBACK_DESCRIPTOR: Final = "android.os.IServiceCallback"

GET_SERVICE: Final = 1
CHECK_SERVICE: Final = 2
ADD_SERVICE: Final = 3
LIST_SERVICES: Final = 4
REGISTER_FOR_NOTIFICATIONS: Final = 5
UNREGISTER_FOR_NOTIFICATIONS: Final = 6
ON_REGISTRATION: Final = 1

DUMP_PRIORITY_DEFAULT: Final = 1 << 3
DUMP_PRIORITY_ALL: Final = 0b1111


def name_request(name: str) -> Parcel:
    """Return the request of GET_SERVICE and CHECK_SERVICE."""
    request = Parcel.for_interface(DESCRIPTOR)
    request.write_string16(name)
    return request


def add_request(name: str, service: IBinder) -> Parcel:
    """Return the request of ADD_SERVICE."""
    request = name_request(name)
    request.write_strong_binder(service)
    request.write_bool(False)
    request.write_int32(DUMP_PRIORITY_DEFAULT)
    return request


def list_request() -> Parcel:
    """Return the request of LIST_SERVICES."""
    request = Parcel.for_interface(DESCRIPTOR)
    request.write_int32(DUMP_PRIORITY_ALL)
    return request


def callback_request(name: str, callback: IBinder) -> Parcel:
    """Return the request of (UN)REGISTER_FOR_NOTIFICATIONS."""
    request = name_request(name)
    request.write_strong_binder(callback)
    return request


def read_binder_reply(reply: Parcel) -> IBinder | None:
    """Return what GET_SERVICE and CHECK_SERVICE found; closes the reply."""
    with reply:
        reply.read_exception()
        return reply.read_strong_binder()


def read_list_reply(reply: Parcel) -> list[str]:
    """Return the names that LIST_SERVICES found; closes the reply."""
    with reply:
        reply.read_exception()
        return [name for name in reply.read_string16_array() or () if name is not None]


def read_empty_reply(reply: Parcel) -> None:
    """Check a reply without a result; closes it."""
    with reply:
        reply.read_exception()


class RegistrationCallback(Service):
    """An IServiceCallback that calls a function.

    Args:
        registered: gets the name and the service, in a thread that serves.
    """

    descriptor: ClassVar[str] = CALLBACK_DESCRIPTOR

    def __init__(self, registered: Callable[[str, IBinder], object]) -> None:
        self._registered = registered

    @transaction(ON_REGISTRATION)
    def on_registration(self, data: Parcel, _reply: Parcel) -> None:
        """Handle the notification."""
        name, service = data.read_string16(), data.read_strong_binder()
        if name is not None and service is not None:
            self._registered(name, service)
