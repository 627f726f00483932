# SPDX-License-Identifier: Apache-2.0
"""``Contents``: the bytes of a parcel, the objects among them, and the memory's owner.

Here every access is checked against the end of the data, once, and everything is padded to a
multiple of 4 bytes.  References to binder objects and file descriptors are *objects*: the driver
rewrites them on the way, so that their offsets travel beside the bytes.

A received parcel's bytes are the pages that the driver delivered into; nothing is copied until a
reader returns a Python value.  ``close`` hands those pages back: from then on the parcel and every
view that it gave out refuse to be used.

This file must not know what the bytes mean (``parcel`` does), nor devices, threads or how objects
are numbered (an ``Owner`` and a ``Numbering`` do).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, Protocol

from binderclient.arguments import check_number, check_type
from binderclient.errors import ParcelError
from binderclient.files import ReceivedFile, duplicate
from binderwire.binder_abi import (
    BINDER_BUFFER_FLAG_HAS_PARENT,
    BINDER_TYPE_BINDER,
    BINDER_TYPE_FD,
    BINDER_TYPE_FDA,
    BINDER_TYPE_PTR,
    FLAT_BINDER_FLAG_ACCEPTS_FDS,
    binder_buffer_object,
    binder_fd_array_object,
    binder_fd_object,
    flat_binder_object,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from binderclient.ibinder import IBinder

_WORD: Final = struct.Struct("=I")
_PADDING: Final = (b"", bytes(1), bytes(2), bytes(3))
_BYTES: Final = (bytes, bytearray, memoryview)
_LENGTH: Final = struct.Struct("=i")
NULL_LENGTH: Final = -1


class Numbering(Protocol):
    """How the sender's device numbers binder objects."""

    def flatten(self, binder: IBinder, exported: list[int]) -> tuple[int, int, int, int]:
        """Return ``(type, flags, binder, cookie)`` of the flat_binder_object for ``binder``.

        The number of a local object is appended to ``exported``: it must be settled later.
        """


class Owner(Protocol):
    """The receiver of a parcel's buffer, which gives it back to the driver."""

    def resolve(self, kind: int, binder: int, cookie: int) -> IBinder:
        """Return the object of a received flat_binder_object; a proxy holds its own reference."""

    def look_at(self, address: int, size: int) -> memoryview:
        """Return delivered bytes beside a parcel's data, which live as long as that."""

    def free_buffer(self, address: int, descriptors: Sequence[int]) -> None:
        """Give the buffer back (BC_FREE_BUFFER) and close the descriptors nobody took."""

    def drop_buffer(self, address: int, descriptors: Sequence[int]) -> None:
        """Like ``free_buffer``, later and from anywhere: all that a finalizer may do."""


class Buffer:
    """Bytes beside the data of a parcel (scatter-gather), to which an object in it points."""

    __slots__ = ("address", "data", "index", "parent", "parent_offset")

    def __init__(self, data: Any, index: int, parent: int | None, parent_offset: int) -> None:  # noqa: ANN401
        self.data = data  # a bytearray to be sent, or a view of what was delivered
        self.address = 0  # in this process; of one to be sent it is known when that happens
        self.index = index  # of its object among the parcel's
        self.parent = parent  # the index of the buffer that has a pointer to this one
        self.parent_offset = parent_offset  # where, in bytes


