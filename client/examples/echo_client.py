# SPDX-License-Identifier: Apache-2.0
"""A client of the echo service: ``python echo_client.py TEXT [DEVICE]``; waits for the service."""

from __future__ import annotations

import sys

from binderclient import DEFAULT_PATH, Device, Parcel, ServiceManager

DESCRIPTOR = "org.example.IEcho"
ECHO = 1


def main() -> None:
    """Send the text, print what comes back."""
    with Device(sys.argv[2] if len(sys.argv) > 2 else DEFAULT_PATH) as device:
        echo = ServiceManager(device).wait("org.example.echo")
        request = Parcel.for_interface(DESCRIPTOR)
        request.write_string16(sys.argv[1])
        with echo.call(ECHO, request) as reply:
            reply.read_exception()
            print(reply.read_string16())


if __name__ == "__main__":
    main()
