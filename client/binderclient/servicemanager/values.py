# SPDX-License-Identifier: Apache-2.0
"""The arguments and results of the service manager's methods, as bytes of a dialect.

``binderwire.service_manager`` says of which kinds they are; here is one writer and one reader for
each kind.  Bytes that a method leaves unread mean that it was another method, or another Android:
``finish`` refuses them, at both ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from binderclient import android
from binderclient.errors import ParcelError, RemoteException
from binderwire.service_manager import (
    CATEGORY_LEVEL_SHIFT,
    CATEGORY_VERSION,
    DUMP_PRIORITY_DEFAULT,
    Dialect,
    Kind,
    StabilityWord,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.ibinder import IBinder
    from binderclient.parcel import Parcel
    from binderwire.service_manager import Method

_NULL, _PRESENT = 0, 1
_SERVICE_TAG: Final = 0  # of the union's member with metadata; 1 is an accessor
_COUNT_MAX: Final = 1 << 16  # of a list that a client reads


class Offered(NamedTuple):
    """A binder and what it promises about its interface."""

    binder: IBinder
    stability: int = android.STABILITY_SYSTEM


class ServiceWithMetadata(NamedTuple):
    """What getService2 and checkService2 answer."""

    service: Offered | None
    is_lazy: bool = False


class ConnectionInfo(NamedTuple):
    """Where a declared service can be reached through the network."""

    ip_address: str
    port: int


class DebugInfo(NamedTuple):
    """A service and the process that added it."""

    name: str
    pid: int


def write_arguments(
    request: Parcel, dialect: Dialect, method: Method, values: tuple[Any, ...]
) -> None:
    """Write what a method takes, behind the token."""
    for kind, value in zip(method.arguments, values, strict=True):
        _CODECS[kind][0](request, dialect, value)


def read_arguments(request: Parcel, dialect: Dialect, method: Method) -> tuple[Any, ...]:
    """Read what a method takes, to the end.

    Raises:
        RemoteException: what Android's generated code answers to such a request.
        ParcelError: it is too short, or something else than the method takes.
    """
    values = tuple(_CODECS[kind][1](request, dialect) for kind in method.arguments)
    if request.remaining:
        text = f"Parcel data not fully consumed, unread size: {request.remaining}"
        raise RemoteException(android.EX_BAD_PARCELABLE, text)
    return values


def write_result(reply: Parcel, dialect: Dialect, method: Method, value: object) -> None:
    """Write the reply of a method that succeeded."""
    if not dialect.is_legacy:
        reply.write_no_exception()
    _CODECS[method.result][0](reply, dialect, value)


def read_result(reply: Parcel, dialect: Dialect, method: Method) -> Any:  # noqa: ANN401 - by kind
    """Read the reply of a method, to its end; closes it.

    Raises:
        RemoteException: the manager raised an exception.
        ParcelError: that is no reply of this method in this dialect.
    """
    with reply:
        if not dialect.is_legacy:
            reply.read_exception()
        try:
            value = _CODECS[method.result][1](reply, dialect)
            left = reply.remaining
        except (ParcelError, RemoteException) as error:
            raise _mismatch(dialect, method, str(error)) from None
        if left:
            raise _mismatch(dialect, method, f"{left} bytes are left over")
        return value


def _mismatch(dialect: Dialect, method: Method, reason: str) -> ParcelError:
    return ParcelError(
        f"this is no reply to {method.name} of Android {dialect.android}: {reason}; does the "
        "service manager speak another Android? Name it: ServiceManager(device, android=…), "
        "binderctl --android"
    )


# Stability


def _write_stability(parcel: Parcel, dialect: Dialect, level: int) -> None:
    if dialect.stability is StabilityWord.LEVEL:
        parcel.write_int32(level)
    elif dialect.stability is StabilityWord.CATEGORY:
        parcel.write_uint32(level << CATEGORY_LEVEL_SHIFT | CATEGORY_VERSION if level else 0)


def _read_stability(parcel: Parcel, dialect: Dialect, *, is_null: bool) -> int:
    """Read the word behind a binder; it must be one that this Android knows."""
    if dialect.stability is StabilityWord.NONE:
        return android.STABILITY_SYSTEM
    level = word = parcel.read_uint32()
    if dialect.stability is StabilityWord.CATEGORY:
        level = word >> CATEGORY_LEVEL_SHIFT
        if word != level << CATEGORY_LEVEL_SHIFT | CATEGORY_VERSION and word != 0:
            raise RemoteException(status=android.STATUS_BAD_TYPE)
        _skip_repeated(parcel, word)
    known = {android.STABILITY_UNDECLARED} if is_null else android.DECLARED_STABILITIES
    if level not in known:
        raise RemoteException(status=android.STATUS_BAD_TYPE)
    return level


def _skip_repeated(parcel: Parcel, word: int) -> None:
    """Skip the word's second copy, which one dialect of libgbinder writes; no other value is it."""
    position = parcel.position
    if word and parcel.remaining >= 4 and parcel.read_uint32() != word:
        parcel.position = position