class Contents:
    """The payload of one transaction, as bytes and objects.

    Args:
        data: what it starts with; the position is at the start, ready for reading.
        offsets, owner, address: only of a received parcel: where the objects in ``data`` are, what
            gives the buffer back to the driver, and its address as BC_FREE_BUFFER wants it.
            ``data`` is then the delivered pages themselves, and the parcel is read-only.

    A parcel may be read or written, never by two threads at a time.  Reading past the end, or
    anything that is not what the bytes say, raises ParcelError and leaves the position alone.
    """

    __slots__ = (
        "__weakref__",
        "_address",
        "_closed",
        "_data",
        "_files",
        "_objects",
        "_order",
        "_owner",
        "_position",
        "_views",
    )

    def __init__(
        self,
        data: bytes | bytearray | memoryview = b"",
        *,
        offsets: Iterable[int] = (),
        owner: Owner | None = None,
        address: int = 0,
    ) -> None:
        self._closed, self._owner = True, owner  # until there is something to close
        if owner is None and type(data) not in _BYTES:
            check_type(f"{type(self).__name__}(): data", data, *_BYTES)
        self._data: Any = bytearray(data) if owner is None else data
        self._position = 0
        # Offset of each object -> what it refers to; received ones are resolved when read.
        self._objects: dict[int, IBinder | Buffer | int | None] = (
            dict.fromkeys(offsets) if offsets else {}
        )
        self._order: dict[int, int] = {}  # offset -> index, of received objects that are buffers
        self._files: list[ReceivedFile] = []  # whose descriptors are in the data: its own
        self._address = address
        self._views: list[memoryview] = []
        self._closed = False

    # Lifetime

    def close(self) -> None:
        """Give a received buffer back to the driver; idempotent, and harmless for other parcels.

        Descriptors in it that nothing has read are closed.  Of a parcel of this process it closes
        the files that were written.

        Raises:
            ParcelError: a view of this parcel is in use by something else, for example an array
                built on it.  The buffer then stays allocated; drop the user and close again.
        """
        if self._closed:
            return
        owner = self._owner
        descriptors: Sequence[int] = ()
        if owner is not None:
            if self._views:
                self._release_views()
            if self._objects:
                descriptors = self._descriptors()
            self._data.release()
        self._closed = True
        for file in self._files:
            file.close()
        if owner is not None:
            owner.free_buffer(self._address, descriptors)

    @property
    def closed(self) -> bool:
        """Has the buffer been given back?"""
        return self._closed

    @property
    def received(self) -> bool:
        """Did it come from another process?"""
        return self._owner is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Views that are still alive keep the pages readable, not their contents: BC_FREE_BUFFER
        # is what lets the driver write there again.
        if not self._closed and self._owner is not None:
            self._closed = True
            self._owner.drop_buffer(self._address, self._descriptors())

    def _release_views(self) -> None:
        try:
            for view in self._views:
                view.release()
        except BufferError:
            raise ParcelError("a view of this parcel is still in use") from None
        self._views.clear()

    def _descriptors(self) -> list[int]:
        found = []
        for offset, taken in self._objects.items():
            kind = _WORD.unpack_from(self._data, offset)[0] if taken is None else 0
            if kind == BINDER_TYPE_FD:
                found.append(binder_fd_object.unpack_from(self._data, offset)[2])
        return found

    # Position and contents

    @property
    def position(self) -> int:
        """Where the next read or write happens, in bytes; 0 … ``size``."""
        return self._position

    @position.setter
    def position(self, position: int) -> None:
        if type(position) is not int:
            check_type("position", position, int)
        if not 0 <= position <= len(self):
            raise ParcelError(f"position {position} is outside of {len(self)} bytes")
        self._position = position

    def __len__(self) -> int:
        return 0 if self._closed else len(self._data)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self)} bytes, at {self._position}"
        return f"<{type(self).__name__} {state}, {len(self._objects)} objects>"

    @property
    def remaining(self) -> int:
        """Bytes between the position and the end."""
        return len(self) - self._position

    def __bytes__(self) -> bytes:
        """Return a copy of everything."""
        self._check_open()
        return bytes(self._data)

    def view(self) -> memoryview:
        """Return everything without copying.

        A received parcel's view dies with the parcel.  While a view of a parcel under construction
        exists, nothing can be appended.
        """
        self._check_open()
        return self._lend(0, len(self._data))

    def object_offsets(self) -> tuple[int, ...]:
        """Return where the objects are, in bytes."""
        return tuple(self._objects)

    def append(self, other: Contents, start: int = 0, size: int | None = None) -> None:
        """Write ``size`` bytes of ``other`` from its offset ``start``, with the objects therein.

        Of open files this parcel gets duplicates.

        Raises:
            ParcelError: the range cuts through an object, or has a buffer in it.
        """
        check_type("append(): other", other, Contents)
        check_type("append(): start", start, int)
        if size is not None:
            check_type("append(): size", size, int)
        end = len(other) if size is None else start + size
        if not 0 <= start <= end <= len(other):
            raise ParcelError(f"{start} … {end} is outside of {len(other)} bytes")
        base = self._position
        data = bytearray(other._data[start:end])
        moved: dict[int, IBinder | Buffer | int | None] = {}
        files = []
        for offset in other._objects:
            if start <= offset < end:
                if offset + flat_binder_object.size > end:
                    raise ParcelError(f"the range cuts through the object at {offset}")
                if _WORD.unpack_from(other._data, offset)[0] == BINDER_TYPE_FD:
                    file = duplicate(binder_fd_object.unpack_from(other._data, offset)[2])
                    files.append(file)
                    moved[base + offset - start] = file.fileno()
                    _pack_file(data, offset - start, file)
                else:
                    moved[base + offset - start] = other._binder_at(offset)
        self._put(data)
        self._objects.update(moved)
        self._files += files

    def payload(self, numbers: Numbering, exported: list[int]) -> tuple[bytearray, bytearray]:
        """Return ``(data, offsets)`` as a transaction wants them; binders get their numbers.

        Raises:
            ParcelError: this is a received or closed parcel, or an object belongs to another
                device.
        """
        self._check_open()
        if self._owner is not None:
            raise ParcelError("a received parcel cannot be sent; append() it to a new one")
        if not self._objects:
            return self._data, bytearray()
        for offset, binder in self._objects.items():
            if binder is None or isinstance(binder, int):
                continue
            if isinstance(binder, Buffer):
                self._pack_buffer(offset, binder)
                continue
            flat_binder_object.pack_into(self._data, offset, *numbers.flatten(binder, exported))
        offsets = sorted(self._objects)
        return self._data, bytearray(struct.pack(f"={len(offsets)}Q", *offsets))

    def buffers(self) -> list[Buffer]:
        """Return the buffers beside the data, of a parcel to be sent."""
        if not self._objects:
            return []
        return [each for each in self._objects.values() if isinstance(each, Buffer)]

    def write_buffer(
        self,
        data: bytes | bytearray,
        *,
        parent: int | None = None,
        parent_offset: int = 0,
    ) -> int:
        """Have bytes sent beside the data, and write an object that points to them.

        Args:
            data: the bytes; they are copied.
            parent: the index of an earlier buffer that has a pointer to this one.
            parent_offset: where in it the pointer is, in bytes.

        Returns:
            The object's index among the parcel's objects.
        """
        check_type("write_buffer(): data", data, *_BYTES)
        if parent is not None:
            check_number("write_buffer(): parent", parent, 0)
        check_number("write_buffer(): parent_offset", parent_offset, 0)
        buffer = Buffer(bytearray(data), len(self._objects), parent, parent_offset)
        position = self._position
        self._put(bytes(binder_buffer_object.size))
        self._objects[position] = buffer
        return buffer.index

    def read_buffer(self) -> Buffer:
        """Read an object that points to bytes beside the data.

        Raises:
            ParcelError: there is none.
        """
        position = self._position
        kind, flags, address, size, parent, place = self._object_at(position, binder_buffer_object)
        if kind != BINDER_TYPE_PTR or position not in self._objects:
            raise ParcelError(f"no buffer at {position}")
        buffer = self._objects[position]
        if not isinstance(buffer, Buffer):
            if self._owner is None:
                raise ParcelError(f"no buffer at {position}")
            view = self._owner.look_at(address, size).toreadonly()
            self._views.append(view)
            if not self._order:
                self._order = {offset: index for index, offset in enumerate(self._objects)}
            index = self._order[position]
            has_parent = flags & BINDER_BUFFER_FLAG_HAS_PARENT
            buffer = Buffer(view, index, parent if has_parent else None, place)
            buffer.address = address
        self._position = position + binder_buffer_object.size
        return buffer

    def write_file_array(self, buffer: int, offset: int, count: int) -> None:
        """Write an object that says that there are descriptors in a buffer beside the data.

        Args:
            buffer: the index of an earlier buffer.
            offset: where in it the first of them is, in bytes.
            count: how many there are, 4 bytes each.
        """
        check_number("write_file_array(): buffer", buffer, 0)
        check_number("write_file_array(): offset", offset, 0)
        check_number("write_file_array(): count", count, 0)
        position = self._position
        self._put(binder_fd_array_object.pack(BINDER_TYPE_FDA, 0, count, buffer, offset))
        self._objects[position] = count  # there is nothing left to find out

    def read_file_array(self, buffer: Buffer, offset: int, count: int) -> list[ReceivedFile]:
        """Read an object that ``write_file_array`` has written; arguments as there.

        Returns:
            Duplicates of the files, as the driver closes its own with the parcel.

        Raises:
            ParcelError: there is none, or it says something else.
        """
        check_type("read_file_array(): buffer", buffer, Buffer)
        start = self._position
        kind, _, found, parent, place = self._object_at(start, binder_fd_array_object)
        if kind != BINDER_TYPE_FDA or start not in self._objects:
            raise ParcelError(f"no descriptors at {start}")
        if (found, parent, place) != (count, buffer.index, offset):
            raise ParcelError(f"descriptors at {start} that belong elsewhere")
        if offset + count * _LENGTH.size > len(buffer.data):
            raise ParcelError(f"{count} descriptors at {start} in {len(buffer.data)} bytes")
        files = [
            duplicate(number) for number in struct.unpack_from(f"={count}i", buffer.data, offset)
        ]
        self._position = start + binder_fd_array_object.size
        return files

    def _put_file(self, file: ReceivedFile) -> None:
        """Write an open file, which belongs to the parcel from now on."""
        position = self._position
        data = bytearray(binder_fd_object.size)
        _pack_file(data, 0, file)
        self._put(data)
        self._objects[position] = file.fileno()
        self._files.append(file)

    def keep(self, files: Iterable[ReceivedFile]) -> None:
        """Have files closed with the parcel, where their numbers were put into a buffer."""
        self._files += files

    def _pack_buffer(self, offset: int, buffer: Buffer) -> None:
        has_parent = buffer.parent is not None
        binder_buffer_object.pack_into(
            self._data,
            offset,
            BINDER_TYPE_PTR,
            BINDER_BUFFER_FLAG_HAS_PARENT if has_parent else 0,
            buffer.address,
            len(buffer.data),
            buffer.parent or 0,
            buffer.parent_offset,
        )

    # For the encodings on top

    def _check_open(self) -> None:
        if self._closed:
            raise ParcelError("this parcel's buffer was given back")

    def _pack(self, codec: struct.Struct, value: float, method: str) -> None:
        try:
            data = codec.pack(value)
        except (struct.error, OverflowError, TypeError) as error:
            raise _refusal(codec.format[-1], value, f"{method}()", error) from None
        self._put(data)

    def _pack_array(self, code: str, values: Sequence[float] | None, method: str) -> None:
        if values is None:
            self._put(_LENGTH.pack(NULL_LENGTH))
            return
        try:
            data = struct.pack(f"=i{len(values)}{code}", len(values), *values)
        except (struct.error, OverflowError, TypeError) as error:
            raise _refused_item(code, values, method, error) from None
        self._put(data)

    def _put(self, data: bytes | bytearray | memoryview) -> None:
        if self._owner is not None or self._closed:
            raise ParcelError("a received or closed parcel cannot be written")
        position = self._position
        size = len(data)
        padding = -size & 3
        end = position + size + padding
        try:
            if position == len(self._data):
                self._data += data
                if padding:
                    self._data += _PADDING[padding]
            else:
                self._check_overwrite(position, end)
                self._data[position : position + size] = data
                if padding:
                    self._data[end - padding : end] = _PADDING[padding]
        except BufferError:
            raise ParcelError("a view of this parcel is still in use") from None
        self._position = end

    def _check_overwrite(self, start: int, end: int) -> None:
        for offset in self._objects:
            if offset < end and start < offset + flat_binder_object.size:
                raise ParcelError(f"{start} … {end} would overwrite the object at {offset}")

    def _unpack(self, codec: struct.Struct) -> Any:  # noqa: ANN401 - int or float by codec
        if self._closed:
            self._check_open()
        position = self._position
        if position + codec.size > len(self._data):
            raise ParcelError(f"{codec.size} bytes wanted at {position} of {len(self._data)}")
        self._position = position + codec.size
        return codec.unpack_from(self._data, position)[0]

    def _unpack_array(self, code: str, item_size: int) -> list[Any] | None:
        count, start = self._length()
        if count is None:
            return None
        data = self._skip(start, count * item_size)
        return list(struct.unpack_from(f"={count}{code}", data))

    def _length(self) -> tuple[int | None, int]:
        """Return (count, where its data starts); consumes the length only if it is null."""
        if self._closed:
            self._check_open()
        position = self._position
        start = position + _LENGTH.size
        if start > len(self._data):
            raise ParcelError(f"a length wanted at {position} of {len(self._data)}")
        count: int = _LENGTH.unpack_from(self._data, position)[0]
        if count >= 0:
            return count, start
        if count < NULL_LENGTH:
            raise ParcelError(f"a length of {count} at {position}")
        self._position = start
        return None, start

    def _skip(self, start: int, size: int) -> Any:  # noqa: ANN401 - bytearray or memoryview
        """Check that ``size`` bytes are there, go behind them and their padding, return them."""
        if self._closed:
            self._check_open()
        data = self._data
        end = start + size
        if size < 0 or end > len(data):
            raise ParcelError(f"{size} bytes wanted at {start} of {len(data)}")
        behind = end + (-size & 3)
        self._position = min(behind, len(data))
        return data[start:end]

    def _lend(self, start: int, end: int) -> memoryview:
        view = memoryview(self._data)[start:end].toreadonly()
        if self._owner is not None:
            self._views.append(view)
        return view

    def _object_at(self, offset: int, record: Any) -> Any:  # noqa: ANN401 - a wire record
        self._check_open()
        if offset + record.size > len(self._data):
            raise ParcelError(f"an object wanted at {offset} of {len(self._data)}")
        return record.unpack_from(self._data, offset)

    def _binder_at(self, offset: int) -> IBinder | None:
        kind, _flags, binder, cookie = self._object_at(offset, flat_binder_object)
        if offset not in self._objects:
            if kind == BINDER_TYPE_BINDER and not binder:
                return None
            # Bytes that only look like an object: the driver has not checked them.
            raise ParcelError(f"no binder object at {offset}")
        known = self._objects[offset]
        if isinstance(known, int) or kind == BINDER_TYPE_FD:
            raise ParcelError(f"a file descriptor at {offset}")
        if isinstance(known, Buffer) or kind == BINDER_TYPE_PTR:
            raise ParcelError(f"a buffer at {offset}")
        if known is None and self._owner is not None:
            known = self._objects[offset] = self._owner.resolve(kind, binder, cookie)
        return known


