# SPDX-License-Identifier: Apache-2.0
"""``Values``: numbers and text in parcels.

Everything starts on a multiple of 4 bytes, integers are in native byte order and at least 32 bits
wide.  Nothing here may know lists, objects or headers.
"""

from __future__ import annotations

import struct
from codecs import utf_16_le_decode, utf_16_le_encode
from typing import Final

from binderclient.contents import NULL_LENGTH, Contents
from binderclient.errors import ParcelError

INT32: Final = struct.Struct("=i")
_UINT32: Final = struct.Struct("=I")
_INT64: Final = struct.Struct("=q")
_UINT64: Final = struct.Struct("=Q")
_FLOAT: Final = struct.Struct("=f")
_DOUBLE: Final = struct.Struct("=d")
_UNIT_MAX: Final = 0xFFFF  # of UTF-16


class Values(Contents):
    """Contents that are numbers and text."""

    __slots__ = ()

    # Numbers

    def write_int32(self, value: int) -> None:
        """Write a signed 32-bit number."""
        self._pack(INT32, value, "write_int32")

    def read_int32(self) -> int:
        """Read a signed 32-bit number."""
        value: int = self._unpack(INT32)
        return value

    def write_uint32(self, value: int) -> None:
        """Write an unsigned 32-bit number."""
        self._pack(_UINT32, value, "write_uint32")

    def read_uint32(self) -> int:
        """Read an unsigned 32-bit number."""
        value: int = self._unpack(_UINT32)
        return value

    def write_int64(self, value: int) -> None:
        """Write a signed 64-bit number, aligned to 4 like everything."""
        self._pack(_INT64, value, "write_int64")

    def read_int64(self) -> int:
        """Read a signed 64-bit number."""
        value: int = self._unpack(_INT64)
        return value

    def write_uint64(self, value: int) -> None:
        """Write an unsigned 64-bit number."""
        self._pack(_UINT64, value, "write_uint64")

    def read_uint64(self) -> int:
        """Read an unsigned 64-bit number."""
        value: int = self._unpack(_UINT64)
        return value

    def write_float(self, value: float) -> None:
        """Write a 32-bit floating point number."""
        self._pack(_FLOAT, value, "write_float")

    def read_float(self) -> float:
        """Read a 32-bit floating point number."""
        value: float = self._unpack(_FLOAT)
        return value

    def write_double(self, value: float) -> None:
        """Write a 64-bit floating point number."""
        self._pack(_DOUBLE, value, "write_double")

    def read_double(self) -> float:
        """Read a 64-bit floating point number."""
        value: float = self._unpack(_DOUBLE)
        return value

    def write_bool(self, value: bool) -> None:
        """Write a truth value, as int32 0 or 1."""
        check("write_bool", value, bool, int)
        self._put(INT32.pack(bool(value)))

    def read_bool(self) -> bool:
        """Read a truth value; anything but 0 is true."""
        return bool(self._unpack(INT32))

    def write_byte(self, value: int) -> None:
        """Write a signed 8-bit number, as int32."""
        check("write_byte", value, int)
        if not -128 <= value <= 127:
            raise ParcelError(f"{value} does not fit a byte")
        self._put(INT32.pack(value))

    def read_byte(self) -> int:
        """Read a signed 8-bit number; the upper bits of its int32 are ignored, as Android does."""
        return (self.read_int32() + 128 & 0xFF) - 128

    def write_char(self, value: str) -> None:
        """Write one UTF-16 unit, as int32."""
        self._put(INT32.pack(unit_of(value, "write_char")))

    def read_char(self) -> str:
        """Read one UTF-16 unit."""
        return chr(self.read_int32() & _UNIT_MAX)

    # Text

    def write_string16(self, text: str | None) -> None:
        """Write a String16: int32 length in UTF-16 units, the units, a NUL unit, padding."""
        if text is None:
            self._put(INT32.pack(NULL_LENGTH))
            return
        if type(text) is not str:
            check("write_string16", text, str)
        units = utf_16_le_encode(text, "surrogatepass")[0]
        size = len(units)
        self._put(INT32.pack(size // 2) + units + (b"\0\0" if size & 2 else b"\0\0\0\0"))

    def read_string16(self) -> str | None:
        """Read a String16; None for null."""
        count, start = self._length()
        if count is None:
            return None
        before, size = self._position, 2 * count
        data = self._skip(start, size + 2)
        if data[size] or data[size + 1]:
            self._position = before
            raise ParcelError(f"a String16 of {count} units at {before} without its end")
        text: str = utf_16_le_decode(data[:size], "surrogatepass", True)[0]
        return text

    def write_string8(self, text: str | None) -> None:
        """Write a String8: int32 length in bytes of its UTF-8, the bytes, a NUL, padding."""
        if text is None:
            self._put(INT32.pack(NULL_LENGTH))
            return
        check("write_string8", text, str)
        encoded = text.encode()
        self._put(INT32.pack(len(encoded)) + encoded + b"\0")

    def read_string8(self) -> str | None:
        """Read a String8; None for null."""
        count, start = self._length()
        if count is None:
            return None
        before = self._position
        data = self._skip(start, count + 1)
        try:
            if data[count]:
                raise ParcelError(f"a String8 of {count} bytes at {before} without its end")
            return utf8(data[:count], start)
        except ParcelError:
            self._position = before
            raise

    def write_cstring(self, text: str) -> None:
        """Write a C string: UTF-8, a NUL, padding, no length."""
        check("write_cstring", text, str)
        encoded = text.encode()
        if 0 in encoded:
            raise ParcelError("write_cstring(): a C string cannot contain NUL")
        self._put(encoded + b"\0")

    def read_cstring(self) -> str:
        """Read a C string."""
        self._check_open()
        rest = bytes(self._data[self._position :])
        length = rest.find(0)
        if length < 0:
            raise ParcelError(f"a C string at {self._position} without its end")
        text = utf8(rest[:length], self._position)
        self._skip(self._position, length + 1)
        return text


def check(method: str, value: object, *wanted: type) -> None:
    """Refuse what is of another type.

    Raises:
        TypeError: it is; says which method does not take it.
    """
    if not isinstance(value, wanted):
        names = " or ".join(each.__name__ for each in wanted)
        raise TypeError(f"{method}() takes {names}, not {type(value).__name__}")


def unit_of(value: str, method: str) -> int:
    """Return a character as UTF-16 has it.

    Raises:
        TypeError, ParcelError: it is not one character, or one that takes two units.
    """
    check(method, value, str)
    if len(value) != 1 or ord(value) > _UNIT_MAX:
        raise ParcelError(f"{value!r} is not one UTF-16 unit")
    return ord(value)


def utf8(data: bytes | bytearray | memoryview, position: int) -> str:
    """Return text that is at a position.

    Raises:
        ParcelError: it is not UTF-8.
    """
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise ParcelError(f"not UTF-8 at {position + error.start}: {error.reason}") from None
