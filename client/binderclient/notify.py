# SPDX-License-Identifier: Apache-2.0
"""Telling systemd, or what else has started a server, how it is: the sd_notify protocol.

Nothing here may know what the server does.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*assignments: str) -> bool:
    """Send assignments such as ``READY=1`` to the socket that $NOTIFY_SOCKET names.

    Returns:
        False if there is no such variable, or nothing receives there; never an error.
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
