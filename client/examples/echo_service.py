# SPDX-License-Identifier: Apache-2.0
"""An echo service: ``python echo_service.py [DEVICE]``, beside a running service manager."""

from __future__ import annotations

import signal
import sys

from binderclient import DEFAULT_PATH, Device, Parcel, Service, ServiceManager, caller, transaction

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
    with Device(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_PATH) as device:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: device.stop())
        ServiceManager(device).add("org.example.echo", Echo())
        device.join_thread_pool()


if __name__ == "__main__":
    main()
