# SPDX-License-Identifier: Apache-2.0
"""The flavour of ``binderclient`` for asyncio, with parcels."""

from __future__ import annotations

import asyncio

import timing
from blocking import DESCRIPTOR, ECHO
from trios import Echo

from binderclient import Parcel
from binderclient.aio import open_device


async def serve(path: str) -> None:
    """Serve until cancelled."""
    async with open_device(path) as device:
        device.become_context_manager(Echo())
        device.start_serving()
        timing.ready()
        await device.serve_forever()


async def call(path: str, seconds: float) -> None:
    """Call from one task."""
    async with open_device(path) as device:
        proxy = device.context_manager

        async def echo(text: str) -> str:
            request = Parcel.for_interface(DESCRIPTOR)
            request.write_string16(text)
            with await proxy.call(ECHO, request) as reply:
                reply.read_exception()
                return reply.read_string16() or ""

        await timing.measure_awaiting(echo, seconds)


if __name__ == "__main__":
    timing.run(
        lambda path: asyncio.run(serve(path)),
        lambda path, seconds: asyncio.run(call(path, seconds)),
    )
