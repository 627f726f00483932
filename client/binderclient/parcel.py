# SPDX-License-Identifier: Apache-2.0
"""``Parcel``: the payload of a transaction in Android's encoding.

Rules of this encoding: everything starts on a multiple of 4 bytes, integers are in native byte
order and at least 32 bits wide, a length comes before what it counts, -1 is the length of null.
Weak references are not offered: the driver lets nobody call them or make them strong
(behaviours N3).

This file must not touch memory or know who owns it: ``contents`` does.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from binderclient import android
from binderclient.contents import NULL_LENGTH, Contents
from binderclient.errors import ParcelError, RemoteException
from binderclient.files import ReceivedFile, duplicate
from binderclient.ibinder import IBinder
from binderwire.binder_abi import (
    BINDER_TYPE_BINDER,
    BINDER_TYPE_FD,
    binder_fd_object,
    flat_binder_object,
)
from binderwire.service_manager import TAGS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from binderclient.files import HasFileno

_INT32: Final = struct.Struct("=i")
_UINT32: Final = struct.Struct("=I")
_INT64: Final = struct.Struct("=q")
_UINT64: Final = struct.Struct("=Q")
_FLOAT: Final = struct.Struct("=f")
_DOUBLE: Final = struct.Struct("=d")


class Parcel(Contents):
    """The payload of one transaction, in Android's encoding.

    ``Parcel()`` is empty, for writing; ``Parcel(data)`` is for reading what there is.  A reader
    that finds too few bytes, or anything that is not what the bytes say, raises ParcelError and
    leaves the position alone.  See ``Contents`` for the rest.
    """

    __slots__ = ()

    @classmethod
    def for_interface(cls, descriptor: str) -> Self:
        """Return a new request that starts with the interface token of ``descriptor``."""
        parcel = cls()
        parcel.write_interface_token(descriptor)
        return parcel

    # Numbers

    def write_int32(self, value: int) -> None:
        """Write a signed 32-bit number."""
        self._pack(_INT32, value)

    def read_int32(self) -> int:
        """Read a signed 32-bit number."""
        return int(self._unpack(_INT32))

    def write_uint32(self, value: int) -> None:
        """Write an unsigned 32-bit number."""
        self._pack(_UINT32, value)

    def read_uint32(self) -> int:
        """Read an unsigned 32-bit number."""
        return int(self._unpack(_UINT32))

    def write_int64(self, value: int) -> None:
        """Write a signed 64-bit number, aligned to 4 like everything."""
        self._pack(_INT64, value)

    def read_int64(self) -> int:
        """Read a signed 64-bit number."""
        return int(self._unpack(_INT64))

    def write_uint64(self, value: int) -> None:
        """Write an unsigned 64-bit number."""
        self._pack(_UINT64, value)

    def read_uint64(self) -> int:
        """Read an unsigned 64-bit number."""
        return int(self._unpack(_UINT64))

    def write_float(self, value: float) -> None:
        """Write a 32-bit floating point number."""
        self._pack(_FLOAT, value)

    def read_float(self) -> float:
        """Read a 32-bit floating point number."""
        return float(self._unpack(_FLOAT))

    def write_double(self, value: float) -> None:
        """Write a 64-bit floating point number."""
        self._pack(_DOUBLE, value)

    def read_double(self) -> float:
        """Read a 64-bit floating point number."""
        return float(self._unpack(_DOUBLE))

    def write_bool(self, value: bool) -> None:
        """Write a truth value, as int32 0 or 1."""
        self._pack(_INT32, int(value))

    def read_bool(self) -> bool:
        """Read a truth value; anything but 0 is true."""
        return bool(self._unpack(_INT32))

    def write_byte(self, value: int) -> None:
        """Write a signed 8-bit number, as int32."""
        if not -128 <= value <= 127:
            raise ParcelError(f"{value} does not fit a byte")
        self._pack(_INT32, value)

    def read_byte(self) -> int:
        """Read a signed 8-bit number; the upper bits of its int32 are ignored, as Android does."""
        return (self.read_int32() + 128 & 0xFF) - 128

    def write_char(self, value: str) -> None:
        """Write one UTF-16 unit, as int32."""
        if len(value) != 1 or ord(value) > 0xFFFF:
            raise ParcelError(f"{value!r} is not one UTF-16 unit")
        self._pack(_INT32, ord(value))

    def read_char(self) -> str:
        """Read one UTF-16 unit."""
        return chr(self.read_int32() & 0xFFFF)

    # Text

    def write_string16(self, text: str | None) -> None:
        """Write a String16: int32 length in UTF-16 units, the units, a NUL unit, padding."""
        if text is None:
            self._pack(_INT32, NULL_LENGTH)
            return
        _check("write_string16", text, str)
        units = text.encode("utf-16-le", "surrogatepass")
        self._put(_INT32.pack(len(units) // 2) + units + b"\0\0")

    def read_string16(self) -> str | None:
        """Read a String16; None for null."""
        count, start = self._length()
        if count is None:
            return None
        data = self._skip(start, 2 * (count + 1))
        return str(data[: 2 * count], "utf-16-le", "surrogatepass")

    def write_string8(self, text: str | None) -> None:
        """Write a String8: int32 length in bytes of its UTF-8, the bytes, a NUL, padding."""
        if text is None:
            self._pack(_INT32, NULL_LENGTH)
            return
        _check("write_string8", text, str)
        encoded = text.encode()
        self._put(_INT32.pack(len(encoded)) + encoded + b"\0")

    def read_string8(self) -> str | None:
        """Read a String8; None for null."""
        count, start = self._length()
        if count is None:
            return None
        return _utf8(self._skip(start, count + 1)[:count])

    def write_cstring(self, text: str) -> None:
        """Write a C string: UTF-8, a NUL, padding, no length."""
        _check("write_cstring", text, str)
        encoded = text.encode()
        if 0 in encoded:
            raise ParcelError("a C string cannot contain NUL")
        self._put(encoded + b"\0")

    def read_cstring(self) -> str:
        """Read a C string."""
        self._check_open()
        rest = bytes(self._data[self._position :])
        length = rest.find(0)
        if length < 0:
            raise ParcelError("a C string without its end")
        text = _utf8(rest[:length])
        self._skip(self._position, length + 1)
        return text

    # Bytes and lists

    def write_raw(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes with padding and no length; the reader must know how many there are."""
        _check("write_raw", data, bytes, bytearray, memoryview)
        self._put(data)

    def read_raw(self, size: int) -> memoryview:
        """Return the next ``size`` bytes without copying; the view dies with the parcel."""
        start = self._position
        self._skip(start, size)
        return self._lend(start, start + size)

    def write_bytes(self, data: bytes | bytearray | memoryview | None) -> None:
        """Write a byte array: int32 length, the bytes, padding."""
        if data is not None:
            _check("write_bytes", data, bytes, bytearray, memoryview)
        self._pack(_INT32, NULL_LENGTH if data is None else len(data))
        if data is not None:
            self._put(data)

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

    def write_int32_array(self, values: Sequence[int] | None) -> None:
        """Write a list of signed 32-bit numbers."""
        self._pack_array("i", values)

    def read_int32_array(self) -> list[int] | None:
        """Read a list of signed 32-bit numbers; None for null."""
        return self._unpack_array("i", 4)

    def write_int64_array(self, values: Sequence[int] | None) -> None:
        """Write a list of signed 64-bit numbers."""
        self._pack_array("q", values)

    def read_int64_array(self) -> list[int] | None:
        """Read a list of signed 64-bit numbers; None for null."""
        return self._unpack_array("q", 8)

    def write_double_array(self, values: Sequence[float] | None) -> None:
        """Write a list of 64-bit floating point numbers."""
        self._pack_array("d", values)

    def read_double_array(self) -> list[float] | None:
        """Read a list of 64-bit floating point numbers; None for null."""
        return self._unpack_array("d", 8)

    def write_string16_array(self, values: Sequence[str | None] | None) -> None:
        """Write a list of String16."""
        self._pack(_INT32, NULL_LENGTH if values is None else len(values))
        for value in values or ():
            self.write_string16(value)

    def read_string16_array(self) -> list[str | None] | None:
        """Read a list of String16; None for null."""
        count, start = self._length()
        if count is None:
            return None
        before, self._position = self._position, start
        try:
            return [self.read_string16() for _ in range(count)]
        except ParcelError:
            self._position = before
            raise

    # Binder objects and file descriptors

    def write_strong_binder(self, binder: IBinder | None) -> None:
        """Write a reference to a ``Service`` of this process or a ``Proxy``, with its stability.

        As Android 11 and 13+ do, an int32 with the stability level follows the
        flat_binder_object; it is STABILITY_SYSTEM, and STABILITY_UNDECLARED for null.  (Android 12
        packs a version into the upper bits of that word; Android 10 does not have it.)
        """
        self.write_bare_binder(binder)
        self._pack(
            _INT32, android.STABILITY_UNDECLARED if binder is None else android.STABILITY_SYSTEM
        )

    def write_bare_binder(self, binder: IBinder | None) -> None:
        """Write a reference without a word for its stability, as Android 10 and HIDL do."""
        if binder is not None:
            _check("write_strong_binder", binder, IBinder)
        position = self._position
        self._put(flat_binder_object.pack(BINDER_TYPE_BINDER, 0, 0, 0))
        if binder is not None:  # the driver is not to look at a null one
            self._objects[position] = binder

    def read_bare_binder(self) -> IBinder | None:
        """Read a reference behind which there is no word for its stability."""
        position = self._position
        self._skip(position, flat_binder_object.size)
        try:
            return self._binder_at(position)
        except ParcelError:
            self._position = position
            raise

    def read_strong_binder(self) -> IBinder | None:
        """Read a reference and the stability level behind it, which is not judged.

        Returns:
            The ``Service`` itself if it lives in this process, else a ``Proxy`` with a reference
            of its own; None for null.
        """
        position = self._position
        size = flat_binder_object.size
        self._skip(position, size + _INT32.size)
        try:
            return self._binder_at(position)
        except ParcelError:
            self._position = position
            raise

    def write_file(self, file: int | HasFileno) -> None:
        """Write an open file; the receiver gets a descriptor of its own for it.

        The parcel has a duplicate of the descriptor, which it closes: ``file`` may be closed at
        once.

        Args:
            file: a descriptor, or anything that has one.

        Raises:
            TypeError, ParcelError: it has none, or it is closed.
            OSError: this process has too many descriptors.
        """
        self._put_file(duplicate(file))

    def read_file(self) -> ReceivedFile:
        """Read an open file, which is the caller's from now on.

        What nobody reads is closed with the parcel. The file is the sender's, not a copy: they
        share its position, for example.

        Raises:
            ParcelError: there is none, or it was read before.
        """
        return ReceivedFile(self.read_file_descriptor())

    def read_file_descriptor(self) -> int:
        """Like ``read_file``, but the bare descriptor: the caller must close it."""
        position = self._position
        kind, _flags, descriptor, _cookie = self._object_at(position, binder_fd_object)
        if kind != BINDER_TYPE_FD or position not in self._objects:
            raise ParcelError(f"no file descriptor at {position}")
        if self._owner is not None and self._objects[position] is not None:
            raise ParcelError(f"the file at {position} was read before")
        if self._owner is None:  # what is in there stays the parcel's
            descriptor = duplicate(descriptor).detach()
        else:
            self._objects[position] = descriptor
        self._skip(position, binder_fd_object.size)
        return int(descriptor)

    # Headers

    def write_interface_token(self, descriptor: str) -> None:
        """Write a request's header: strict mode policy, work source, 'SYST', interface name."""
        self._pack(_UINT32, android.STRICT_MODE_PENALTY_GATHER)
        self._pack(_INT32, android.UNSET_WORK_SOURCE)
        self._pack(_UINT32, android.SYSTEM_HEADER)
        self.write_string16(descriptor)

    def enforce_interface(self, descriptor: str) -> None:
        """Read a request's header and check that it names ``descriptor``.

        Raises:
            ParcelError: it names another interface, or is no such header.
        """
        self.read_uint32()  # strict mode policy: means nothing outside of a Java runtime
        self.read_int32()  # work source
        header = self.read_uint32()
        if header not in TAGS:
            raise ParcelError(f"an interface token starts with 'SYST', not {header:#x}")
        found = self.read_string16()
        if found != descriptor:
            raise ParcelError(f"a request for {found!r} came to {descriptor!r}")

    def write_no_exception(self) -> None:
        """Write the header of a reply that is a result."""
        self._pack(_INT32, android.EX_NONE)

    def write_exception(self, error: RemoteException) -> None:
        """Write a reply that is an exception: code, message, empty stack trace, own number."""
        self._pack(_INT32, error.exception_code)
        self.write_string16(error.message)
        self._pack(_INT32, 0)
        if error.exception_code == android.EX_SERVICE_SPECIFIC:
            self._pack(_INT32, error.service_specific)

    def read_exception(self) -> None:
        """Read a reply's header; return if it is a result.

        Raises:
            RemoteException: the service raised an exception.
            ParcelError: the header is malformed.
        """
        code = self.read_int32()
        if code == android.EX_HAS_NOTED_APPOPS_REPLY_HEADER:
            self._skip_header()
            code = self.read_int32()
        if code == android.EX_HAS_REPLY_HEADER:
            self._skip_header()
            code = android.EX_NONE  # Java puts this header only before results
        if code == android.EX_NONE:
            return
        message = self.read_string16() or ""
        self._skip_header()  # the stack trace of the other side
        number = self.read_int32() if code == android.EX_SERVICE_SPECIFIC else 0
        raise RemoteException(code, message, service_specific=number)

    def _skip_header(self) -> None:
        """Skip a block whose int32 size counts itself; 0 means that there is only the size."""
        start = self._position
        size = self.read_int32()
        if size and not _INT32.size <= size <= len(self) - start:
            raise ParcelError(f"a header of {size} bytes with {len(self) - start} left")
        self._position = start + max(size, _INT32.size)


def _check(method: str, value: object, *wanted: type) -> None:
    if not isinstance(value, wanted):
        names = " or ".join(each.__name__ for each in wanted)
        raise TypeError(f"{method}() takes {names}, not {type(value).__name__}")


def _utf8(data: bytes | bytearray | memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise ParcelError(f"not UTF-8: {error}") from None
