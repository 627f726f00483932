# SPDX-License-Identifier: Apache-2.0
"""The blocking flavour of ``binderclient``, with an interface instead of parcels."""

from __future__ import annotations

import timing

from binderclient import Device, Service, as_interface, interface


@interface("org.example.IEcho")
class Echo(Service):
    """Answers with what it is told."""

    def echo(self, text: str) -> str:
        """Return what it is given."""
        return text


def serve(path: str) -> None:
    """Serve in the main thread."""
    with Device(path) as device:
        device.become_context_manager(Echo())
        timing.ready()
        device.join_thread_pool()


def call(path: str, seconds: float) -> None:
    """Call from the main thread."""
    with Device(path) as device:
        timing.measure(as_interface(Echo, device.context_manager).echo, seconds)


if __name__ == "__main__":
    timing.run(serve, call)
