# SPDX-License-Identifier: Apache-2.0
"""What the flavours of ``binderclient`` for trio and asyncio do alike, with parcels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import timing
from blocking import DESCRIPTOR, ECHO

from binderclient import Parcel, Service, transaction

if TYPE_CHECKING:
    from collections.abc import Callable


class Echo(Service):
    """Answers with what it is told, in a task."""

    descriptor = DESCRIPTOR

    @transaction(ECHO)
    async def echo(self, data: Parcel, reply: Parcel) -> None:
        """String16 in; exception header and String16 out."""
        reply.write_no_exception()
        reply.write_string16(data.read_string16())


async def serve(open_device: Callable[[str], Any], path: str) -> None:
    """Serve until cancelled."""
    async with open_device(path) as device:
        device.become_context_manager(Echo())
        device.start_serving()
        timing.ready()
        await device.serve_forever()


async def call(open_device: Callable[[str], Any], path: str, seconds: float) -> None:
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
