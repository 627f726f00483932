# SPDX-License-Identifier: Apache-2.0
"""Files are sent whose file system never lets anybody close them (size: files)."""

from __future__ import annotations

import os
import struct

from binderwire import binder_abi as abi
from hostile.means import Device, SilentMount, begin, file_in_vain, finish, own_receiver, say


def errors_of(device: Device, file: int, times: int) -> list[int]:
    """Send a file in vain, again and again; return what is said."""
    parcel, errors = file_in_vain(file), []
    for _ in range(times):
        device.write_read(parcel.command, 256)
        error = device.ioctl(abi.BINDER_GET_EXTENDED_ERROR, bytes(12))
        errors.append(struct.unpack("=IIi", error)[2])
    return errors


def main() -> None:
    silent = SilentMount(is_shared=True)
    place = begin()
    path = f"{place.devices}/his"
    own_receiver(path)
    file = os.open(silent.file, os.O_RDONLY)
    say("now")
    say(*errors_of(Device(path), file, place.size))
    finish()


if __name__ == "__main__":
    main()
