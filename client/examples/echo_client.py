# SPDX-License-Identifier: Apache-2.0
"""A client of the echo service: ``python echo_client.py TEXT [DEVICE]``; waits for the service."""

from __future__ import annotations

import argparse
import sys

from binderclient import DEFAULT_PATH, BinderError, Device, Parcel, ServiceManager

NAME = "org.example.echo"
DESCRIPTOR = "org.example.IEcho"
ECHO = 1
PATIENCE = 10.0  # seconds


def main() -> None:
    """Send the text, print what comes back."""
    parser = argparse.ArgumentParser(description="Sends a text to the echo service.")
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("device", metavar="DEVICE", nargs="?", default=DEFAULT_PATH)
    chosen = parser.parse_args()
    with Device(chosen.device) as device:
        manager = ServiceManager(device)
        if manager.check(NAME) is None:
            print(f"waiting {PATIENCE:g} s for {NAME} (echo_service.py)", file=sys.stderr)
        echo = manager.wait(NAME, PATIENCE)
        request = Parcel.for_interface(DESCRIPTOR)
        request.write_string16(chosen.text)
        with echo.call(ECHO, request) as reply:
            reply.read_exception()
            print(reply.read_string16())


if __name__ == "__main__":
    try:
        main()
    except (BinderError, UnicodeError) as error:
        sys.exit(f"echo_client: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
