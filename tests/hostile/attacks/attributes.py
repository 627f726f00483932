# SPDX-License-Identifier: Apache-2.0
"""Files of a file system that never tells their attributes are sent (size: calls)."""

from __future__ import annotations

import os

from binderwire import binder_abi as abi
from hostile.means import (
    NONSENSE,
    Device,
    Parcel,
    SilentMount,
    begin,
    finish,
    own_receiver,
    say,
)

silent = SilentMount(is_shared=True)
place = begin()
path = f"{place.devices}/his"
own_receiver(path)
file = os.open(silent.file, os.O_RDONLY)
device = Device(path)
passed = abi.binder_fd_object.build(type=abi.BINDER_TYPE_FD, fd=file)
parcel = Parcel([passed, NONSENSE])  # it fails, so the file that was taken is closed again
say("now")
for _ in range(place.size):
    device.write_read(parcel.command, 256)
finish()