def _pack_file(data: bytearray, offset: int, file: ReceivedFile) -> None:
    flags = 0x7F | FLAT_BINDER_FLAG_ACCEPTS_FDS  # what Android puts there; no reader looks at it
    binder_fd_object.pack_into(data, offset, BINDER_TYPE_FD, flags, file.fileno(), 0)


_NUMBERS: Final = (int, float)


def _refusal(code: str, value: object, place: str, error: Exception) -> Exception:
    """Return what is raised for a number that cannot be packed."""
    wanted: type | tuple[type, ...] = _NUMBERS if code in "fd" else int
    if isinstance(value, wanted):
        return ParcelError(f"{place}: {value!r} does not fit: {error}")
    name = "float" if code in "fd" else "int"
    return TypeError(f"{place} takes {name}, not {type(value).__name__}")


def _refused_item(code: str, values: object, method: str, error: Exception) -> Exception:
    if isinstance(values, str) or not hasattr(values, "__len__"):
        return TypeError(f"{method}() takes a list, not {type(values).__name__}")
    if hasattr(values, "__iter__"):
        for number, value in enumerate(values):
            try:
                struct.pack(f"={code}", value)
            except (struct.error, OverflowError, TypeError) as item_error:
                return _refusal(code, value, f"{method}(): item {number}", item_error)
    return TypeError(f"{method}(): {error}")
