# SPDX-License-Identifier: Apache-2.0
"""jeepney, blocking on both sides: it has messages and connections, so the service is a loop."""

from __future__ import annotations

from typing import Final

import timing
from jeepney import DBusAddress, MessageType, new_method_call, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

NAME: Final = "org.example.echo.jeepney"
PATH: Final = "/org/example/echo"
INTERFACE: Final = "org.example.Echo"


def serve(address: str) -> None:
    """Serve until the bus ends."""
    connection = open_dbus_connection(bus=address)
    connection.send_and_get_reply(message_bus.RequestName(NAME))
    timing.ready()
    while True:
        message = connection.receive()
        if message.header.message_type == MessageType.method_call:
            connection.send(new_method_return(message, "s", message.body))


def call(address: str, seconds: float) -> None:
    """Call from the main thread."""
    connection = open_dbus_connection(bus=address)
    target = DBusAddress(PATH, bus_name=NAME, interface=INTERFACE)

    def echo(text: str) -> str:
        reply = connection.send_and_get_reply(new_method_call(target, "Echo", "s", (text,)))
        return str(reply.body[0])

    timing.measure(echo, seconds)
    connection.close()


if __name__ == "__main__":
    timing.run(serve, call)
