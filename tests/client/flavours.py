# SPDX-License-Identifier: Apache-2.0
"""What the tests of asynchronous devices need of trio and of asyncio, under the same names."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from binderclient import aio
from binderclient import trio as binder_trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

_T = TypeVar("_T")
PATIENCE = 20.0


class Trio:
    name = "trio"
    open_device = staticmethod(binder_trio.open_device)
    cancelled = trio.Cancelled

    @staticmethod
    def run(function: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        async def limited() -> _T:
            with trio.fail_after(PATIENCE):
                return await function()

        return trio.run(limited)

    @staticmethod
    def event() -> Any:  # noqa: ANN401
        return trio.Event()

    @staticmethod
    async def sleep(seconds: float) -> None:
        await trio.sleep(seconds)

    @staticmethod
    async def returns_within(seconds: float, call: Callable[[], Awaitable[object]]) -> bool:
        """Cancel a call after that time; say whether it was over before."""
        with trio.move_on_after(seconds) as scope:
            await call()
        return not scope.cancelled_caught

    @staticmethod
    @contextlib.asynccontextmanager
    async def tasks() -> AsyncIterator[Callable[[Callable[[], Any]], object]]:
        """Give what starts a task; at the end all have ended."""
        async with trio.open_nursery() as nursery:
            yield nursery.start_soon

    @staticmethod
    async def in_thread(function: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(function)

    @staticmethod
    async def call_cancelled(call: Callable[[], Awaitable[object]]) -> None:
        """Make a call in what is cancelled before it begins."""
        with trio.CancelScope() as scope:
            scope.cancel()
            await call()
        assert scope.cancelled_caught


class Asyncio:
    name = "asyncio"
    open_device = staticmethod(aio.open_device)
    cancelled = asyncio.CancelledError

    @staticmethod
    def run(function: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        async def limited() -> _T:
            async with asyncio.timeout(PATIENCE):
                return await function()

        return asyncio.run(limited())

    @staticmethod
    def event() -> Any:  # noqa: ANN401
        return asyncio.Event()

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @staticmethod
    async def returns_within(seconds: float, call: Callable[[], Awaitable[object]]) -> bool:
        try:
            async with asyncio.timeout(seconds) as scope:
                await call()
        except TimeoutError:
            assert scope.expired()
            return False
        return True

    @staticmethod
    @contextlib.asynccontextmanager
    async def tasks() -> AsyncIterator[Callable[[Callable[[], Any]], object]]:
        async with asyncio.TaskGroup() as group:
            yield lambda function: group.create_task(function())

    @staticmethod
    async def in_thread(function: Callable[[], _T]) -> _T:
        return await asyncio.to_thread(function)

    @staticmethod
    async def call_cancelled(call: Callable[[], Awaitable[object]]) -> None:
        async def run() -> None:
            await call()

        task = asyncio.ensure_future(run())
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()


Flavour = Trio | Asyncio
FLAVOURS = [Trio(), Asyncio()]
