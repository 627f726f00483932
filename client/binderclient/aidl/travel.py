# SPDX-License-Identifier: Apache-2.0
"""How the types travel that AIDL has and ``annotations`` has not.

Each is what ``typing.Annotated`` or a class gives to ``codec_of``.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, Final, NoReturn

from binderclient import android
from binderclient.annotations import codec_of, shown, write_file
from binderclient.errors import ParcelError, RemoteException

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable

    from binderclient.annotations import Codec, Place
    from binderclient.parcel import Parcel

_NOT_NULL: Final = 1
_NULL: Final = -1  # for a size
_PAIR_SIZE: Final = 8  # bytes that a key and a value take at least
OUT_ITEMS_MAX: Final = 1_000_000  # of an out array, as Android has it


def refuse(place: Place, wanted: str, value: object) -> NoReturn:
    """Raise what says that a value is not what it must be."""
    found = "None" if value is None else type(value).__name__
    raise TypeError(f"{shown(place)}: must be {wanted}, not {found}")


def read_present(parcel: Parcel) -> None:
    """Read the word that says that what follows is not null."""
    start = parcel.position
    if parcel.read_int32() != _NOT_NULL:
        raise no_null(start)


def no_null(position: int) -> ParcelError:
    """Return what says where null is."""
    return ParcelError(f"null at {position}, where that must not be")


class Enumeration:
    """An enum of some bits, and numbers that are none of its enumerators."""

    def __init__(self, kind: type[enum.IntEnum], method: str, bits: int) -> None:
        self.kind = kind
        self.is_byte = bits == 8
        self._method = method
        self._bits = bits

    def number(self, value: object, place: Place) -> int:
        """Return the number of a value."""
        if not isinstance(value, self.kind):
            refuse(place, self.kind.__name__, value)
        if not -(1 << self._bits - 1) <= value < 1 << self._bits - 1:
            raise ValueError(f"{shown(place)}: {int(value)} does not fit {self._bits} bits")
        return int(value)

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        getattr(parcel, f"write_{self._method}")(self.number(value, place))

    def read(self, parcel: Parcel) -> enum.IntEnum:
        return self.kind(getattr(parcel, f"read_{self._method}")())


class Packed:
    """An array of an enum of bytes."""

    may_be_none = True

    def codec_for(self, inner: object, codec: Callable[[object], Codec]) -> PackedEnums:
        """Return the codec of ``Annotated[list[…], Packed()]``."""
        item = codec(typing.get_args(inner)[0])
        if not isinstance(item, Enumeration) or not item.is_byte:
            raise TypeError(f"{inner!r} is no list of an enum of bytes")
        return PackedEnums(item)


class PackedEnums:
    """The codec of ``Packed``."""

    may_be_none = True

    def __init__(self, item: Enumeration) -> None:
        self._item = item

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        if not isinstance(value, list | tuple):
            refuse(place, "list", value)
        numbers = [self._item.number(each, (place, index)) for index, each in enumerate(value)]
        parcel.write_bytes(bytes(each & 0xFF for each in numbers))

    def read(self, parcel: Parcel) -> list[enum.IntEnum]:
        start = parcel.position
        data = parcel.read_bytes()
        if data is None:
            raise no_null(start)
        return [self._item.kind((each + 128 & 0xFF) - 128) for each in data]


class FixedSize:
    """Says of which size an array is: ``Annotated[list[list[int]], FixedSize(2, 3)]``.

    Args:
        sizes: of the array, of each of its items, and so on.
    """

    def __init__(self, *sizes: int) -> None:
        self._sizes = sizes

    def codec_for(self, inner: object, codec: Callable[[object], Codec]) -> Codec:
        """Return the codec of such an array."""
        return self._codec(inner, self._sizes, codec)

    def _codec(
        self, inner: object, sizes: tuple[int, ...], codec: Callable[[object], Codec]
    ) -> Codec:
        if not sizes:
            return codec(inner)
        if len(sizes) == 1 and inner is bytes:
            return _FixedArray(sizes[0], None, codec(bytes))
        item = self._codec(typing.get_args(inner)[0], sizes[1:], codec)
        if isinstance(item, Enumeration) and item.is_byte:
            return _FixedArray(sizes[0], None, PackedEnums(item))
        return _FixedArray(sizes[0], item, None)


class _FixedArray:
    """An array of a fixed size: its items one by one, or ``whole``."""

    may_be_none = True

    def __init__(self, size: int, item: Codec | None, whole: Codec | None) -> None:
        self._size = size
        self._item = item
        self._whole = whole

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        if self._whole is None and not isinstance(value, list | tuple):
            refuse(place, f"a list of {self._size}", value)
        if hasattr(value, "__len__") and len(value) != self._size:
            raise ValueError(f"{shown(place)}: {len(value)} items, where {self._size} must be")
        if self._whole is not None:
            self._whole.write(parcel, value, place)
        if self._item is not None:
            parcel.write_int32(self._size)
            for number, each in enumerate(value):
                self._item.write(parcel, each, (place, number))

    def read(self, parcel: Parcel) -> Any:  # noqa: ANN401
        start = parcel.position
        if self._whole is not None:
            values = self._whole.read(parcel)
            count = len(values)
        else:
            count = parcel.read_int32()
        if count != self._size:
            raise ParcelError(f"an array of {count} at {start}, where {self._size} must be")
        if self._item is not None:
            values = [self._item.read(parcel) for _ in range(count)]
        return values


class OutSize:
    """How many items an ``out`` array is to have, as its caller says.

    A service makes such an array before it looks at anything else, so a number is all that it would
    take to have it use up its memory.

    Args:
        nullable: may the array be null? Then -1 says that it is.
    """

    def __init__(self, *, nullable: bool = False) -> None:
        self._lowest = _NULL if nullable else 0

    def codec_for(self, _inner: object, _codec: object) -> Codec:
        """Return the codec: this."""
        return self

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        if type(value) is not int:
            refuse(place, "int", value)
        if not self._lowest <= value <= OUT_ITEMS_MAX:
            raise ValueError(
                f"{shown(place)}: {value} is not from {self._lowest} to {OUT_ITEMS_MAX}"
            )
        parcel.write_int32(value)

    def read(self, parcel: Parcel) -> int:
        start = parcel.position
        size = parcel.read_int32()
        if size > OUT_ITEMS_MAX:
            raise RemoteException(
                android.EX_BAD_PARCELABLE,
                f"Array too large: {size} items wanted at {start}, at most {OUT_ITEMS_MAX} can be",
            )
        if size < self._lowest:
            raise ParcelError(f"an array of {size} items wanted at {start}")
        return size


class BareFile:
    """An open file: a FileDescriptor."""

    def codec_for(self, _inner: object, _codec: object) -> Codec:
        """Return the codec: this."""
        return self

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        write_file(parcel, value, place)

    def read(self, parcel: Parcel) -> Any:  # noqa: ANN401
        return parcel.read_file()


class StringMap:
    """A map from text to something."""

    def codec_for(self, inner: object, codec: Callable[[object], Codec]) -> Codec:
        """Return the codec of ``Annotated[dict[str, …], StringMap()]``."""
        key, value = (codec(each) for each in typing.get_args(inner))
        return _Map(key, value)


class _Map:
    """The codec of ``StringMap``."""

    may_be_none = True

    def __init__(self, key: Codec, value: Codec) -> None:
        self._key = key
        self._value = value

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        if not isinstance(value, dict):
            refuse(place, "dict", value)
        parcel.write_int32(len(value))
        for key, each in value.items():
            self._key.write(parcel, key, place)
            self._value.write(parcel, each, (place, str(key)))

    def read(self, parcel: Parcel) -> dict[Any, Any]:
        start = parcel.position
        count = parcel.read_int32()
        if not 0 <= count <= parcel.remaining // _PAIR_SIZE:
            raise ParcelError(f"a map of {count} at {start} with {parcel.remaining} bytes left")
        pairs = ((self._key.read(parcel), self._value.read(parcel)) for _ in range(count))
        return dict(pairs)


class UnionCodec:
    """A union: its tag, then that member."""

    def __init__(self, kind: Any, interface_of: Any) -> None:  # noqa: ANN401
        self._kind = kind
        self._interface_of = interface_of
        self._known: list[tuple[str, Codec]] | None = None  # found out when needed

    def _members(self) -> list[tuple[str, Codec]]:
        if self._known is None:
            hints = typing.get_type_hints(self._kind, include_extras=True)
            names = self._kind.Tag.__members__
            self._known = [(name, codec_of(hints[name], self._interface_of)) for name in names]
        return self._known

    def write(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        parcel.write_int32(_NOT_NULL)
        self.write_body(parcel, value, place)

    def write_body(self, parcel: Parcel, value: Any, place: Place) -> None:  # noqa: ANN401
        """Write a union without what says that it is not null."""
        if not isinstance(value, self._kind):
            refuse(place, self._kind.__name__, value)
        name, codec = self._members()[value.tag]
        parcel.write_int32(value.tag)
        codec.write(parcel, getattr(value, name), (place, name))

    def read(self, parcel: Parcel) -> Any:  # noqa: ANN401
        read_present(parcel)
        return self.read_body(parcel)

    def read_body(self, parcel: Parcel) -> Any:  # noqa: ANN401
        """Read a union without what says that it is not null."""
        start = parcel.position
        tag = parcel.read_int32()
        members = self._members()
        if not 0 <= tag < len(members):
            raise ParcelError(f"{self._kind.__name__} at {start} has no member with the tag {tag}")
        name, codec = members[tag]
        return self._kind(**{name: codec.read(parcel)})
