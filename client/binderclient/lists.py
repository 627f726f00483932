# SPDX-License-Identifier: Apache-2.0
"""``Lists``: byte arrays and lists in parcels: an int32 count, then the items; -1 for null.

The items of most lists are as wide as they are alone; bytes are packed.  Every count that is read
is compared with what is left before anything is made of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from binderclient.arguments import check_callable, check_type
from binderclient.contents import NULL_LENGTH
from binderclient.errors import ParcelError
from binderclient.numbers_and_text import INT32, Values, check, unit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_T = TypeVar("_T")
_ITEM_MIN: Final = 4  # bytes that an item takes at least


def _octets(method: str, data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
    """Return data of which each item is one byte; those of a view may be wider.

    Raises:
        TypeError: it is something else; ``method`` is named.
    """
    check(method, data, bytes, bytearray, memoryview)
    if isinstance(data, memoryview) and (data.itemsize != 1 or data.ndim != 1):
        return data.tobytes()
    return data


def check_list(method: str, values: object) -> None:
    """Refuse what is no list; None is null."""
    if values is not None and (isinstance(values, str | bytes) or not hasattr(values, "__len__")):
        raise TypeError(f"{method}() takes a list, not {type(values).__name__}")


class Lists(Values):
    """Contents that are numbers, text and lists of them."""

    __slots__ = ()

    def write_raw(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes with padding and no length; the reader must know how many there are."""
        self._put(_octets("write_raw", data))

    def read_raw(self, size: int) -> memoryview:
        """Return the next ``size`` bytes without copying; the view dies with the parcel."""
        check_type("read_raw(): size", size, int)
        start = self._position
        self._skip(start, size)
        return self._lend(start, start + size)

    def write_bytes(self, data: bytes | bytearray | memoryview | None) -> None:
        """Write a byte array: int32 length, the bytes, padding."""
        if data is None:
            self._put(INT32.pack(NULL_LENGTH))
            return
        octets = _octets("write_bytes", data)
        self._put(INT32.pack(len(octets)))
        self._put(octets)

    def read_bytes(self) -> bytes | None:
        """Read a byte array into bytes of your own (one copy); None for null."""
        count, start = self._length()
        return None if count is None else bytes(self._skip(start, count))

    def read_blob(self) -> memoryview | None:
        """Read a byte array without copying it; None for null.

        The view shows the delivered pages.  It is released by ``close``; a slice made *from* it is
        not, and must not be kept beyond that.
        """
        count, start = self._length()
        if count is None:
            return None
        self._skip(start, count)
        return self._lend(start, start + count)

    # Lists of numbers

    def write_int32_array(self, values: Sequence[int] | None) -> None:
        """Write a list of signed 32-bit numbers."""
        self._pack_array("i", values, "write_int32_array")

    def read_int32_array(self) -> list[int] | None:
        """Read a list of signed 32-bit numbers; None for null."""
        return self._unpack_array("i", 4)

    def write_uint32_array(self, values: Sequence[int] | None) -> None:
        """Write a list of unsigned 32-bit numbers."""
        self._pack_array("I", values, "write_uint32_array")

    def read_uint32_array(self) -> list[int] | None:
        """Read a list of unsigned 32-bit numbers; None for null."""
        return self._unpack_array("I", 4)

    def write_int64_array(self, values: Sequence[int] | None) -> None:
        """Write a list of signed 64-bit numbers."""
        self._pack_array("q", values, "write_int64_array")

    def read_int64_array(self) -> list[int] | None:
        """Read a list of signed 64-bit numbers; None for null."""
        return self._unpack_array("q", 8)

    def write_uint64_array(self, values: Sequence[int] | None) -> None:
        """Write a list of unsigned 64-bit numbers."""
        self._pack_array("Q", values, "write_uint64_array")

    def read_uint64_array(self) -> list[int] | None:
        """Read a list of unsigned 64-bit numbers; None for null."""
        return self._unpack_array("Q", 8)

    def write_float_array(self, values: Sequence[float] | None) -> None:
        """Write a list of 32-bit floating point numbers."""
        self._pack_array("f", values, "write_float_array")

    def read_float_array(self) -> list[float] | None:
        """Read a list of 32-bit floating point numbers; None for null."""
        return self._unpack_array("f", 4)

    def write_double_array(self, values: Sequence[float] | None) -> None:
        """Write a list of 64-bit floating point numbers."""
        self._pack_array("d", values, "write_double_array")

    def read_double_array(self) -> list[float] | None:
        """Read a list of 64-bit floating point numbers; None for null."""
        return self._unpack_array("d", 8)

    def write_bool_array(self, values: Sequence[bool] | None) -> None:
        """Write a list of truth values, an int32 each."""
        check_list("write_bool_array", values)
        for value in values or ():
            check("write_bool_array", value, bool, int)
        numbers = None if values is None else [int(bool(value)) for value in values]
        self._pack_array("i", numbers, "write_bool_array")

    def read_bool_array(self) -> list[bool] | None:
        """Read a list of truth values; None for null."""
        numbers = self._unpack_array("i", 4)
        return None if numbers is None else [bool(number) for number in numbers]

    def write_char_array(self, values: Sequence[str] | None) -> None:
        """Write a list of UTF-16 units, an int32 each; a text is one."""
        check_list("write_char_array", values)
        units = None
        if values is not None:
            units = [unit_of(value, "write_char_array") for value in values]
        self._pack_array("i", units, "write_char_array")

    def read_char_array(self) -> list[str] | None:
        """Read a list of UTF-16 units; None for null."""
        numbers = self._unpack_array("i", 4)
        return None if numbers is None else [chr(number & 0xFFFF) for number in numbers]

    # Lists of text, and of anything

    def write_string16_array(self, values: Sequence[str | None] | None) -> None:
        """Write a list of String16."""
        self.write_list(values, self.write_string16, "write_string16_array")

    def read_string16_array(self) -> list[str | None] | None:
        """Read a list of String16; None for null."""
        return self.read_list(self.read_string16)

    def write_string8_array(self, values: Sequence[str | None] | None) -> None:
        """Write a list of String8."""
        self.write_list(values, self.write_string8, "write_string8_array")

    def read_string8_array(self) -> list[str | None] | None:
        """Read a list of String8; None for null."""
        return self.read_list(self.read_string8)

    def write_list(
        self,
        values: Sequence[_T] | None,
        write: Callable[[_T], object],
        method: str = "write_list",
    ) -> None:
        """Write a list of anything.

        Args:
            values: the items; None for null.
            write: writes one, for example ``parcel.write_strong_binder``.
            method: the method that errors name.
        """
        if values is None:
            self._put(INT32.pack(NULL_LENGTH))
            return
        check_list(method, values)
        check_callable(f"{method}(): write", write)
        self._put(INT32.pack(len(values)))
        for value in values:
            write(value)

    def read_list(self, read: Callable[[], _T], *, size: int | None = None) -> list[_T] | None:
        """Read a list of anything.

        Args:
            read: reads one item, of which each takes 4 bytes at least.
            size: how many there must be (AIDL's arrays of a fixed size); None for any number.

        Returns:
            None for null.

        Raises:
            ParcelError: there are others than ``size``, or more than can be; as ``read``.
        """
        check_callable("read_list(): read", read)
        if size is not None:
            check_type("read_list(): size", size, int)
        before = self._position
        count, start = self._length()
        if count is None:
            if size is not None:
                self._position = before
                raise ParcelError(f"null at {before} in place of {size} items")
            return None
        self._position = start
        try:
            if count > (len(self) - start) // _ITEM_MIN:
                raise ParcelError(f"a list of {count} at {before} of {len(self)}")
            if size is not None and count != size:
                raise ParcelError(f"a list of {count} at {before} in place of {size} items")
            return [read() for _ in range(count)]
        except BaseException:
            self._position = before
            raise

    # What may be null

    def write_nullable(self, value: _T | None, write: Callable[[_T], object]) -> None:
        """Write int32 0 for None, else 1 and what ``write`` makes of it."""
        check_callable("write_nullable(): write", write)
        self._put(INT32.pack(value is not None))
        if value is not None:
            write(value)

    def read_nullable(self, read: Callable[[], _T]) -> _T | None:
        """Read what ``write_nullable`` has written.

        Raises:
            ParcelError: the word before it is neither 0 nor 1; as ``read``.
        """
        check_callable("read_nullable(): read", read)
        before = self._position
        word: Any = self._unpack(INT32)
        try:
            if word not in (0, 1):
                raise ParcelError(f"{word} at {before} is neither null nor a value")
            return read() if word else None
        except BaseException:
            self._position = before
            raise
