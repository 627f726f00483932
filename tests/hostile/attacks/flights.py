# SPDX-License-Identifier: Apache-2.0
"""Sockets that are attached and never read: what was sent stays on its way (size: files)."""

from __future__ import annotations

import socket
import struct

from binderwire import extension_abi as ext
from hostile.means import Device, begin, finish, say

place = begin()
device = Device(f"{place.devices}/his")
unread = []
say("now")
for _ in range(place.size):
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        unread.append(ours)
        attach = struct.pack("=iI", theirs.fileno(), ext.BINDERD_ATTACH_AREA)
        device.ioctl(ext.BINDERD_ATTACH, attach)
    except OSError:
        break
    theirs.close()
finish()
