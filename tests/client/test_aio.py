# SPDX-License-Identifier: Apache-2.0
"""What is asyncio's own; ``test_async_flavours`` has what it has in common with trio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from binderclient import DeadObject, RemoteException, aio
from client.flavours import Asyncio
from client.test_async_flavours import Busy, Ends

if TYPE_CHECKING:
    from binderclient.testing import Binder


@pytest.fixture
def ends(binder: Binder) -> Ends:
    return Ends(binder)


def test_asyncio_ends_with_handlers_under_way(ends: Ends) -> None:
    """``asyncio.run`` cancels all tasks when its own ends, the device's among them."""
    outcomes: list[Any] = []

    async def main() -> None:
        busy, serves = Busy(Asyncio()), asyncio.Event()

        async def serve() -> None:
            async with aio.open_device(ends.server.path()) as device:
                device.become_context_manager(busy)
                serves.set()
                await device.serve_forever()

        def call() -> None:
            outcomes.extend(ends.call("wait", number=1))

        serving = asyncio.ensure_future(serve())
        await serves.wait()
        asyncio.get_running_loop().run_in_executor(None, call)
        while not busy.most:  # noqa: ASYNC110 - it is a number
            await asyncio.sleep(0.001)
        assert not serving.done()

    asyncio.run(main())
    [outcome] = outcomes
    assert isinstance(outcome, DeadObject | RemoteException)
