# SPDX-License-Identifier: Apache-2.0
"""sdbus: a blocking client of a service in asyncio, as it has no other kind of service."""

from __future__ import annotations

import asyncio
import os
from typing import Final

import sdbus
import timing

NAME: Final = "org.example.echo.sdbus"
PATH: Final = "/org/example/echo"
INTERFACE: Final = "org.example.Echo"


class Echo(sdbus.DbusInterfaceCommonAsync, interface_name=INTERFACE):
    """Answers with what it is told."""

    @sdbus.dbus_method_async("s", "s")
    async def echo(self, text: str) -> str:
        """Return what it is given."""
        return text


class Caller(sdbus.DbusInterfaceCommon, interface_name=INTERFACE):
    """What calls it."""

    @sdbus.dbus_method("s")
    def echo(self, text: str) -> str:
        """Return what it is given."""
        raise NotImplementedError


async def serve(address: str) -> None:
    """Serve until cancelled."""
    os.environ["DBUS_SESSION_BUS_ADDRESS"] = address
    sdbus.set_default_bus(sdbus.sd_bus_open_user())
    await sdbus.request_default_bus_name_async(NAME)
    service = Echo()
    service.export_to_dbus(PATH)
    timing.ready()
    await asyncio.Event().wait()


def call(address: str, seconds: float) -> None:
    """Call from the main thread."""
    os.environ["DBUS_SESSION_BUS_ADDRESS"] = address
    proxy = Caller(NAME, PATH, bus=sdbus.sd_bus_open_user())
    timing.measure(proxy.echo, seconds)


if __name__ == "__main__":
    timing.run(lambda address: asyncio.run(serve(address)), call)
