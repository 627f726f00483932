# SPDX-License-Identifier: Apache-2.0
"""As many notices as there may be are read in one go, again and again (size: notices)."""

from __future__ import annotations

import struct

from binderwire import binder_abi as abi
from hostile.means import Device, begin, finish, for_seconds, own_receiver, say

SECONDS = 6.0
NOTICE_SIZE = 12  # bytes of BR_CLEAR_DEATH_NOTIFICATION_DONE
PIECE = 4000  # notices

place = begin()
own_receiver(f"{place.devices}/his")
device = Device(f"{place.devices}/his")
pair = struct.pack("=IIQ", abi.BC_REQUEST_DEATH_NOTIFICATION, 0, 1)
pair += struct.pack("=IIQ", abi.BC_CLEAR_DEATH_NOTIFICATION, 0, 1)
commands = struct.pack("=I", abi.BC_ENTER_LOOPER) + struct.pack("=II", abi.BC_ACQUIRE, 0)
device.write_read(commands)


def once() -> None:
    for _ in range(place.size // PIECE):
        device.write_read(pair * PIECE)
    device.write_read(b"", NOTICE_SIZE * place.size + 256)


say("now")
for_seconds(SECONDS, once)
finish()
