# SPDX-License-Identifier: Apache-2.0
"""Commands in plain memory whose owner is in an mmap that never ends: it has the mapping lock."""

from __future__ import annotations

from hostile.means import Device, SilentMount, anonymous, begin, finish, say, write_from

silent = SilentMount()
place = begin()
device = Device(f"{place.devices}/his")
address = anonymous(4096)
say("now")
silent.hold_mapping_lock()
write_from(device, address, 64)
finish()
