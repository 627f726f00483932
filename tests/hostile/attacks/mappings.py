# SPDX-License-Identifier: Apache-2.0
"""Calls to a receiver of one's own that has very many mappings, and not the one that counts."""

from __future__ import annotations

import mmap

from channel.rawclient import protect, unmap
from hostile.means import (
    Device,
    Parcel,
    Tell,
    anonymous,
    begin,
    child_that_says,
    finish,
    for_seconds,
    manager,
    rest,
    say,
)

SECONDS = 4.0
PAGE = mmap.PAGESIZE

place = begin()


def receive(tell: Tell) -> None:
    device = Device(f"{place.devices}/his", 4 << 20)
    manager(device)
    address = anonymous(place.size * PAGE)
    for page in range(0, place.size, 2):
        protect(address + page * PAGE, PAGE, mmap.PROT_READ)
    unmap(device.address, device.size)
    tell()
    rest()


child_that_says(receive)
device = Device(f"{place.devices}/his")
parcel = Parcel(size=100)
say("now")
for_seconds(SECONDS, lambda: device.write_read(parcel.command, 256))
finish()
