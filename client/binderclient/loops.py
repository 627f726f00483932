# SPDX-License-Identifier: Apache-2.0
"""``EventLoop``: the little that an asynchronous device asks of the loop that it lives in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from binderclient.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

_T = TypeVar("_T")


class LoopEnded(Exception):
    """There is no loop any more that could do something."""


def elsewhere() -> MisuseError:
    """Return what is raised where a device is used in a loop that is not its own."""
    return MisuseError(
        "this device belongs to another event loop: open one in this loop, or have the other one"
        " make the call (asyncio.run_coroutine_threadsafe, trio.from_thread.run)"
    )


class Event(Protocol):
    """Something that happens once; trio's and asyncio's are such."""

    def set(self) -> None:
        """Say that it has happened; in the loop's thread."""

    async def wait(self) -> object:
        """Return when it has happened."""


class EventLoop(Protocol):
    """The loop that a device lives in; all but ``run_soon`` is called in its thread."""

    def event(self) -> Event:
        """Return something that has not happened yet.

        Raises:
            MisuseError: this is another loop, which nobody would wake.
        """

    def run_soon(self, function: Callable[..., object], *arguments: Any) -> None:  # noqa: ANN401
        """Have a function called in the loop's thread; may be called in any.

        Raises:
            LoopEnded: it will not be called.
        """

    def start_task(
        self, function: Callable[[], Coroutine[Any, Any, None]], ended: Callable[[], None]
    ) -> None:
        """Have a task of the device's own do something.

        Args:
            function: what it does.
            ended: called at its end at the latest, also if it was cancelled before it began.

        Raises:
            LoopEnded: the device takes no tasks any more.
        """

    def cancel_tasks(self) -> None:
        """Cancel the device's tasks; none can be started any more."""

    async def tasks_ended(self) -> None:
        """Return when they have ended, unless the loop sees to that."""

    def is_cancelled(self) -> bool:
        """Is this task, one of the device's own, cancelled?"""

    async def checkpoint(self) -> None:
        """Let others have their turn; raises if this task is cancelled, or as ``event``."""

    async def heed_cancellation(self) -> None:
        """Raise if this task is cancelled, or as ``event``; else nobody else has a turn."""

    async def sleep(self, seconds: float) -> None:
        """Return later."""

    async def finish(self, awaitable: Awaitable[_T]) -> _T:
        """Wait for something to its end, and be cancelled only then."""


def tell(loop: EventLoop, function: Callable[..., object], *arguments: Any) -> None:  # noqa: ANN401
    """Have a function called in the loop's thread, if there is a loop; from any thread."""
    with contextlib.suppress(LoopEnded):  # else nobody is there to be told
        loop.run_soon(function, *arguments)
