# SPDX-License-Identifier: Apache-2.0
"""The composition root: builds the parts, connects them, runs them until a signal ends it.

Everything that needs two parts of the daemon at once is here, and nothing else: the tasks, the
signals, the readiness, the errors that end up as one line on stderr.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from binderd import compilation
from binderd.channel.blocking import in_thread
from binderd.channel.errors import StartError, Unmappable, Unsupported, explain
from binderd.channel.fetching import Fetching
from binderd.channel.fuse_mount import FSTYPE
from binderd.channel.kernel_fd import KernelFd
from binderd.channel.pump import Pump
from binderd.channel.submounts import Submounts
from binderd.descriptors.delivery import DescriptorDelivery
from binderd.device.cuse_device import CuseDevice
from binderd.device.fuse_device import FuseDevice
from binderd.device.open_files import OpenFiles
from binderd.device.pace import Pace
from binderd.engine.engine import Engine
from binderd.engine.kinds import INODES, LOCK_WAITS, WORKERS
from binderd.fetcher.fetcher import Fetcher
from binderd.fuse.cuse import CuseSession
from binderd.fuse.directory import Directory
from binderd.fuse.session import NOT_MAPPABLE, READ_BUFFER_SIZE, Session
from binderd.fuse.tree import Tree
from binderd.fuse.turns import Turns
from binderd.garbage import Garbage
from binderd.guard import Guard, feed
from binderd.introspect.fs import LogFiles, serve
from binderd.introspect.tree import PLACES, LogTree
from binderd.links import Links
from binderd.log import SECONDS_BETWEEN_COMPLAINTS, Complaints, set_log_level, start_log, tracer
from binderd.memory.client import FileOpener
from binderd.memory.thread_watch import ThreadWatch
from binderd.memory.upkeep import TICK_SECONDS, Upkeep
from binderd.notify import notify
from binderd.reload import Reload
from binderd.start import (
    check_proc,
    check_rights,
    limits_for,
    open_doors,
    raise_descriptor_limit,
    sum_up,
    transports_to_try,
)
from binderwire.fuse_abi import OPCODES

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

    from binderd.channel.cuse_node import CuseNode
    from binderd.channel.fuse_mount import FuseMount
    from binderd.config import Settings
    from binderd.engine.process import Process
    from binderd.fuse.server import Server
    from binderd.start import Doors, Findings

_log: Final = logging.getLogger("binderd")

_ENDING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_SIGNALS: Final = (*_ENDING_SIGNALS, signal.SIGHUP, signal.SIGUSR1)
_STATUS_LOST: Final = 3  # somebody else took away what we serve
_FEEDING_PAUSE: Final = 0.001  # seconds; a socket with room may still lack something else


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
        for transport in transports_to_try(settings.transport):
            try:
                doors = open_doors(settings, transport, findings)
                while findings.warnings:
                    _log.warning("%s", findings.warnings.pop(0))
                for reason in missing:
                    _log.info("%s: taking %s", reason, transport.upper())
                is_lost = await _serve_through(doors, settings, reread, guard, signals)
            except Unsupported as error:
                missing.append(error)
            except StartError as error:
                raise sum_up(missing, error) from None
            else:
                return _STATUS_LOST if is_lost else 0
    raise sum_up(missing[:-1], missing[-1])


async def _serve_through(
    doors: Doors,
    settings: Settings,
    reread: Callable[[], Settings],
    guard: Guard,
    signals: AsyncIterable[int],
) -> bool:
    """Serve to the end; return whether that is because somebody took away what we serve.

    Raises:
        StartError: the kernel and we do not come together.
    """
    service = None
    try:
        service = Service(settings, reread, doors)
        await service.run(signals, guard)
    finally:
        if service is None or service.refusal is None:
            notify("STOPPING=1")
        if service is not None:
            service.hide()
        complaint = doors.close()
        if complaint:
            _log.warning("%s", complaint)
        if service is not None:
            service.close()
    if service.refusal is not None:
        raise service.refusal
    return service.is_lost


class Service:
    """The running daemon.

    Args:
        settings: what to serve.
        reread: returns what the configuration says now; raises ConfigError.
        doors: where; their channels are the service's own from now on.
    """

    def __init__(self, settings: Settings, reread: Callable[[], Settings], doors: Doors) -> None:
        self._settings = settings
        self._mount = mount = doors.mount
        self._nodes = doors.nodes
        self._engine = Engine(limits_for(settings.limits), clock=time.monotonic_ns)
        self._watch = ThreadWatch()
        self._helper_moved = trio.Event()
        self._upkeep_due = trio.Event()
        self._upkeep = Upkeep(self._wake_upkeep, self._unmapped)
        self._channels: list[KernelFd] = []
        self._pumps: list[Pump] = []
        self._helper_is_behind = trio.Event()
        self._delivery = DescriptorDelivery(
            self._heed_helper_at,
            self._feed_soon,
            self._watch,
            self._engine.limits.attachments_per_process,
            injects=settings.injects,
        )
        self._fetching = fetching = Fetching(self._flush, self._complain, self._channels)
        worker = partial(self._engine.users.charge, kind=WORKERS)
        self._fetcher = Fetcher(fetching.move, fetching.wake, worker, settings.stall_limit)
        self._opener = FileOpener(
            mount,
            self._upkeep,
            self._watch,
            self._delivery,
            settings.security_context,
            self._fetcher,
        )
        now, forget, access = int(time.time()), self._engine.forget_context, settings.access
        directory = Directory(settings.devices, settings.max_devices, forget, access, settings.host)
        self._links = Links(settings.symlinks, mount.path) if mount is not None else None
        self._turns = Turns(time.monotonic_ns, time.thread_time_ns)
        links, engine, turns = self._links, self._engine, self._turns
        self._reload = Reload(
            settings, reread, directory, links, engine, turns, self._set_log_level
        )
        charge = partial(self._opener.charge, self._engine.users)
        self._tree = Tree(directory, now, partial(charge, INODES))
        self._files = self._make_files(directory)
        self._device = FuseDevice(self._files, self._tree, directory, self._opener)
        self._delivery.reports = self._fetcher.reports = self._files
        self._logs = self._make_logs(now)
        self._session = Session(
            self._tree,
            self._device,
            self._negotiated,
            self._handler_failed,
            self._turns,
            has_passthrough=settings.passthrough,
            needs_passthrough=doors.needs_passthrough,
            charge_wait=partial(charge, LOCK_WAITS),
        )
        self._pump: Pump | None = None
        if mount is not None:
            self._pump = self._make_pump(mount.fd, self._session)
            self._device.written_by(self._pump.flush)
        self._node_pumps: dict[CuseNode, Pump] = {}
        for name, node in zip(settings.devices, self._nodes, strict=False):
            self._node_pumps[node] = self._make_node_pump(directory, name, node)
        self._end = trio.CancelScope()
        self._nursery: trio.Nursery | None = None  # while it runs
        self._timers: dict[int, trio.CancelScope] = {}  # those that run
        self._complaints = Complaints()
        self._is_agreed = trio.Event()  # have the kernel and we agreed on the protocol?
        self._closed_doors = len(self._nodes) + (mount is not None)  # those not open yet
        self._restrictions: list[str] = []
        self.refusal: StartError | None = None  # why does it not come about?
        self.is_lost = False  # did somebody else take away what we serve?

    async def run(self, signals: AsyncIterable[int], guard: Guard) -> None:
        """Serve until a signal or an unmount says that it is enough."""
        with self._end:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._heed_signals, signals)
                nursery.start_soon(self._heed_threads)
                nursery.start_soon(self._heed_helper)
                nursery.start_soon(self._feed_helper)
                nursery.start_soon(self._do_upkeep)
                nursery.start_soon(self._fetching.run, self._fetcher)
                nursery.start_soon(guard.keep)
                nursery.start_soon(Garbage().run)
                nursery.start_soon(feed, self._pumps)
                if self._mount is not None and self._pump is not None:
                    nursery.start_soon(self._show_inside, self._mount)
                    nursery.start_soon(self._serve_door, self._pump, self._mount.path)
                for node, pump in self._node_pumps.items():
                    nursery.start_soon(self._serve_door, pump, node.path)

    def hide(self) -> None:
        """Take away what leads to the devices."""
        if self._links is not None:
            self._links.close()

    def close(self) -> None:
        """Let go of the channels; whoever is still blocked in a request gets ECONNABORTED."""
        for channel in self._channels:
            channel.close()
        self._watch.close()
        self._delivery.close()
        self._fetcher.close()

    # Channels

    def _make_pump(self, fd: int, server: Server) -> Pump:
        channel = KernelFd(fd, READ_BUFFER_SIZE, self._settings.spin_ns)
        for other in self._channels:
            channel.meet(other)
            other.meet(channel)
        channel.accompany(self._delivery.helper.fileno(), self._hear_helper)
        channel.accompany(self._fetcher.fileno(), self._fetching.hear)
        self._channels.append(channel)
        pump = Pump(channel, server, self._turns, self._reply_failed, tracer())
        server.written_by(pump.flush)
        self._pumps.append(pump)
        return pump

    def _make_files(self, directory: Directory) -> OpenFiles:
        return OpenFiles(
            self._engine,
            directory,
            self._opener,
            self._turns,
            Pace(time.monotonic_ns),
            self._start_timer,
            self._wake_pumps,
            self._complain,
        )

    def _make_logs(self, now: int) -> LogFiles:
        tree = LogTree(self._engine, resource.getpagesize())
        payer, access = self._opener.payer, self._settings.logs_access
        return LogFiles(tree, now, self._request_failed, payer, access)

    def _make_node_pump(self, directory: Directory, name: str, node: CuseNode) -> Pump:
        listed = directory.find(name.encode())
        assert listed is not None
        directory.opened(listed)  # it keeps its context as long as the node leads to it
        device = CuseDevice(self._files, listed.context)
        settle = partial(self._node_negotiated, node)
        session = CuseSession(node.name, device, settle, self._handler_failed, self._turns)
        pump = self._make_pump(node.fd, session)
        device.written_by(pump.flush)
        return pump

    def _flush(self) -> None:
        """Write what is due, wherever that is."""
        self._files.deliver()

    def _wake_pumps(self) -> None:
        for pump in self._pumps:
            pump.wake()

    # Tasks

    async def _serve_door(self, pump: Pump, path: str) -> None:
        await pump.run()
        if self.refusal is None:
            self.is_lost = True
            _log.error("%s %s by somebody else: ending", path, self._how_it_ended(pump))
        self._end.cancel()

    def _how_it_ended(self, pump: Pump) -> str:
        """Say what has become of a channel, as far as it can be known."""
        try:
            if pump is self._pump and self._mount is not None and not self._mount.is_mounted():
                return "was unmounted"
        except OSError:
            return "was unmounted, or its connection aborted,"
        return "lost its connection, which was aborted"

    async def _place(self, node: CuseNode) -> None:
        """Give the node to whom it should belong, once the kernel has made it."""
        await trio.lowlevel.checkpoint()  # until then the answer to CUSE_INIT has been written
        try:
            node.place(*self._settings.access)
        except StartError as error:
            self._refuse(error)
        else:
            self._door_is_open()

    async def _heed_signals(self, signals: AsyncIterable[int]) -> None:
        async for number in signals:
            if number == signal.SIGUSR1:
                with suppress(OSError):  # nobody reads it
                    print(self._counts(), file=sys.stderr, flush=True)
            elif number == signal.SIGHUP:
                self._reload.run()
            else:
                _log.info("%s: ending", signal.Signals(number).name)
                self._end.cancel()

    async def _heed_threads(self) -> None:
        """Tell the engine of client threads that have ended."""
        while True:
            await trio.lowlevel.wait_readable(self._watch.fileno())
            for process, tid in self._opener.reap():
                try:
                    self._files.thread_gone(process, tid)
                except Exception as error:
                    self._complain("the end of a thread", error)
                self._flush()
                await trio.lowlevel.checkpoint()  # any number may end at once

    async def _heed_helper(self) -> None:
        """Hear how installations go on; the pump does so as well while it lingers."""
        while True:
            fd = self._delivery.helper.fileno()
            if fd < 0:
                await self._helper_moved.wait()
                self._helper_moved = trio.Event()
                continue
            try:
                await trio.lowlevel.wait_readable(fd)
            except trio.ClosedResourceError:
                continue
            self._hear_helper()

    async def _feed_helper(self) -> None:
        """Send on, as the helper takes it, what its socket did not take at once."""
        while True:
            await self._helper_is_behind.wait()
            self._helper_is_behind = trio.Event()
            while self._delivery.helper.is_waiting:
                try:
                    await trio.lowlevel.wait_writable(self._delivery.helper.fileno())
                except trio.ClosedResourceError:
                    continue
                try:
                    self._delivery.helper.go_on()
                except Exception as error:
                    self._complain("an installation", error)
                self._flush()
                await trio.sleep(_FEEDING_PAUSE)

    async def _do_upkeep(self) -> None:
        """Tick while there is something to look after; no timer runs otherwise."""
        while True:
            await self._upkeep_due.wait()
            self._upkeep_due = trio.Event()
            while not self._upkeep.is_idle:
                await trio.sleep(TICK_SECONDS)
                try:
                    self._upkeep.tick()
                except Exception as error:
                    self._complain("looking after receive buffers", error)
                self._flush()

    async def _show_inside(self, mount: FuseMount) -> None:
        """Show features and binder_logs; then the file system is ready.

        The devices do not need them: where they cannot be shown we say so and go on.
        """
        await self._is_agreed.wait()
        self._device.try_passthrough()
        try:
            places = Submounts(mount, PLACES)
            await in_thread(places.mount)
        except (StartError, OSError) as error:
            self._door_is_open(f"without features and binder_logs: {error}")
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, places.fd, self._logs)
            try:
                await in_thread(places.spread)
            except OSError as error:
                nursery.cancel_scope.cancel()
                self._door_is_open(f"without features and binder_logs: {error}")
                return
            self._door_is_open()
        _log.warning("features and binder_logs are not shown any more")

    def _door_is_open(self, restriction: str = "") -> None:
        """One more is; say so when all are."""
        if restriction:
            self._restrictions.append(restriction)
        self._closed_doors -= 1
        if self._closed_doors:
            return
        if self._links is not None:
            self._restrictions += self._links.update(self._reload.settings.devices)
        _log.info("ready: %s", self._where)
        for line in self._restrictions:
            _log.warning("%s", line)
        _log.info("request path: %s", compilation.describe())
        notify("READY=1", f"STATUS=Serving {self._where}")

    def _set_log_level(self, level: str) -> None:
        set_log_level(level)
        for pump in self._pumps:
            pump.trace = tracer()

    async def _expire(self, timer: int, milliseconds: int, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(milliseconds / 1000)
        if self._timers.pop(timer, None) is None:
            return  # was stopped
        self._files.expire(timer)
        self._flush()

    # What the parts report

    def _start_timer(self, timer: int, milliseconds: int) -> None:
        """A client's request has a time limit (BINDER_FREEZE), or needs it no longer.

        Rare enough for a task; but that must not outlive the request, or clients could pile up any
        number of them.
        """
        if milliseconds < 0:
            self._timers.pop(timer).cancel()
            return
        assert self._nursery is not None
        scope = self._timers[timer] = trio.CancelScope()
        self._nursery.start_soon(self._expire, timer, milliseconds, scope)

    def _heed_helper_at(self, fd: int) -> None:
        """The helper is at the other end of this descriptor now; -1: no longer of the last one."""
        for channel in self._channels:
            channel.accompany(fd, self._hear_helper)
        if fd < 0:
            trio.lowlevel.notify_closing(self._delivery.helper.fileno())
        else:
            self._helper_moved.set()

    def _hear_helper(self) -> None:
        try:
            self._delivery.helper.receive()
        except Exception as error:
            self._complain("an installation", error)
        self._flush()

    def _feed_soon(self) -> None:
        self._helper_is_behind.set()

    def _wake_upkeep(self) -> None:
        self._upkeep_due.set()

    def _unmapped(self, process: Process) -> None:
        self._files.unmapped(process)

    def _negotiated(self, refusal: str | None) -> None:
        if refusal is not None:
            kind = Unmappable if refusal in NOT_MAPPABLE else Unsupported
            self._refuse(kind(refusal))
            return
        if not self._session.has_passthrough:
            self._device.lack_passthrough()
        self._is_agreed.set()

    def _node_negotiated(self, node: CuseNode, refusal: str | None) -> None:
        if refusal is not None:
            self._refuse(Unsupported(refusal))
            return
        assert self._nursery is not None
        self._nursery.start_soon(self._place, node)

    def _refuse(self, reason: StartError) -> None:
        self.refusal = reason
        self._end.cancel()

    def _handler_failed(self, opcode: int, error: Exception) -> None:
        self._request_failed(OPCODES.get(opcode, f"opcode {opcode}"), error)

    def _reply_failed(self, error: OSError) -> None:
        self._complain("a reply that the kernel does not take, so its client has none", error)

    def _request_failed(self, name: str, error: Exception) -> None:
        self._complain(f"{name}, to be answered with EIO if at all", error)

    def _complain(self, about: str, error: Exception) -> None:
        if self._complaints.is_due(time.monotonic()):
            _log.error(
                "our bug in %s (%d so far, %s)",
                about,
                self._complaints.count,
                f"at most one line per {SECONDS_BETWEEN_COMPLAINTS:.0f} s",
                exc_info=error,
            )

    @property
    def _where(self) -> str:
        prefixes = [f"/dev/{self._settings.device_prefix}"] if self._nodes else []
        if self._mount is not None:
            prefixes.insert(0, f"{self._mount.path}/")
        names = ",".join(self._reload.settings.devices)
        names = f"{{{names}}}" if "," in names else names
        return " and ".join(f"{prefix}{names}" for prefix in prefixes)

    def _counts(self) -> str:
        allocated = sum(arena.allocated_bytes() for arena in self._opener.arenas())
        counts = {
            **self._engine.counts(),
            "opens": len(self._files),
            "pages": allocated // resource.getpagesize(),
        }
        return json.dumps(counts)
