# SPDX-License-Identifier: Apache-2.0
"""How the types that an interface's methods are annotated with travel in parcels.

As code that is generated from AIDL has them: ``bool``, ``int`` (32 bits), ``float`` (64 bits),
``str`` (String16), ``bytes`` (byte[]), ``IBinder``, ``ReceivedFile`` (ParcelFileDescriptor), an
interface, an ``IntEnum`` with 32 bits, a dataclass (structured parcelable), ``list`` of any of them
(array or List), and ``… | None`` where AIDL says @nullable.  ``Byte``, ``Char``, ``Long`` and
``Float`` are AIDL's byte, char, long and float.

A value of another type, or one that does not fit, is a TypeError or ValueError that names the
argument; what is read and makes no sense is a ParcelError.  Nothing here may know how a call is
made.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, TypeAlias, cast

from binderclient.errors import ParcelError
from binderclient.files import ReceivedFile
from binderclient.ibinder import IBinder
from binderclient.objects import RemoteObject, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from binderclient.parcel import Parcel

_NOT_NULL: Final = 1  # in front of a parcelable
_NULL: Final = 0
_NULL_LENGTH: Final = -1
_LENGTH_SIZE: Final = 4


# Where a value is: an argument, or a place and the item or field in it. Text is made of it only for
# an error, as most values are what they should be.
Place: TypeAlias = "str | tuple[Place, int | str]"


class _Number(typing.NamedTuple):
    """A kind of number, by the methods of ``Parcel``."""

    name: str
    low: int
    high: int


Byte: TypeAlias = Annotated[int, _Number("byte", -(1 << 7), (1 << 7) - 1)]
"""AIDL's byte: a signed number of 8 bits."""
Long: TypeAlias = Annotated[int, _Number("int64", -(1 << 63), (1 << 63) - 1)]
"""AIDL's long: a signed number of 64 bits."""
Float: TypeAlias = Annotated[float, "float"]
"""AIDL's float: a floating point number of 32 bits."""
Char: TypeAlias = Annotated[str, "char"]
"""AIDL's char: a text of one UTF-16 unit."""
_INT: Final = _Number("int32", -(1 << 31), (1 << 31) - 1)


class Codec(Protocol):
    """One type's way into a parcel and out of it."""

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401 - of that type
        """Write a value; ``place`` tells which one it is if it cannot be."""

    def read(self, parcel: Parcel) -> Any:  # noqa: ANN401
        """Read a value."""


class InterfaceTypes(Protocol):
    """A class with ``@interface``, where it is the type of an argument or of a result."""

    def __call__(self, binder: IBinder) -> Any:  # noqa: ANN401
        """Return the object as that interface."""

    def may_be(self, value: object) -> bool:
        """Could it be one, as far as this process can tell?"""


def codec_of(annotation: object, interface_of: Callable[[type], InterfaceTypes | None]) -> Codec:
    """Return how a type travels.

    Args:
        annotation: as ``typing.get_type_hints`` has it, with extras.
        interface_of: returns what makes a class' proxies, None if it is no interface.

    Raises:
        TypeError: no parcel carries such a type.
    """
    inner = _without_none(annotation)
    if inner is not None:
        return _Nullable.of(codec_of(inner, interface_of))
    if typing.get_origin(annotation) is list:
        (item,) = typing.get_args(annotation)
        if item == Byte:
            raise TypeError("list[Byte] is bytes")
        return _List(codec_of(item, interface_of))
    if typing.get_origin(annotation) is Annotated:
        of, kind = typing.get_args(annotation)[:2]
        if hasattr(kind, "codec_for"):  # a type that brings its own codec, as those of ``aidl``
            return cast("Codec", kind.codec_for(of, lambda each: codec_of(each, interface_of)))
        return _Integer(kind) if isinstance(kind, _Number) else _PLAIN[kind]
    if not isinstance(annotation, type):
        raise TypeError(f"{annotation!r} is nothing that a parcel carries")
    return _USUAL.get(annotation) or _codec_of_class(annotation, interface_of)


def _codec_of_class(
    annotation: type, interface_of: Callable[[type], InterfaceTypes | None]
) -> Codec:
    own = getattr(annotation, "__binder_codec__", None)
    if own is not None:  # it brings its own
        return cast("Codec", own(interface_of))
    if issubclass(annotation, enum.IntEnum):
        return _Enumeration(annotation)
    interface = interface_of(annotation)
    if interface is not None or issubclass(annotation, IBinder):
        return _Binder(annotation.__name__, interface)
    if dataclasses.is_dataclass(annotation):
        return _Parcelable(annotation, interface_of)
    raise TypeError(f"{annotation.__name__} is nothing that a parcel carries")


