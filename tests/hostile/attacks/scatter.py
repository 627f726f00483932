# SPDX-License-Identifier: Apache-2.0
"""Pieces of memory each of which belongs into the one before (size: how deep), 20 senders."""

from __future__ import annotations

from binderwire import binder_abi as abi
from hostile.means import (
    NONSENSE,
    Device,
    Parcel,
    Tell,
    anonymous,
    begin,
    child_that_says,
    finish,
    for_seconds,
    os,
    own_receiver,
    say,
)

PROCESSES = 20
SECONDS = 4.0
PIECE = 16  # bytes

place = begin()
own_receiver(f"{place.devices}/his")
memory = anonymous(PIECE)


def chain(depth: int) -> Parcel:
    """Lay one out whose last object is none, so that all the work is for nothing."""
    kind, flag = abi.BINDER_TYPE_PTR, abi.BINDER_BUFFER_FLAG_HAS_PARENT
    pieces = [abi.binder_buffer_object.pack(kind, 0, memory, PIECE, 0, 0)]
    pieces += [
        abi.binder_buffer_object.pack(kind, flag, memory, PIECE, parent, 0)
        for parent in range(depth - 1)
    ]
    return Parcel([*pieces, NONSENSE], buffers_size=PIECE * depth)


start, started = os.pipe()


def send(tell: Tell) -> None:
    os.close(started)
    device = Device(f"{place.devices}/his")
    parcel = chain(place.size)  # that alone keeps a processor busy for a while
    tell()
    os.read(start, 1)  # its end
    for_seconds(SECONDS, lambda: device.write_read(parcel.command, 256))


children = [child_that_says(send) for _ in range(PROCESSES)]
say("now")
os.close(started)
for number in children:
    os.waitpid(number, 0)
finish()
