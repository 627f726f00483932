# SPDX-License-Identifier: Apache-2.0
"""Whole buffers of one-way updates to a frozen receiver of one's own, from some threads at once."""

from __future__ import annotations

import struct
from threading import Thread

from binderwire import binder_abi as abi
from hostile.means import Device, Parcel, begin, finish, own_receiver, say

THREADS = 5
PAYLOAD = 1_000_000  # bytes; the old and the new one must fit into half an area

place = begin()
receiver = own_receiver(f"{place.devices}/his")
device = Device(f"{place.devices}/his")
device.ioctl(abi.BINDER_FREEZE, struct.pack("=III", receiver, 1, 0))
flags = abi.TF_ONE_WAY | abi.TF_UPDATE_TXN
device.write_read(Parcel(size=8, flags=flags).command, 256)  # the first is never replaced
parcel = Parcel(size=PAYLOAD, flags=flags)
commands = parcel.command * place.size
threads = [Thread(target=device.write_read, args=(commands,)) for _ in range(THREADS)]
say("now")
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
finish()