def _without_none(annotation: object) -> object:
    """Return T for T | None, else None."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return None
    others = [each for each in typing.get_args(annotation) if each is not type(None)]
    if len(others) != 1:
        raise TypeError(f"{annotation!r}: a value is of one type, or of one type or None")
    return others[0]


def shown(place: Place) -> str:
    """Return a place as errors name it."""
    if isinstance(place, str):
        return place
    outer, inner = place
    return shown(outer) + (f"[{inner}]" if isinstance(inner, int) else f".{inner}")


def _no_null(position: int) -> ParcelError:
    return ParcelError(f"null at {position}, where that must not be")


def _refuse(place: Place, wanted: str, value: object) -> typing.NoReturn:
    found = "None" if value is None else type(value).__name__
    raise TypeError(f"{shown(place)}: must be {wanted}, not {found}")


class _Plain(typing.NamedTuple):
    """What has a pair of methods in ``Parcel``."""

    type: type
    method: str
    may_be_none: bool = False  # does the pair know null?

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        is_whole = self.type is float and type(value) is int
        if not isinstance(value, self.type) and not is_whole:
            _refuse(place, self.type.__name__, value)
        try:
            getattr(parcel, f"write_{self.method}")(value)
        except (ParcelError, UnicodeEncodeError) as error:
            raise ValueError(f"{shown(place)}: {error}") from None

    def read(self, parcel: Parcel) -> Any:  # noqa: ANN401
        start = parcel.position
        value = getattr(parcel, f"read_{self.method}")()
        if value is None:
            raise _no_null(start)
        return value


_PLAIN: Final[Mapping[object, _Plain]] = {
    "bool": _Plain(bool, "bool"),
    "double": _Plain(float, "double"),
    "float": _Plain(float, "float"),
    "char": _Plain(str, "char"),
    "string16": _Plain(str, "string16", may_be_none=True),
}


class _Integer:
    """A number of some bits."""

    def __init__(self, kind: _Number) -> None:
        self._kind = kind

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        if type(value) is not int:
            _refuse(place, "int", value)
        kind = self._kind
        if not kind.low <= value <= kind.high:
            raise ValueError(f"{shown(place)}: {value} is not from {kind.low} to {kind.high}")
        getattr(parcel, f"write_{kind.name}")(value)

    def read(self, parcel: Parcel) -> int:
        return int(getattr(parcel, f"read_{self._kind.name}")())


class _Bytes:
    """A byte array; null if it may be."""

    may_be_none = True

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        if not isinstance(value, bytes | bytearray | memoryview):
            _refuse(place, "bytes", value)
        parcel.write_bytes(value)

    def read(self, parcel: Parcel) -> bytes:
        start = parcel.position
        data = parcel.read_bytes()
        if data is None:
            raise _no_null(start)
        return data


class _Enumeration:
    """An enumeration that is backed by an int."""

    def __init__(self, kind: type[enum.IntEnum]) -> None:
        self._kind = kind

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        if not isinstance(value, self._kind):
            _refuse(place, self._kind.__name__, value)
        _Integer(_INT).write(parcel, int(value), place)

    def read(self, parcel: Parcel) -> enum.IntEnum:
        start = parcel.position
        number = parcel.read_int32()
        try:
            return self._kind(number)
        except ValueError as error:
            raise ParcelError(f"{error}, at {start}") from None


def write_file(parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
    """Write an open file, without what goes before a ParcelFileDescriptor."""
    if isinstance(value, bool) or not (isinstance(value, int) or hasattr(value, "fileno")):
        _refuse(place, "a file or descriptor", value)
    try:
        parcel.write_file(value)
    except TypeError as error:
        raise TypeError(f"{shown(place)}: {error}") from None
    except ParcelError as error:
        raise ValueError(f"{shown(place)}: {error}") from None


class _File:
    """An open file, as Android's ParcelFileDescriptor: not null, without a second one."""

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        parcel.write_int32(_NOT_NULL)
        parcel.write_int32(0)
        write_file(parcel, value, place)

    def read(self, parcel: Parcel) -> ReceivedFile:
        start = parcel.position
        if parcel.read_int32() != _NOT_NULL or parcel.read_int32():
            raise ParcelError(f"no file at {start} where one must be")
        return parcel.read_file()


class _Binder:
    """A reference to an object."""

    may_be_none = True

    def __init__(self, name: str, interface: InterfaceTypes | None) -> None:
        self._name = name
        self._interface = interface

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        binder = value
        if not isinstance(value, IBinder):
            binder = getattr(value, "binder", None)  # of a proxy that belongs to an interface
        if not isinstance(binder, Service | RemoteObject):
            _refuse(place, self._name, value)
        if self._interface is not None and not self._interface.may_be(value):
            _refuse(place, self._name, value)
        parcel.write_strong_binder(binder)

    def read(self, parcel: Parcel) -> Any:  # noqa: ANN401
        start = parcel.position
        binder = parcel.read_strong_binder()
        if binder is None:
            raise _no_null(start)
        try:
            return binder if self._interface is None else self._interface(binder)
        except TypeError as error:  # an object of ours, and of another interface
            raise ParcelError(str(error)) from None


