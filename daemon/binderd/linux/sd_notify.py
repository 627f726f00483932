# SPDX-License-Identifier: Apache-2.0
"""Telling the service manager the service's state: the sd_notify protocol, a datagram a message.

Nothing here may know what the service does.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*assignments: str) -> bool:
    """Send assignments such as ``READY=1`` to $NOTIFY_SOCKET.

    Returns:
        False if no service manager asked for it or listens; that is never an error.
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


def watchdog_seconds() -> float:
    """Return how often, at least, the service manager wants to see ``WATCHDOG=1``; 0: not at all.

    It says so in $WATCHDOG_USEC, for the process of $WATCHDOG_PID (sd_watchdog_enabled).
    """
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant_for = os.environ.get("WATCHDOG_PID") or str(os.getpid())
    if meant_for != str(os.getpid()) or not microseconds.isdecimal():
        return 0.0
    return int(microseconds) / 1e6
