# SPDX-License-Identifier: Apache-2.0
"""The blocking flavour of ``binderclient``: a thread of the pool serves."""

from __future__ import annotations

import signal

import timing
from blocking import Echo, call

from binderclient import Device


def serve(path: str) -> None:
    """Serve in the background, while the main thread waits for a signal."""
    with Device(path) as device:
        device.become_context_manager(Echo())
        device.start_thread_pool()
        timing.ready()
        signal.pause()


if __name__ == "__main__":
    timing.run(serve, call)
