# SPDX-License-Identifier: Apache-2.0
"""``android.hidl.base@1.0::IBase``: what every HIDL object answers, for the manager itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from binderclient import android, hidl
from binderclient.errors import ParcelError
from binderwire import hidl as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from binderclient.parcel import Parcel

ARCHITECTURE_UNKNOWN: Final = 0
ARCHITECTURE_64: Final = 1


def finish(data: Parcel) -> None:
    """Check that a request was read to its end; what is left over is of another method.

    Raises:
        ParcelError: something is left over.
    """
    if data.remaining:
        raise ParcelError(f"{data.remaining} bytes are left over")


def begin(reply: Parcel) -> None:
    """Write the status that every reply begins with."""
    reply.write_int32(android.STATUS_OK)


def _interface_chain(data: Parcel, reply: Parcel) -> None:
    finish(data)
    begin(reply)
    hidl.write_strings(reply, wire.MANAGER_CHAIN)


def _interface_descriptor(data: Parcel, reply: Parcel) -> None:
    finish(data)
    begin(reply)
    hidl.write_string(reply, wire.MANAGER_CHAIN[0])


def _hash_chain(data: Parcel, reply: Parcel) -> None:
    """Answer zeros, as interfaces do that are not released: hashes are of Android's own texts."""
    finish(data)
    begin(reply)
    hidl.write_bytes_list(reply, [bytes(wire.HASH_SIZE)] * len(wire.MANAGER_CHAIN))


def _get_debug_info(data: Parcel, reply: Parcel) -> None:
    finish(data)
    begin(reply)
    reply.write_buffer(wire.hidl_debug_info.pack(os.getpid(), 0, ARCHITECTURE_64))


def _do_nothing(data: Parcel, reply: Parcel) -> None:
    finish(data)
    begin(reply)


def _debug(_data: Parcel, reply: Parcel) -> None:
    """Write nothing to the file in the request, as an object does that has nothing to tell."""
    begin(reply)


METHODS: Final[Mapping[int, Callable[[Parcel, Parcel], None]]] = {
    wire.INTERFACE_CHAIN: _interface_chain,
    wire.INTERFACE_DESCRIPTOR: _interface_descriptor,
    wire.GET_HASH_CHAIN: _hash_chain,
    wire.GET_DEBUG_INFO: _get_debug_info,
    wire.PING: _do_nothing,
    wire.DEBUG: _debug,
    wire.SET_HAL_INSTRUMENTATION: _do_nothing,
    wire.NOTIFY_SYSPROPS_CHANGED: _do_nothing,
}
