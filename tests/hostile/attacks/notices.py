# SPDX-License-Identifier: Apache-2.0
"""Death notices are requested and cleared again, and nothing is ever read (size: ms)."""

from __future__ import annotations

import struct

from binderwire import binder_abi as abi
from hostile.means import Device, begin, finish, for_seconds, own_receiver, say

place = begin()
own_receiver(f"{place.devices}/his")
device = Device(f"{place.devices}/his")
pair = struct.pack("=IIQ", abi.BC_REQUEST_DEATH_NOTIFICATION, 0, 1)
pair += struct.pack("=IIQ", abi.BC_CLEAR_DEATH_NOTIFICATION, 0, 1)
commands = struct.pack("=I", abi.BC_ENTER_LOOPER) + struct.pack("=II", abi.BC_ACQUIRE, 0)
device.write_read(commands)
say("now")
for_seconds(place.size / 1000, lambda: device.write_read(pair * 8000))
finish()
