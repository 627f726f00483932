# SPDX-License-Identifier: Apache-2.0
"""HIDL's encoding of parcels: strings, lists of strings, numbers and bytes, handles.

A string is a record that points to its characters, a list one that points to an array of records.
Each record, array and text is a *buffer* beside the parcel's bytes (scatter-gather): in the parcel
there is an object that tells where it is, and in which place of which earlier buffer the pointer to
it belongs.  The driver copies them and puts the pointers right, so a reader compares those: a
buffer that is not where its record points to belongs to another record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from binderclient.arguments import check_type
from binderclient.errors import ParcelError
from binderclient.files import duplicate
from binderclient.parcel import Parcel
from binderwire.hidl import (
    CLIENTS_AT,
    INSTANCE_AT,
    INTERFACE_AT,
    hidl_string,
    hidl_vec,
    instance_debug_info,
    native_handle,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from binderclient.contents import Buffer
    from binderclient.files import HasFileno

__all__ = [
    "Handle",
    "read_handle",
    "read_string",
    "read_strings",
    "read_vec",
    "write_handle",
    "write_string",
    "write_strings",
    "write_vec",
]

_STRINGS_MAX: Final = 1 << 16  # of a list that a client reads
_NUMBERS: Final = frozenset("bBhHiIlLqQfd?")  # kinds of numbers
_OWNED: Final = 0  # memory is the sender's: nobody frees it


def write_string(parcel: Parcel, text: str) -> None:
    """Write a hidl_string.

    Raises:
        TypeError: this is no text, or no parcel to write to.
    """
    check_type("write_string(): parcel", parcel, Parcel)
    check_type("write_string(): text", text, str)
    encoded = text.encode()
    head = parcel.write_buffer(hidl_string.pack(0, len(encoded), _OWNED))
    parcel.write_buffer(encoded + b"\0", parent=head, parent_offset=0)


def read_string(parcel: Parcel) -> str:
    """Read a hidl_string.

    Raises:
        ParcelError: there is none, or its buffers do not belong together.
    """
    check_type("read_string(): parcel", parcel, Parcel)
    with _whole(parcel) as start:
        head = parcel.read_buffer()
        if len(head.data) != hidl_string.size:
            raise ParcelError(f"a buffer of {len(head.data)} bytes at {start} is no string")
        return _read_text(parcel, head, 0)


def write_strings(parcel: Parcel, texts: Iterable[str]) -> None:
    """Write a vec<string>.

    Raises:
        TypeError: these are no texts, or no parcel to write to.
    """
    check_type("write_strings(): parcel", parcel, Parcel)
    _check_items("write_strings(): texts", texts)
    encoded: list[bytes] = []
    for text in texts:
        check_type(f"write_strings(): texts[{len(encoded)}]", text, str)
        encoded.append(text.encode())
    head = parcel.write_buffer(hidl_vec.pack(0, len(encoded), _OWNED))
    records = b"".join(hidl_string.pack(0, len(each), _OWNED) for each in encoded)
    array = parcel.write_buffer(records, parent=head, parent_offset=0)
    for number, each in enumerate(encoded):
        parcel.write_buffer(each + b"\0", parent=array, parent_offset=number * hidl_string.size)


def write_vec(parcel: Parcel, kind: str, values: Sequence[float]) -> None:
    """Write a vec of numbers.

    Args:
        kind: what they are, as ``struct`` calls it: ``b`` to ``Q``, ``f``, ``d``, ``?``.
        values: the numbers.

    Raises:
        TypeError: they are no numbers.
        ValueError: there is no such kind.
        ParcelError: one of them does not fit.
    """
    check_type("write_vec(): parcel", parcel, Parcel)
    _check_kind("write_vec", kind)
    _check_items("write_vec(): values", values)
    values = list(values)
    for number, value in enumerate(values):
        check_type(f"write_vec(): values[{number}]", value, *_types_of(kind))
    try:
        data = struct.pack(f"={len(values)}{kind}", *values)
    except (struct.error, OverflowError) as error:
        raise ParcelError(f"write_vec(): {error}") from None
    head = parcel.write_buffer(hidl_vec.pack(0, len(values), _OWNED))
    parcel.write_buffer(data, parent=head, parent_offset=0)


def read_vec(parcel: Parcel, kind: str) -> list[Any]:
    """Read a vec of numbers; arguments as ``write_vec``, raises like ``read_string``."""
    check_type("read_vec(): parcel", parcel, Parcel)
    _check_kind("read_vec", kind)
    with _whole(parcel) as start:
        return _numbers(parcel, kind, start)


def _numbers(parcel: Parcel, kind: str, start: int) -> list[Any]:
    head, address, count = _vec_head(parcel)
    if not address and not count:
        return []
    array = parcel.read_buffer()
    _check_child(array, head, 0, address)
    if len(array.data) != count * struct.calcsize(f"={kind}"):
        size = len(array.data)
        raise ParcelError(f"an array of {size} bytes for {count} numbers, at {start}")
    return list(struct.unpack(f"={count}{kind}", array.data))


class Handle(NamedTuple):
    """A handle: open files and numbers."""

    files: Sequence[int | HasFileno]  # ReceivedFile, where it was read
    numbers: Sequence[int] = ()  # of 32 bits, signed


def write_handle(parcel: Parcel, handle: Handle | None) -> None:
    """Write a handle; None for null.

    The parcel has duplicates of the files, as with ``Parcel.write_file``.

    Raises:
        TypeError, ParcelError: a file or a number is none.
    """
    check_type("write_handle(): parcel", parcel, Parcel)
    if handle is None:
        parcel.write_uint64(0)
        return
    check_type("write_handle(): handle", handle, Handle)
    _check_items("write_handle(): files", handle.files)
    _check_items("write_handle(): numbers", handle.numbers)
    for number, each in enumerate(handle.numbers):
        check_type(f"write_handle(): numbers[{number}]", each, int)
    files = [duplicate(file) for file in handle.files]
    numbers = [*(file.fileno() for file in files), *handle.numbers]
    data = native_handle.pack(native_handle.size, len(files), len(handle.numbers))
    try:
        data += struct.pack(f"={len(numbers)}i", *numbers)
    except struct.error as error:
        raise ParcelError(f"write_handle(): {error}") from None
    parcel.write_uint64(len(data))
    buffer = parcel.write_buffer(data)
    parcel.write_file_array(buffer, native_handle.size, len(files))
    parcel.keep(files)


def read_handle(parcel: Parcel) -> Handle | None:
    """Read a handle, whose files are the caller's from now on; None for null.

    Raises:
        ParcelError: there is none, or its parts do not belong together.
    """
    check_type("read_handle(): parcel", parcel, Parcel)
    start = parcel.position
    size = parcel.read_uint64()
    if not size:
        return None
    try:
        buffer = parcel.read_buffer()
        data = bytes(buffer.data)
        if len(data) != size or size < native_handle.size:
            raise ParcelError(f"a handle of {size} bytes at {start} in a buffer of {len(data)}")
        version, file_count, number_count = native_handle.unpack_from(data)
        if version != native_handle.size or size != version + 4 * (file_count + number_count):
            raise ParcelError(f"a handle at {start} of {size} bytes that has other parts")
        files = parcel.read_file_array(buffer, version, file_count)
    except ParcelError:
        parcel.position = start
        raise
    numbers = struct.unpack_from(f"={number_count}i", data, version + 4 * file_count)
    return Handle(files, numbers)


def write_bytes_list(parcel: Parcel, items: Sequence[bytes]) -> None:
    """Write a vec of byte arrays that are all of one size."""
    head = parcel.write_buffer(hidl_vec.pack(0, len(items), _OWNED))
    parcel.write_buffer(b"".join(items), parent=head, parent_offset=0)


def write_instances(parcel: Parcel, instances: Iterable[tuple[str, str, int, int]]) -> None:
    """Write a vec<InstanceDebugInfo>, without the processes that use an instance.

    Args:
        instances: interface, instance, process id of its server, architecture.
    """
    rows = [
        (interface.encode(), name.encode(), pid, architecture)
        for interface, name, pid, architecture in instances
    ]
    records = [
        instance_debug_info.pack(
            *(0, len(interface), _OWNED),
            *(0, len(name), _OWNED),
            pid,
            *(0, 0, _OWNED),
            architecture,
        )
        for interface, name, pid, architecture in rows
    ]
    head = parcel.write_buffer(hidl_vec.pack(0, len(records), _OWNED))
    array = parcel.write_buffer(b"".join(records), parent=head, parent_offset=0)
    for number, (interface, name, _, _) in enumerate(rows):
        start = number * instance_debug_info.size
        parcel.write_buffer(interface + b"\0", parent=array, parent_offset=start + INTERFACE_AT)
        parcel.write_buffer(name + b"\0", parent=array, parent_offset=start + INSTANCE_AT)
        parcel.write_buffer(b"", parent=array, parent_offset=start + CLIENTS_AT)


def read_strings(parcel: Parcel) -> list[str]:
    """Read a vec<string>; raises like ``read_string``."""
    check_type("read_strings(): parcel", parcel, Parcel)
    with _whole(parcel) as start:
        return _strings(parcel, start)


def _strings(parcel: Parcel, start: int) -> list[str]:
    head, address, count = _vec_head(parcel)
    if not address and not count:
        return []
    array = parcel.read_buffer()
    _check_child(array, head, 0, address)
    if count > _STRINGS_MAX or len(array.data) != count * hidl_string.size:
        size = len(array.data)
        raise ParcelError(f"an array of {size} bytes for {count} strings, at {start}")
    return [_read_text(parcel, array, number * hidl_string.size) for number in range(count)]


@contextmanager
def _whole(parcel: Parcel) -> Iterator[int]:
    """Put the position back if the block fails; yields where it was."""
    start = parcel.position
    try:
        yield start
    except ParcelError:
        parcel.position = start
        raise


def _check_kind(function: str, kind: str) -> None:
    check_type(f"{function}(): kind", kind, str)
    if kind not in _NUMBERS:
        raise ValueError(f"{function}(): kind: {kind!r} is none of {' '.join(sorted(_NUMBERS))}")


def _types_of(kind: str) -> tuple[type, ...]:
    if kind == "?":
        return (bool,)
    return (int, float) if kind in "fd" else (int,)


def _check_items(place: str, values: object) -> None:
    """Refuse what is no list; a text is one in Python, and never meant here."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{place} must be a list, not {type(values).__name__}")


