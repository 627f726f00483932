# SPDX-License-Identifier: Apache-2.0
"""Android's Bundle and PersistableBundle, for reading: a map of names to values of many types.

A bundle is its size in bytes, a magic word, a count, and for each entry a String16, the number of
its value's type, and the value.  Since Android 13 some types have a size in front, so that a reader
can leave them alone: of these, what has no meaning outside of the program that wrote it is returned
as ``Opaque``.  A value of an unknown type without a size is an error, as nothing tells where the
next one begins.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from binderclient.arguments import check_type
from binderclient.errors import ParcelError
from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Bundle", "Opaque", "read_bundle"]

_MAGIC_JAVA: Final = 0x4C444E42  # "BNDL"
_MAGIC_NATIVE: Final = 0x4C444E44  # "DNDL", of C++ programs
_DEPTH_MAX: Final = 32  # bundles, maps and lists in one another
_DEFAULT_ANDROID: Final = 13
_FIRST_WITH_SIZES: Final = 13
_FIRST_WITH_STRING8: Final = 11  # in a CharSequence
_NULL, _MAP, _BUNDLE, _LIST, _PERSISTABLE = -1, 2, 3, 11, 25
_SIZED: Final = frozenset({_MAP, 4, _LIST, 12, 16, 17, 21})
_PLAIN_TEXT: Final = 1  # of a CharSequence

Bundle: TypeAlias = "dict[str | None, Any]"
"""The entries of a bundle, by name."""


class Opaque(NamedTuple):
    """A value that only the program that wrote it understands, such as a Java object."""

    type: int  # Android's VAL_ number
    data: bytes


def read_bundle(parcel: Parcel, *, android: int = _DEFAULT_ANDROID) -> Bundle | None:
    """Read a Bundle or a PersistableBundle.

    Args:
        parcel: has the bundle at its position.
        android: which Android wrote it, as a version.

    Returns:
        Its entries; None for null.  Numbers are int or float, a char is a str, arrays are lists or
        bytes, nested bundles and maps are dicts.

    Raises:
        ParcelError: it is malformed, or has a value that cannot be read; the position is where it
            was.
    """
    check_type("read_bundle(): parcel", parcel, Parcel)
    check_type("read_bundle(): android", android, int)
    start = parcel.position
    try:
        return _Reader(parcel, android).bundle()
    except ParcelError:
        parcel.position = start
        raise


class _Reader:
    """Reads one bundle.

    Args:
        parcel, android: see ``read_bundle``.
    """

    def __init__(self, parcel: Parcel, android: int) -> None:
        self._parcel = parcel
        self._android = android
        self._depth = 0
        read = parcel
        self._readers: dict[int, Callable[[], Any]] = {
            _NULL: lambda: None,
            0: read.read_string16,
            1: read.read_int32,
            _MAP: self._map,
            _BUNDLE: self.bundle,
            5: read.read_int32,  # short
            6: read.read_int64,
            7: read.read_float,
            8: read.read_double,
            9: read.read_bool,
            10: self._char_sequence,
            _LIST: partial(read.read_list, self._value),
            13: read.read_bytes,
            14: read.read_string16_array,
            15: read.read_strong_binder,
            18: read.read_int32_array,
            19: read.read_int64_array,
            20: read.read_byte,
            22: self._sparse_booleans,
            23: read.read_bool_array,
            24: partial(read.read_list, self._char_sequence),
            _PERSISTABLE: self.bundle,
            26: lambda: (read.read_int32(), read.read_int32()),
            27: lambda: (read.read_float(), read.read_float()),
            28: read.read_double_array,
            29: read.read_char,
            30: read.read_int32_array,  # shorts
            31: read.read_char_array,
            32: partial(read.read_list, read.read_float),
        }

    def bundle(self) -> Bundle | None:
        """Read a bundle."""
        parcel, start = self._parcel, self._parcel.position
        size = parcel.read_int32()
        if size in (-1, 0):
            return None if size else {}
        magic = parcel.read_uint32()
        if magic not in (_MAGIC_JAVA, _MAGIC_NATIVE):
            raise ParcelError(f"{magic:#x} at {start + 4} is not what a bundle begins with")
        end = parcel.position + size
        if size < 0 or size % 4 or end > len(parcel):
            raise ParcelError(f"a bundle of {size} bytes at {start} of {len(parcel)}")
        entries = self._entries(parcel.read_string16)
        if parcel.position != end:
            raise ParcelError(f"a bundle at {start} that ends at {parcel.position}, not at {end}")
        return entries

    def _map(self) -> dict[Any, Any]:
        return self._entries(self._value)

    def _entries(self, read_key: Callable[[], Any]) -> dict[Any, Any]:
        start, entries = self._parcel.position, {}
        for _ in range(self._count()):
            key = read_key()
            try:
                entries[key] = self._value()
            except TypeError:  # of a map that has a list as a key, for example
                raise ParcelError(f"a map at {start} with a key that none can have") from None
        return entries

    def _count(self) -> int:
        start = self._parcel.position
        count = self._parcel.read_int32()
        if not 0 <= count <= self._parcel.remaining // 4:
            raise ParcelError(f"{count} entries at {start} of {len(self._parcel)}")
        return count

    def _value(self) -> Any:  # noqa: ANN401 - by type
        parcel, start = self._parcel, self._parcel.position
        kind = parcel.read_int32()
        end = None
        if kind in _SIZED and self._android >= _FIRST_WITH_SIZES:
            size = parcel.read_int32()
            end = parcel.position + size
            if size < 0 or end > len(parcel):
                raise ParcelError(f"a value of {size} bytes at {start} of {len(parcel)}")
        read = self._readers.get(kind)
        if read is None:
            if end is None:
                raise ParcelError(f"a value of type {kind} at {start}, which has no size")
            return Opaque(kind, bytes(parcel.read_raw(end - parcel.position)))
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise ParcelError(f"a value at {start} in too many others")
        value = read()
        self._depth -= 1
        if end is not None and parcel.position != end:
            raise ParcelError(f"a value at {start} that ends at {parcel.position}, not at {end}")
        return value

    def _char_sequence(self) -> str | None:
        start = self._parcel.position
        if self._parcel.read_int32() != _PLAIN_TEXT:
            raise ParcelError(f"a text at {start} with styles in it")
        if self._android < _FIRST_WITH_STRING8:
            return self._parcel.read_string16()
        return self._parcel.read_string8()

    def _sparse_booleans(self) -> dict[int, bool] | None:
        start = self._parcel.position
        count = self._parcel.read_int32()
        if count == -1:
            return None
        self._parcel.position = start
        return {
            self._parcel.read_int32(): bool(self._parcel.read_byte()) for _ in range(self._count())
        }
