# SPDX-License-Identifier: Apache-2.0
"""Files of a file system that never tells their attributes are sent (size: milliseconds)."""

from __future__ import annotations

import os

from hostile.means import (
    Device,
    SilentMount,
    begin,
    file_in_vain,
    finish,
    for_seconds,
    own_receiver,
    say,
)

silent = SilentMount(is_shared=True)
place = begin()
path = f"{place.devices}/his"
own_receiver(path)
file = os.open(silent.file, os.O_RDONLY)
device = Device(path)
parcel = file_in_vain(file)
say("now")
for_seconds(place.size / 1000, lambda: device.write_read(parcel.command, 256))
finish()
