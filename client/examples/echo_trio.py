# SPDX-License-Identifier: Apache-2.0
"""The echo service and three callers of it in one trio program: ``python echo_trio.py [DEVICE]``.

Each side opens the device for itself, as two processes would.
"""

from __future__ import annotations

import argparse
import sys

import trio

from binderclient import DEFAULT_PATH, BinderError, Parcel, Service, transaction
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


async def serve_and_call(path: str) -> None:
    """Offer the service, call it."""
    with trio.fail_after(10):
        async with open_device(path) as server, open_device(path) as client:
            await AsyncServiceManager(server).add(NAME, Echo())
            echo = await AsyncServiceManager(client).wait(NAME)
            async with trio.open_nursery() as nursery:
                for text in ("one", "two", "three"):
                    nursery.start_soon(say, echo, text)


def main() -> None:
    """Run it; what fails in one of the tasks comes in a group."""
    parser = argparse.ArgumentParser(description="An echo service and three callers of it.")
    parser.add_argument("device", metavar="DEVICE", nargs="?", default=DEFAULT_PATH)
    device = parser.parse_args().device
    try:
        trio.run(serve_and_call, device)
    except* (BinderError, trio.TooSlowError) as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        sys.exit(f"echo_trio: {error or 'no answer within 10 s'}")
    except* KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
