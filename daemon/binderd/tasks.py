# SPDX-License-Identifier: Apache-2.0
"""The tasks that run the parts of the daemon; each is told only what it needs to know.

Requests are served by ``channel/pump.py``; what hears other processes is in ``channel`` as well.
"""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from binderd.channel.errors import StartError
from binderd.channel.fuse_mount import ABORTED
from binderd.channel.submounts import Submounts
from binderd.introspect.fs import serve
from binderd.introspect.tree import PLACES
from binderd.memory.shrinker import TICK_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

    from binderd.assembly import Assembly
    from binderd.channel.cuse_node import CuseNode
    from binderd.channel.fuse_mount import FuseMount
    from binderd.channel.pump import Pump
    from binderd.device.open_files import OpenFiles
    from binderd.lifecycle import Negotiation, Readiness, Shutdown
    from binderd.memory.client import FileOpener
    from binderd.memory.shrinker import Shrinker
    from binderd.memory.thread_watch import ThreadWatch

    Attempt = Callable[[str, Callable[[], None]], None]

_log: Final = logging.getLogger("binderd")


async def handle_signals(signals: AsyncIterable[int], parts: Assembly) -> None:
    """SIGUSR1 shows counts, SIGHUP reads the configuration again, others end the daemon."""
    async for number in signals:
        if number == signal.SIGUSR1:
            with suppress(OSError):  # nobody reads it
                print(parts.counts(), file=sys.stderr, flush=True)
        elif number == signal.SIGHUP:
            parts.reload.run()
        else:
            _log.info("%s: ending", signal.Signals(number).name)
            parts.shutdown.begin()


async def watch_threads(
    watch: ThreadWatch, opener: FileOpener, files: OpenFiles, attempt: Attempt
) -> NoReturn:
    """Tell the engine of client threads that have ended."""
    while True:
        await trio.lowlevel.wait_readable(watch.fileno())
        for file, tid in opener.reap():
            attempt("the end of a thread", partial(files.thread_gone, file, tid))
            await trio.lowlevel.checkpoint()  # any number may end at once


class ShrinkerTask:
    """Has the shrinker tick while it has anything to do; no timer runs otherwise."""

    def __init__(self) -> None:
        self._is_due = trio.Event()

    def due(self) -> None:
        """The shrinker has something to do from now on."""
        self._is_due.set()

    async def run(self, shrinker: Shrinker, attempt: Attempt) -> NoReturn:
        """Wait for ever."""
        while True:
            await self._is_due.wait()
            self._is_due = trio.Event()
            while not shrinker.is_idle:
                await trio.sleep(TICK_SECONDS)
                attempt("looking after receive buffers", shrinker.tick)


async def serve_channel(
    pump: Pump, path: str, shutdown: Shutdown, mount: FuseMount | None = None
) -> None:
    """Serve a channel to its end, with which the daemon ends.

    Args:
        path: of what it serves.
        mount: the file system, if it is that.
    """
    await pump.run()
    if shutdown.refusal is None:
        how = ABORTED if mount is None else mount.how_it_ended()
        _log.error("%s %s by somebody else: ending", path, how)
        shutdown.lose()
    shutdown.begin()


async def place_node(node: CuseNode, negotiation: Negotiation, parts: Assembly) -> None:
    """Set the node's owner and mode, once the kernel has made it."""
    await negotiation.wait()
    try:
        node.place(*parts.settings.access)
    except StartError as error:
        parts.shutdown.refuse(error)
    else:
        parts.readiness.one_is_there()


async def show_inside(mount: FuseMount, negotiation: Negotiation, parts: Assembly) -> None:
    """Show features and binder_logs; then the file system is ready.

    The devices do not need them: where they cannot be shown we say so and go on.
    """
    await negotiation.wait()
    parts.device.try_passthrough()
    readiness = parts.readiness
    if not mount.can_mount_inside:
        readiness.one_is_there()
        return
    try:
        places = Submounts(mount, PLACES)
        await places.mount()
    except (StartError, OSError) as error:
        _go_without(readiness, error)
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, places.fd, parts.logs)
        try:
            await places.spread()
        except OSError as error:
            nursery.cancel_scope.cancel()
            _go_without(readiness, error)
            return
        readiness.one_is_there()
    _log.warning("features and binder_logs are not shown any more")


def _go_without(readiness: Readiness, error: Exception) -> None:
    readiness.one_is_there(f"without features and binder_logs: {error}")
