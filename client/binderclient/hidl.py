# SPDX-License-Identifier: Apache-2.0
"""HIDL's encoding of parcels: tokens, strings and lists of strings.

A string is a record that points to its characters, a list one that points to an array of records.
Each record, array and text is a *buffer* beside the parcel's bytes (scatter-gather): in the parcel
there is an object that tells where it is, and in which place of which earlier buffer the pointer to
it belongs.  The driver copies them and puts the pointers right, so a reader compares those: a
buffer that is not where its record points to is another one's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderclient.errors import ParcelError
from binderwire.hidl import (
    CLIENTS_AT,
    INSTANCE_AT,
    INTERFACE_AT,
    hidl_string,
    hidl_vec,
    instance_debug_info,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from binderclient.contents import Buffer
    from binderclient.parcel import Parcel

_STRINGS_MAX: Final = 1 << 16  # of a list that a client reads
_OWNED: Final = 0  # memory is the sender's: nobody frees it


def write_string(parcel: Parcel, text: str) -> None:
    """Write a hidl_string."""
    encoded = text.encode()
    head = parcel.write_buffer(hidl_string.pack(0, len(encoded), _OWNED))
    parcel.write_buffer(encoded + b"\0", parent=head, parent_offset=0)


def read_string(parcel: Parcel) -> str:
    """Read a hidl_string.

    Raises:
        ParcelError: there is none, or its buffers do not belong together.
    """
    head = parcel.read_buffer()
    if len(head.data) != hidl_string.size:
        raise ParcelError(f"a buffer of {len(head.data)} bytes is no string")
    return _read_text(parcel, head, 0)


def write_strings(parcel: Parcel, texts: Iterable[str]) -> None:
    """Write a vec<string>."""
    encoded = [text.encode() for text in texts]
    head = parcel.write_buffer(hidl_vec.pack(0, len(encoded), _OWNED))
    records = b"".join(hidl_string.pack(0, len(each), _OWNED) for each in encoded)
    array = parcel.write_buffer(records, parent=head, parent_offset=0)
    for number, each in enumerate(encoded):
        parcel.write_buffer(each + b"\0", parent=array, parent_offset=number * hidl_string.size)


def write_bytes_list(parcel: Parcel, items: Sequence[bytes]) -> None:
    """Write a vec of byte arrays that are all of one size."""
    head = parcel.write_buffer(hidl_vec.pack(0, len(items), _OWNED))
    parcel.write_buffer(b"".join(items), parent=head, parent_offset=0)


def write_instances(parcel: Parcel, instances: Iterable[tuple[str, str, int, int]]) -> None:
    """Write a vec<InstanceDebugInfo>, without the processes that use an instance.

    Args:
        instances: interface, instance, process id of who serves it, architecture.
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
    head = parcel.read_buffer()
    if len(head.data) != hidl_vec.size:
        raise ParcelError(f"a buffer of {len(head.data)} bytes is no vector")
    address, count, _owns = hidl_vec.unpack_from(head.data, 0)
    if not address and not count:
        return []
    array = parcel.read_buffer()
    _check_child(array, head, 0, address)
    if count > _STRINGS_MAX or len(array.data) != count * hidl_string.size:
        raise ParcelError(f"an array of {len(array.data)} bytes for {count} strings")
    return [_read_text(parcel, array, number * hidl_string.size) for number in range(count)]


def _read_text(parcel: Parcel, parent: Buffer, offset: int) -> str:
    address, size, _owns = hidl_string.unpack_from(parent.data, offset)
    if not address and not size:  # some write no buffer for what is empty
        return ""
    child = parcel.read_buffer()
    _check_child(child, parent, offset, address)
    data = bytes(child.data)
    if len(data) != size + 1 or data[-1]:
        raise ParcelError(f"a text of {size} bytes in a buffer of {len(data)}")
    try:
        return data[:-1].decode()
    except UnicodeDecodeError as error:
        raise ParcelError(f"not UTF-8: {error}") from None


def _check_child(child: Buffer, parent: Buffer, offset: int, address: int) -> None:
    if (child.parent, child.parent_offset) != (parent.index, offset):
        raise ParcelError("a buffer that belongs elsewhere")
    if child.address != address and len(child.data):
        raise ParcelError("a buffer that is not where its record points to")
