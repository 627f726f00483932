# SPDX-License-Identifier: Apache-2.0
"""Binder for asyncio programs: ``open_device``, asynchronous proxies, asynchronous handlers.

``asynchronous`` has all of it but what is asyncio's own; its head says what happens in which thread
and what cancellation promises.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from binderclient.asynchronous import DEFAULT_MAX_CALLS, AsyncDevice, AsyncProxy
from binderclient.blocking import DEFAULT_MAP_SIZE, DEFAULT_MAX_THREADS, DEFAULT_PATH
from binderclient.loops import LoopEnded, elsewhere
from binderclient.servicemanager.async_client import AsyncNamedService, AsyncServiceManager

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

__all__ = [
    "AsyncDevice",
    "AsyncNamedService",
    "AsyncProxy",
    "AsyncServiceManager",
    "open_device",
]

_T = TypeVar("_T")


@contextlib.asynccontextmanager
async def open_device(
    path: str | os.PathLike[str] = DEFAULT_PATH,
    *,
    map_size: int = DEFAULT_MAP_SIZE,
    max_threads: int = DEFAULT_MAX_THREADS,
    max_calls: int = DEFAULT_MAX_CALLS,
    reconnect: bool = False,
) -> AsyncIterator[AsyncDevice]:
    """Open a binder device; at the end of the ``async with`` block it is closed.

    Args:
        path, map_size, reconnect: see ``Device``.
        max_threads: how many incoming calls may be in the hands of tasks at a time, less one.
        max_calls: how many outgoing calls may be in the air at a time; more of them wait.

    Raises:
        DeviceError: the device cannot be used.
    """
    loop = _AsyncioLoop()
    device = AsyncDevice(path, map_size, max_threads, max_calls, reconnect=reconnect, loop=loop)
    try:
        yield device
    finally:
        await device.aclose()


class _AsyncioLoop:
    """The loop that is running."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handlers: set[asyncio.Task[None]] = set()  # that handle incoming calls
        self._is_over = False

    def _check(self) -> None:
        try:
            is_here = asyncio.get_running_loop() is self._loop
        except RuntimeError:  # there is none, or it is trio's
            is_here = False
        if not is_here:
            raise elsewhere()

    def event(self) -> asyncio.Event:
        self._check()
        return asyncio.Event()

    def run_soon(self, function: Callable[..., object], *arguments: Any) -> None:  # noqa: ANN401
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # it is closed
            raise LoopEnded from None

    def start_task(
        self, function: Callable[[], Coroutine[Any, Any, None]], ended: Callable[[], None]
    ) -> None:
        if self._is_over:
            raise LoopEnded
        task = self._loop.create_task(function())
        self._handlers.add(task)  # a loop does not keep its tasks alive

        def forget(task: asyncio.Task[None]) -> None:
            self._handlers.discard(task)
            ended()

        task.add_done_callback(forget)

    def cancel_tasks(self) -> None:
        self._is_over = True
        for task in self._handlers:
            task.cancel()

    async def tasks_ended(self) -> None:
        if self._handlers:
            await self.finish(asyncio.wait(set(self._handlers)))

    def is_cancelled(self) -> bool:
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0

    async def checkpoint(self) -> None:
        self._check()
        await asyncio.sleep(0)

    async def heed_cancellation(self) -> None:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # there is no loop, or it is trio's
            raise elsewhere() from None
        if task is None or task.get_loop() is not self._loop or task.cancelling():
            self._check()
            await asyncio.sleep(0)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def finish(self, awaitable: Awaitable[_T]) -> _T:
        future = asyncio.ensure_future(awaitable)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        return future.result()
