# SPDX-License-Identifier: Apache-2.0
"""dbus-fast, in asyncio on both sides: a service interface, and a proxy by its description."""

from __future__ import annotations

import asyncio
from typing import Final

import timing
from dbus_fast.aio import MessageBus
from dbus_fast.service import ServiceInterface, method

NAME: Final = "org.example.echo.fast"
PATH: Final = "/org/example/echo"
INTERFACE: Final = "org.example.Echo"


class Echo(ServiceInterface):
    """Answers with what it is told."""

    @method()
    def Echo(self, text: "s") -> "s":  # noqa: N802, UP037, F821 - D-Bus' own names and types
        """Return what it is given."""
        return text


async def serve(address: str) -> None:
    """Serve until the bus ends."""
    bus = await MessageBus(bus_address=address).connect()
    bus.export(PATH, Echo(INTERFACE))
    await bus.request_name(NAME)
    timing.ready()
    await bus.wait_for_disconnect()


async def call(address: str, seconds: float) -> None:
    """Call from one task."""
    bus = await MessageBus(bus_address=address).connect()
    description = await bus.introspect(NAME, PATH)
    proxy = bus.get_proxy_object(NAME, PATH, description).get_interface(INTERFACE)
    await timing.measure_awaiting(proxy.call_echo, seconds)
    bus.disconnect()


if __name__ == "__main__":
    timing.run(
        lambda address: asyncio.run(serve(address)),
        lambda address, seconds: asyncio.run(call(address, seconds)),
    )
