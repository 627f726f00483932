# SPDX-License-Identifier: Apache-2.0
"""The service: serves through the first transport that can be had, until a signal ends it.

The parts are built in ``assembly.py`` and run by ``tasks.py``. Here are the order of beginning and
end, the exit status, and the errors that end up as one line on stderr.
"""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from binderd import tasks
from binderd.assembly import Assembly
from binderd.channel.errors import StartError, Unsupported, explain
from binderd.channel.fuse_mount import FSTYPE
from binderd.garbage import Garbage
from binderd.guard import Guard, feed
from binderd.lifecycle import Shutdown
from binderd.linux.sd_notify import notify
from binderd.log import start_log
from binderd.start import (
    check_proc,
    check_rights,
    open_transport,
    raise_descriptor_limit,
    sum_up,
    transports_to_try,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

    from binderd.config import Settings
    from binderd.start import Findings, Transport

_log: Final = logging.getLogger("binderd")

_ENDING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_SIGNALS: Final = (*_ENDING_SIGNALS, signal.SIGHUP, signal.SIGUSR1)
_STATUS_LOST: Final = 3  # another process has unmounted or aborted what is served


def main(settings: Settings, reread: Callable[[], Settings]) -> int:
    """Run in the foreground until it is time to end.

    Args:
        settings: what to serve.
        reread: returns what the configuration says now; raises ConfigError.

    Returns:
        The exit status: 0 after SIGTERM or SIGINT, 3 if somebody else took away what is
        served, 1 if it cannot be served.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # asks for something only once we serve
    try:
        start_log(settings.log_level, settings.log_to)
        check_proc()
        findings = check_rights(settings)
        raise_descriptor_limit()
        with Guard(settings.stall_limit, FSTYPE) as guard:
            return trio.run(
                _serve,
                settings,
                reread,
                guard,
                findings,
                restrict_keyboard_interrupt_to_checkpoints=True,
                strict_exception_groups=True,  # trio 0.22's default is another
            )
    except StartError as error:
        reason = str(error)
    except OSError as error:
        what = f"cannot go on: {error.filename}" if error.filename else "cannot go on"
        reason = explain(error, what)
    with suppress(OSError):  # nobody hears it
        print(f"binderd: {reason}", file=sys.stderr, flush=True)
    return 1


async def _serve(
    settings: Settings, reread: Callable[[], Settings], guard: Guard, findings: Findings
) -> int:
    missing: list[Unsupported] = []
    # Before the mount: a signal must never end us in a way that leaves it behind.
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        for name in transports_to_try(settings.transport):
            try:
                transport = open_transport(settings, name, findings)
                while findings.warnings:
                    _log.warning("%s", findings.warnings.pop(0))
                for reason in missing:
                    _log.info("%s: taking %s", reason, name.upper())
                is_lost = await _serve_through(transport, settings, reread, guard, signals)
            except Unsupported as error:
                missing.append(error)
            except StartError as error:
                raise sum_up(missing, error) from None
            else:
                return _STATUS_LOST if is_lost else 0
    raise sum_up(missing[:-1], missing[-1])


async def _serve_through(
    transport: Transport,
    settings: Settings,
    reread: Callable[[], Settings],
    guard: Guard,
    signals: AsyncIterable[int],
) -> bool:
    """Serve to the end; return whether another process has unmounted or aborted what is served.

    Raises:
        StartError: the kernel and we do not come together.
    """
    service = None
    try:
        service = Service(settings, reread, transport)
        await service.run(signals, guard)
    finally:
        if service is None or service.shutdown.refusal is None:
            notify("STOPPING=1")
        if service is not None:
            service.hide()
        complaint = transport.close()
        if complaint:
            _log.warning("%s", complaint)
        if service is not None:
            service.close()
    if service.shutdown.refusal is not None:
        raise service.shutdown.refusal
    return service.shutdown.is_lost


class Service:
    """The running daemon.

    Args:
        settings: what to serve.
        reread: returns what the configuration says now; raises ConfigError.
        transport: where; their channels are the service's own from now on.
    """

    def __init__(
        self, settings: Settings, reread: Callable[[], Settings], transport: Transport
    ) -> None:
        self.shutdown = Shutdown()
        self._shrinker = tasks.ShrinkerTask()
        self.parts = Assembly(settings, reread, transport, self.shutdown, self._shrinker.due)

    async def run(self, signals: AsyncIterable[int], guard: Guard) -> None:
        """Serve until a signal or an unmount says that it is enough."""
        parts, attempt = self.parts, self.parts.attempt
        with self.shutdown.scope:
            async with trio.open_nursery() as nursery:
                start = nursery.start_soon
                parts.timers.nursery = parts.entrance_timer.nursery = nursery
                start(tasks.handle_signals, signals, parts)
                start(tasks.watch_threads, parts.watch, parts.opener, parts.files, attempt)
                start(parts.helper_tasks.run, parts.delivery.helper)
                start(parts.fetching.run, parts.fetcher)
                start(self._shrinker.run, parts.shrinker, attempt)
                start(guard.keep)
                start(Garbage().run)
                start(feed, parts.pumps.all)
                self._serve_channels(nursery)

    def _serve_channels(self, nursery: trio.Nursery) -> None:
        parts, start, shutdown = self.parts, nursery.start_soon, self.shutdown
        mount = parts.transport.mount
        if mount is not None and parts.pump is not None:
            start(tasks.show_inside, mount, parts.negotiations[parts.pump], parts)
            start(tasks.serve_channel, parts.pump, mount.path, shutdown, mount)
        for node, pump in parts.node_pumps.items():
            start(tasks.place_node, node, parts.negotiations[pump], parts)
            start(tasks.serve_channel, pump, node.path, shutdown)

    def hide(self) -> None:
        """Take away what leads to the devices."""
        if self.parts.links is not None:
            self.parts.links.close()

    def close(self) -> None:
        """Let go of the channels; requests that are still open fail with ECONNABORTED."""
        self.parts.close()
