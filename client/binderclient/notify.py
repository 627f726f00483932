# SPDX-License-Identifier: Apache-2.0
"""Telling the service manager of the system how a server is: the sd_notify protocol.

Nothing here may know what the server does.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*assignments: str) -> bool:
    """Send assignments such as ``READY=1`` to $NOTIFY_SOCKET.

    Returns:
        False if nobody asked for it or listens; that is never an error for the server.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return False
    if address[0] == "@":  # the abstract namespace
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto("\n".join(assignments).encode(), socket.MSG_NOSIGNAL, address)
        return True
    return False
