# SPDX-License-Identifier: Apache-2.0
"""Binder for trio programs: ``open_device``, asynchronous proxies, asynchronous handlers.

``asynchronous`` has all of it but what is trio's own; its head says what happens in which thread
and what cancellation promises.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import trio

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
    failure: Exception | None = None
    loop = _TrioLoop()
    device = AsyncDevice(path, map_size, max_threads, max_calls, reconnect=reconnect, loop=loop)
    async with trio.open_nursery() as handlers:
        loop.handlers = handlers
        try:
            yield device
        except Exception as error:
            failure = error  # raised below as it is: that there is a nursery is our business
        finally:
            await device.aclose()
    if failure is not None:
        raise failure


class _TrioLoop:
    """The run of trio that this is made in."""

    def __init__(self) -> None:
        self.handlers: trio.Nursery | None = None  # where tasks handle incoming calls
        self._token = trio.lowlevel.current_trio_token()

    def _check(self) -> None:
        try:
            is_here = trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:  # there is none, or it is asyncio's
            is_here = False
        if not is_here:
            raise elsewhere()

    def event(self) -> trio.Event:
        self._check()
        return trio.Event()

    def run_soon(self, function: Callable[..., object], *arguments: Any) -> None:  # noqa: ANN401
        try:
            self._token.run_sync_soon(function, *arguments)
        except trio.RunFinishedError:
            raise LoopEnded from None

    def start_task(
        self, function: Callable[[], Coroutine[Any, Any, None]], _ended: Callable[[], None]
    ) -> None:
        if self.handlers is None:
            raise LoopEnded
        self.handlers.start_soon(function)  # one that is cancelled begins all the same

    def cancel_tasks(self) -> None:
        handlers, self.handlers = self.handlers, None
        if handlers is not None:
            handlers.cancel_scope.cancel()

    async def tasks_ended(self) -> None:
        """The nursery does not end before them."""

    def is_cancelled(self) -> bool:
        return self.handlers is None

    async def checkpoint(self) -> None:
        self._check()
        await trio.lowlevel.checkpoint()

    async def heed_cancellation(self) -> None:
        self._check()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def finish(self, awaitable: Awaitable[_T]) -> _T:
        with trio.CancelScope(shield=True):
            result = await awaitable
        return result  # noqa: RET504 - to mypy a scope may swallow what is raised in it
