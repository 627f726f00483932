# SPDX-License-Identifier: Apache-2.0
"""Calls with as many objects as there may be, failing at the last; buffers full of commands."""

from __future__ import annotations

import struct

from binderwire import binder_abi as abi
from hostile.means import (
    NONSENSE,
    Device,
    Parcel,
    begin,
    binders,
    child,
    finish,
    for_seconds,
    os,
    own_receiver,
    say,
)

SECONDS = 4.0

place = begin()
own_receiver(f"{place.devices}/his")


def call() -> None:
    device = Device(f"{place.devices}/his")
    parcel = Parcel([*binders(place.size - 1), NONSENSE])
    for_seconds(SECONDS, lambda: device.write_read(parcel.command, 256))


def command() -> None:
    device = Device(f"{place.devices}/his")
    pair = struct.pack("=IIII", abi.BC_INCREFS, 0, abi.BC_DECREFS, 0)
    commands = pair * (2 * place.size)
    for_seconds(SECONDS, lambda: device.write_read(commands))


say("now")
for number in [child(call), child(command)]:
    os.waitpid(number, 0)
finish()
