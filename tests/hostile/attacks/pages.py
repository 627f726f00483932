# SPDX-License-Identifier: Apache-2.0
"""Receivers whose areas are filled and never read, one after the other (size: how many)."""

from __future__ import annotations

import struct

from binderwire import binder_abi as abi
from hostile.means import (
    Device,
    Parcel,
    Tell,
    begin,
    binders,
    child_that_says,
    finish,
    manager,
    os,
    peek,
    say,
)

PAYLOAD = (2 << 20) - 4096  # bytes: half of an area is for one-way calls

place = begin()
reading, filled = os.pipe()


def fill(tell: Tell) -> None:
    """Be the manager, and send to every node that is told."""
    device = Device(f"{place.devices}/his", 1 << 20)
    manager(device)
    tell()
    while True:
        returns = device.write_read(b"", 256)
        if (word := struct.pack("=I", abi.BR_TRANSACTION)) in returns:
            call = abi.binder_transaction_data.read(returns, returns.index(word) + 4)
            handle = struct.unpack_from("=I", peek(call.buffer, 24), 8)[0]
            device.write_read(Parcel(size=PAYLOAD, handle=handle).command, 256)
            os.write(filled, b".")


child_that_says(fill)
receivers = []
say("now")
for _ in range(place.size):
    try:
        receivers.append(Device(f"{place.devices}/his", 4 << 20))
    except OSError:
        break
    receivers[-1].write_read(Parcel(binders(1)).command, 0)
    os.read(reading, 1)
finish()
