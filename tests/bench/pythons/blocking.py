# SPDX-License-Identifier: Apache-2.0
"""The blocking flavour of ``binderclient``, with parcels: the main thread serves."""

from __future__ import annotations

from typing import Final

import timing

from binderclient import Device, Parcel, Service, transaction

DESCRIPTOR: Final = "org.example.IEcho"
ECHO: Final = 1


class Echo(Service):
    """Answers with what it is told."""

    descriptor = DESCRIPTOR

    @transaction(ECHO)
    def echo(self, data: Parcel, reply: Parcel) -> None:
        """String16 in; exception header and String16 out."""
        reply.write_no_exception()
        reply.write_string16(data.read_string16())


def serve(path: str) -> None:
    """Serve in the main thread."""
    with Device(path) as device:
        device.become_context_manager(Echo())
        timing.ready()
        device.join_thread_pool()


def call(path: str, seconds: float) -> None:
    """Call from the main thread."""
    with Device(path) as device:
        proxy = device.context_manager

        def echo(text: str) -> str:
            request = Parcel.for_interface(DESCRIPTOR)
            request.write_string16(text)
            with proxy.call(ECHO, request) as reply:
                reply.read_exception()
                return reply.read_string16() or ""

        timing.measure(echo, seconds)


if __name__ == "__main__":
    timing.run(serve, call)