class _List:
    """An array or a List of something."""

    may_be_none = True

    def __init__(self, item: Codec) -> None:
        self._item = item

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        if not isinstance(value, list | tuple):
            _refuse(place, "list", value)
        parcel.write_int32(len(value))
        for number, each in enumerate(value):
            self._item.write(parcel, each, (place, number))

    def read(self, parcel: Parcel) -> list[Any]:
        start = parcel.position
        count = parcel.read_int32()
        # Each item takes four bytes at least, so this bounds what a sender can have us read.
        if not 0 <= count <= parcel.remaining // _LENGTH_SIZE:
            raise ParcelError(f"a list of {count} at {start} with {parcel.remaining} bytes left")
        return [self._item.read(parcel) for _ in range(count)]


class _Parcelable:
    """A dataclass: its size, then its fields in order; a reader knows fewer or more of them."""

    def __init__(self, kind: type, interface_of: Callable[[type], InterfaceTypes | None]) -> None:
        self._kind = kind
        self._interface_of = interface_of
        self._known: dict[str, Codec] | None = None  # found out when needed: it may hold itself

    def _fields(self) -> dict[str, Codec]:
        if self._known is None:
            hints = typing.get_type_hints(self._kind, include_extras=True)
            names = [field.name for field in dataclasses.fields(self._kind)]
            self._known = {name: codec_of(hints[name], self._interface_of) for name in names}
        return self._known

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        if not isinstance(value, self._kind):
            _refuse(place, self._kind.__name__, value)
        parcel.write_int32(_NOT_NULL)
        self.write_body(parcel, value, place)

    def write_body(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        """Write what comes after the word that says that it is not null."""
        start = parcel.position
        parcel.write_int32(0)
        for name, codec in self._fields().items():
            codec.write(parcel, getattr(value, name), (place, name))
        end = parcel.position
        parcel.position = start
        parcel.write_int32(end - start)
        parcel.position = end

    def read(self, parcel: Parcel) -> Any:  # noqa: ANN401
        start = parcel.position
        if parcel.read_int32() != _NOT_NULL:
            raise _no_null(start)
        return self.read_body(parcel)

    def read_body(self, parcel: Parcel) -> Any:  # noqa: ANN401
        """Read what comes after the word that says that it is not null."""
        start = parcel.position
        size = parcel.read_int32()
        if not _LENGTH_SIZE <= size <= len(parcel) - start:
            raise ParcelError(f"a parcelable of {size} bytes at {start} of {len(parcel)}")
        values = {}
        for name, codec in self._fields().items():
            if parcel.position >= start + size:
                break  # its writer does not know this field
            values[name] = codec.read(parcel)
        if parcel.position > start + size:
            raise ParcelError(f"a parcelable of {size} bytes at {start} has more")
        parcel.position = start + size
        try:
            return self._kind(**values)
        except TypeError as error:  # a field without a default that is not there
            raise ParcelError(f"{self._kind.__name__} at {start}: {error}") from None


def _is_parcelable(codec: Codec) -> bool:
    """Does a word in front of it say whether it is null?"""
    return isinstance(codec, _File) or hasattr(codec, "read_body")


class _Nullable:
    """Something or None; each type has its own way to say None."""

    def __init__(self, inner: Codec, write_none: Callable[[Parcel], None]) -> None:
        self._inner = inner
        self._write_none = write_none

    @classmethod
    def of(cls, inner: Codec) -> _Nullable:
        if isinstance(inner, _Binder):
            return cls(inner, lambda parcel: parcel.write_strong_binder(None))
        if _is_parcelable(inner):
            return cls(inner, lambda parcel: parcel.write_int32(_NULL))
        if getattr(inner, "may_be_none", False):
            return cls(inner, lambda parcel: parcel.write_int32(_NULL_LENGTH))
        raise TypeError("numbers, truth values and enumerations are never None")

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        if value is None:
            self._write_none(parcel)
        else:
            self._inner.write(parcel, value, place)

    def read(self, parcel: Parcel) -> Any:  # noqa: ANN401
        start = parcel.position
        if isinstance(self._inner, _Binder):
            binder = parcel.read_strong_binder()
            if binder is None:
                return None
        elif parcel.read_int32() == (_NULL if _is_parcelable(self._inner) else _NULL_LENGTH):
            return None
        parcel.position = start
        return self._inner.read(parcel)


_USUAL: Final[Mapping[type, Codec]] = {
    bool: _PLAIN["bool"],
    float: _PLAIN["double"],
    str: _PLAIN["string16"],
    int: _Integer(_INT),
    bytes: _Bytes(),
    ReceivedFile: _File(),
}