def _vec_head(parcel: Parcel) -> tuple[Buffer, int, int]:
    start = parcel.position
    head = parcel.read_buffer()
    if len(head.data) != hidl_vec.size:
        raise ParcelError(f"a buffer of {len(head.data)} bytes at {start} is no vector")
    address, count, _owns = hidl_vec.unpack_from(head.data, 0)
    return head, address, count


def _read_text(parcel: Parcel, parent: Buffer, offset: int) -> str:
    address, size, _owns = hidl_string.unpack_from(parent.data, offset)
    if not address and not size:  # some write no buffer for what is empty
        return ""
    child = parcel.read_buffer()
    _check_child(child, parent, offset, address)
    data = bytes(child.data)
    if len(data) != size + 1 or data[-1]:
        raise ParcelError(f"a text of {size} bytes in buffer {child.index}, of {len(data)}")
    try:
        return data[:-1].decode()
    except UnicodeDecodeError as error:
        raise ParcelError(f"not UTF-8 in buffer {child.index}: {error}") from None


def _check_child(child: Buffer, parent: Buffer, offset: int, address: int) -> None:
    if (child.parent, child.parent_offset) != (parent.index, offset):
        raise ParcelError(f"buffer {child.index} belongs elsewhere")
    if child.address != address and len(child.data):
        raise ParcelError(f"buffer {child.index} is not where its record points to")
