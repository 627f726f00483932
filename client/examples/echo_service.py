# SPDX-License-Identifier: Apache-2.0
"""An echo service: ``python echo_service.py [DEVICE]``, beside a running service manager."""

from __future__ import annotations

import argparse
import signal
import sys

from binderclient import (
    DEFAULT_PATH,
    BinderError,
    Device,
    Parcel,
    Service,
    ServiceManager,
    caller,
    transaction,
)

DESCRIPTOR = "org.example.IEcho"
ECHO = 1


class Echo(Service):
    """Sends back what it gets."""

    descriptor = DESCRIPTOR

    @transaction(ECHO)
    def echo(self, data: Parcel, reply: Parcel) -> None:
        """String16 in; exception header and String16 out."""
        text = data.read_string16()
        print(f"process {caller().sender_pid} says {text!r}", flush=True)
        reply.write_no_exception()
        reply.write_string16(text)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="Sends back what it gets, until Ctrl-C.")
    parser.add_argument("device", metavar="DEVICE", nargs="?", default=DEFAULT_PATH)
    with Device(parser.parse_args().device) as device:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: device.stop())
        ServiceManager(device).add("org.example.echo", Echo())
        device.join_thread_pool()


if __name__ == "__main__":
    try:
        main()
    except BinderError as error:
        sys.exit(f"echo_service: {error}")
    except KeyboardInterrupt:  # before the signal handlers were there
        sys.exit(130)
