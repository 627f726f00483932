# SPDX-License-Identifier: Apache-2.0
"""The echo service and three callers of it in one trio program: ``python echo_trio.py [DEVICE]``.

Each side opens the device for itself, as two processes would.
"""

from __future__ import annotations

import sys

import trio

from binderclient import DEFAULT_PATH, Parcel, Service, transaction
from binderclient.trio import AsyncProxy, AsyncServiceManager, open_device

NAME, DESCRIPTOR, ECHO = "org.example.echo.trio", "org.example.IEcho", 1


class Echo(Service):
    """Thinks for a while before it answers; several callers may wait at a time."""

    descriptor = DESCRIPTOR

    @transaction(ECHO)
    async def echo(self, data: Parcel, reply: Parcel) -> None:
        """String16 in; exception header and String16 out."""
        await trio.sleep(0.1)
        reply.write_no_exception()
        reply.write_string16(data.read_string16())


async def say(echo: AsyncProxy, text: str) -> None:
    """Call the service and print what it says."""
    request = Parcel.for_interface(DESCRIPTOR)
    request.write_string16(text)
    with await echo.call(ECHO, request) as reply:
        reply.read_exception()
        print(reply.read_string16())


async def main() -> None:
    """Offer the service, call it."""
    path = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_PATH
    async with open_device(path) as server, open_device(path) as client:
        await AsyncServiceManager(server).add(NAME, Echo())
        echo = await AsyncServiceManager(client).wait(NAME)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for text in ("one", "two", "three"):
                    nursery.start_soon(say, echo, text)


if __name__ == "__main__":
    trio.run(main)