# One writer and one reader for each kind


def _write_nothing(_parcel: Parcel, _dialect: Dialect, _value: object) -> None:
    pass


def _read_nothing(_parcel: Parcel, _dialect: Dialect) -> None:
    pass


def _write_status(parcel: Parcel, _dialect: Dialect, _value: object) -> None:
    parcel.write_int32(android.STATUS_OK)


def _read_status(parcel: Parcel, _dialect: Dialect) -> None:
    status = parcel.read_int32()
    if status != android.STATUS_OK:
        raise RemoteException(status=status)


def _write_string(parcel: Parcel, _dialect: Dialect, value: str | None) -> None:
    parcel.write_string16(value)


def _read_nullable_string(parcel: Parcel, _dialect: Dialect) -> str | None:
    return parcel.read_string16()


def _read_string(parcel: Parcel, _dialect: Dialect) -> str:
    text = parcel.read_string16()
    if text is None:
        raise RemoteException(status=android.STATUS_UNEXPECTED_NULL)
    return text


def _write_strings(parcel: Parcel, _dialect: Dialect, value: list[str]) -> None:
    parcel.write_string16_array(value)


def _read_strings(parcel: Parcel, dialect: Dialect) -> list[str]:
    return [_read_string(parcel, dialect) for _ in range(_read_count(parcel))]


def _read_count(parcel: Parcel) -> int:
    count = parcel.read_int32()
    if not 0 <= count <= _COUNT_MAX:
        raise ParcelError(f"a list of {count}")
    return count


def _write_bool(parcel: Parcel, _dialect: Dialect, value: bool) -> None:
    parcel.write_bool(value)


def _read_bool(parcel: Parcel, _dialect: Dialect) -> bool:
    return parcel.read_bool()


def _write_int32(parcel: Parcel, _dialect: Dialect, value: int) -> None:
    parcel.write_int32(value)


def _read_int32(parcel: Parcel, _dialect: Dialect) -> int:
    return parcel.read_int32()


def _write_priority(parcel: Parcel, dialect: Dialect, value: int) -> None:
    if dialect.android >= 9:
        parcel.write_int32(value)


def _read_priority(parcel: Parcel, _dialect: Dialect) -> int:
    return parcel.read_int32() if parcel.remaining else DUMP_PRIORITY_DEFAULT


def _write_binder(parcel: Parcel, dialect: Dialect, value: Offered | None) -> None:
    parcel.write_bare_binder(None if value is None else value.binder)
    level = android.STABILITY_UNDECLARED if value is None else value.stability
    _write_stability(parcel, dialect, level)


def _read_nullable_binder(parcel: Parcel, dialect: Dialect) -> Offered | None:
    binder = parcel.read_bare_binder()
    level = _read_stability(parcel, dialect, is_null=binder is None)
    return None if binder is None else Offered(binder, level)


def _read_binder(parcel: Parcel, dialect: Dialect) -> Offered:
    offered = _read_nullable_binder(parcel, dialect)
    if offered is None:
        raise RemoteException(status=android.STATUS_UNEXPECTED_NULL)
    return offered


def _write_bare_binder(parcel: Parcel, _dialect: Dialect, value: Offered | None) -> None:
    if value is None:
        parcel.write_int32(0)
    else:
        parcel.write_bare_binder(value.binder)


def _read_bare_binder(parcel: Parcel, _dialect: Dialect) -> Offered | None:
    if parcel.remaining == 4:
        parcel.read_int32()
        return None
    binder = parcel.read_bare_binder()
    return None if binder is None else Offered(binder)


