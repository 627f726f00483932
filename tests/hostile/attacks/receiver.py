# SPDX-License-Identifier: Apache-2.0
"""A receiver in an mmap that never ends; its sender has the daemon look at its mappings."""

from __future__ import annotations

from hostile.means import (
    Device,
    Parcel,
    SilentMount,
    Tell,
    begin,
    child_that_says,
    finish,
    manager,
    rest,
    say,
)

silent = SilentMount()
place = begin()


def receive(tell: Tell) -> None:
    manager(Device(f"{place.devices}/his", 4 << 20))
    silent.hold_mapping_lock()
    tell()
    rest()


child_that_says(receive)
device = Device(f"{place.devices}/his")
parcel = Parcel(size=100)
say("now")
for _ in range(10):
    device.write_read(parcel.command, 256)
finish()
