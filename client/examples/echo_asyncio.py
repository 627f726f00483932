# SPDX-License-Identifier: Apache-2.0
"""The echo service and callers of it in one asyncio program: ``python echo_asyncio.py [DEVICE]``.

Each side opens the device for itself, as two processes would.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from binderclient import DEFAULT_PATH, BinderError, Service, as_interface, interface
from binderclient.aio import AsyncServiceManager, open_device

NAME = "org.example.echo.asyncio"


@interface("org.example.IEcho")
class Echo(Service):
    """Thinks for a while before it answers; several callers may wait at a time."""

    async def echo(self, text: str) -> str:
        """Return what it is given."""
        await asyncio.sleep(0.1)
        return text


async def serve_and_call(path: str) -> None:
    """Offer the service, call it, print what it says."""
    async with asyncio.timeout(10), open_device(path) as server, open_device(path) as client:
        await AsyncServiceManager(server).add(NAME, Echo())
        echo = as_interface(Echo, await AsyncServiceManager(client).wait(NAME), timeout=5)
        for answer in await asyncio.gather(*map(echo.echo, ("one", "two", "three"))):
            print(answer)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="An echo service and three callers of it.")
    parser.add_argument("device", metavar="DEVICE", nargs="?", default=DEFAULT_PATH)
    device = parser.parse_args().device
    try:
        asyncio.run(serve_and_call(device))
    except (BinderError, TimeoutError) as error:
        sys.exit(f"echo_asyncio: {error or 'no answer within 10 s'}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