def _write_service(parcel: Parcel, dialect: Dialect, value: ServiceWithMetadata) -> None:
    parcel.write_int32(_PRESENT)
    parcel.write_int32(_SERVICE_TAG)
    start = _begin_parcelable(parcel)
    _write_binder(parcel, dialect, value.service)
    parcel.write_bool(value.is_lazy)
    _end_parcelable(parcel, start)


def _read_service(parcel: Parcel, dialect: Dialect) -> ServiceWithMetadata:
    if parcel.read_int32() != _PRESENT or parcel.read_int32() != _SERVICE_TAG:
        raise ParcelError("no service, but its accessor")
    end = _enter_parcelable(parcel)
    if end is None:
        raise ParcelError("a service without metadata")
    found = ServiceWithMetadata(_read_nullable_binder(parcel, dialect), parcel.read_bool())
    parcel.position = end
    return found


def _write_connection(parcel: Parcel, _dialect: Dialect, value: ConnectionInfo | None) -> None:
    if value is None:
        parcel.write_int32(_NULL)
        return
    start = _begin_parcelable(parcel)
    parcel.write_string16(value.ip_address)
    parcel.write_int32(value.port)
    _end_parcelable(parcel, start)


def _read_connection(parcel: Parcel, dialect: Dialect) -> ConnectionInfo | None:
    end = _enter_parcelable(parcel)
    if end is None:
        return None
    info = ConnectionInfo(_read_string(parcel, dialect), parcel.read_int32())
    parcel.position = end
    return info


def _write_debug_infos(parcel: Parcel, _dialect: Dialect, value: list[DebugInfo]) -> None:
    parcel.write_int32(len(value))
    for info in value:
        start = _begin_parcelable(parcel)
        parcel.write_string16(info.name)
        parcel.write_int32(info.pid)
        _end_parcelable(parcel, start)


def _read_debug_infos(parcel: Parcel, dialect: Dialect) -> list[DebugInfo]:
    found = []
    for _ in range(_read_count(parcel)):
        end = _enter_parcelable(parcel)
        if end is None:
            raise ParcelError("a null in a list of services")
        found.append(DebugInfo(_read_string(parcel, dialect), parcel.read_int32()))
        parcel.position = end
    return found


# A parcelable: int32 1, int32 size with its own 4 bytes, the fields; int32 0 is null


def _begin_parcelable(parcel: Parcel) -> int:
    parcel.write_int32(_PRESENT)
    start = parcel.position
    parcel.write_int32(0)
    return start


def _end_parcelable(parcel: Parcel, start: int) -> None:
    end = parcel.position
    parcel.position = start
    parcel.write_int32(end - start)
    parcel.position = end


def _enter_parcelable(parcel: Parcel) -> int | None:
    """Return where a parcelable ends, None for null; later Androids may have put more in it."""
    if parcel.read_int32() == _NULL:
        return None
    start = parcel.position
    size = parcel.read_int32()
    if not 4 <= size <= len(parcel) - start:
        raise ParcelError(f"a parcelable of {size} bytes with {len(parcel) - start} left")
    return start + size


_Codec = tuple["Callable[[Parcel, Dialect, Any], None]", "Callable[[Parcel, Dialect], Any]"]

_CODECS: Final[dict[Kind, _Codec]] = {
    Kind.NOTHING: (_write_nothing, _read_nothing),
    Kind.STATUS: (_write_status, _read_status),
    Kind.STRING: (_write_string, _read_string),
    Kind.NULLABLE_STRING: (_write_string, _read_nullable_string),
    Kind.STRINGS: (_write_strings, _read_strings),
    Kind.BOOL: (_write_bool, _read_bool),
    Kind.INT32: (_write_int32, _read_int32),
    Kind.DUMP_PRIORITY: (_write_priority, _read_priority),
    Kind.BINDER: (_write_binder, _read_binder),
    Kind.NULLABLE_BINDER: (_write_binder, _read_nullable_binder),
    Kind.BARE_BINDER: (_write_bare_binder, _read_bare_binder),
    Kind.SERVICE: (_write_service, _read_service),
    Kind.CONNECTION: (_write_connection, _read_connection),
    Kind.DEBUG_INFOS: (_write_debug_infos, _read_debug_infos),
}
