# SPDX-License-Identifier: Apache-2.0
"""The assembly: builds the parts of the daemon and connects them; nothing runs yet.

Everything that needs two parts at once is connected here, and nothing else. The tasks that run the
parts are in ``tasks.py``.
"""

from __future__ import annotations

import json
import resource
import time
from functools import partial
from typing import TYPE_CHECKING

from binderd.channel.errors import Unmappable, Unsupported
from binderd.channel.fetching import Fetching
from binderd.channel.helper_tasks import HelperTasks
from binderd.channel.pumps import Pumps
from binderd.descriptors.deliveries import Deliveries
from binderd.device.cuse_device import CuseDevice
from binderd.device.fuse_device import FuseDevice
from binderd.device.lanes import Lanes
from binderd.device.open_files import OpenFiles
from binderd.device.pace import Pace
from binderd.engine.engine import Engine
from binderd.engine.limits import INODES, LOCK_WAITS, WORKERS
from binderd.fetcher.fetcher import Fetcher
from binderd.fuse.cuse import CuseSession
from binderd.fuse.directory import Directory
from binderd.fuse.entrance import Entrance
from binderd.fuse.pages import Choice
from binderd.fuse.session import NOT_MAPPABLE, Session
from binderd.fuse.tree import Tree
from binderd.fuse.turns import Turns
from binderd.heartbeat import beat
from binderd.introspect.fs import LogFiles
from binderd.introspect.inside import Inside
from binderd.introspect.tree import LogTree
from binderd.lifecycle import Negotiation, Readiness
from binderd.links import Links
from binderd.log import BugReports, set_log_level, tracer
from binderd.memory.client import FileOpener
from binderd.memory.shrinker import Shrinker
from binderd.memory.thread_watch import ThreadWatch
from binderd.reload import Reload
from binderd.start import limits_for
from binderd.timers import Timers
from binderwire.fuse_abi import OPCODES

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.channel.cuse_node import CuseNode
    from binderd.channel.errors import StartError
    from binderd.channel.fuse_mount import FuseMount
    from binderd.channel.pump import Pump
    from binderd.config import Settings
    from binderd.lifecycle import Shutdown
    from binderd.start import Transport


class Assembly:
    """The parts of the daemon.

    Args:
        settings: what to serve.
        reread: returns what the configuration says now; raises ConfigError.
        transport: where; their channels are the assembly's own from now on.
        shutdown: of the daemon.
        shrinker_due: called when the shrinker must tick from then on.
    """

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        transport: Transport,
        shutdown: Shutdown,
        shrinker_due: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.transport = transport
        self.bugs = BugReports()
        self.shutdown = shutdown
        self.engine = Engine(limits_for(settings.limits), clock=time.monotonic_ns)
        self.turns = Turns(time.monotonic_ns, time.thread_time_ns)
        self.timers = Timers(self._expire)
        self.entrance_timer = Timers(self._expire_entrance)
        self.helper_tasks = HelperTasks(self.attempt)
        self.fetching = Fetching(self.attempt)
        listeners = [self.helper_tasks.listener, self.fetching.listener]
        self.pumps = Pumps(self.turns, settings.spin_ns, listeners, self._reply_failed)
        self.watch = ThreadWatch()
        self.shrinker = Shrinker(shrinker_due, lambda file: self.files.unmapped(file))
        self.fetcher = self._make_fetcher()
        self.delivery = self._make_delivery()
        self.opener = FileOpener(
            transport.mount,
            self.shrinker,
            self.watch,
            self.delivery,
            settings.security_context,
            self.fetcher,
            offers_lanes=settings.has_lanes,
        )
        self.directory = self._make_directory()
        self.files = self._make_files()
        self.entrance = Entrance(time.monotonic_ns, partial(self.entrance_timer.start, 0))
        self.delivery.reports = self.fetcher.reports = self.files
        mount = transport.mount
        self.links = Links(settings.symlinks, mount.path) if mount is not None else None
        self.reload = Reload(
            settings,
            reread,
            self.directory,
            self.links,
            self.engine,
            self.turns,
            self._set_log_level,
        )
        pending = len(transport.nodes) + (mount is not None)
        self.readiness = Readiness(pending, self._where, self._show_links)
        self.negotiations: dict[Pump, Negotiation] = {}
        self.node_pumps: dict[CuseNode, Pump] = {}
        self._connect_mount(mount)
        for name, node in zip(settings.devices, transport.nodes, strict=False):
            self._connect_node(name, node)
        self.pumps.trace_with(tracer())

    def attempt(self, about: str, step: Callable[[], None]) -> None:
        """Do something that is no request; report it if it fails, write what it has ended.

        Args:
            about: what is done.
        """
        try:
            step()
        except Exception as error:
            self.bugs.report(about, error)
        self.files.write_replies()

    def counts(self) -> str:
        """Return how much of everything there is, as JSON."""
        allocated = sum(arena.allocated_bytes() for arena in self.opener.arenas())
        counts = {
            **self.engine.counts(),
            "opens": len(self.files),
            "pages": allocated // resource.getpagesize(),
        }
        return json.dumps(counts)

    def close(self) -> None:
        """Let go of everything; requests that are still open fail with ECONNABORTED."""
        self.pumps.close()
        self.watch.close()
        self.delivery.close()
        self.fetcher.close()

    # Parts

    def _make_fetcher(self) -> Fetcher:
        worker = partial(self.engine.charge, kind=WORKERS)
        listener, limit = self.fetching.listener, self.settings.stall_limit
        fetcher = Fetcher(listener.move, self.fetching.wake, worker, limit)
        self.fetching.serve(fetcher)
        return fetcher

    def _make_delivery(self) -> Deliveries:
        delivery = Deliveries(
            self.helper_tasks.listener.move,
            self.helper_tasks.blocked,
            self.watch,
            self.engine.limits.attachments_per_process,
            injects=self.settings.injects,
        )
        self.helper_tasks.serve(delivery.helper)
        return delivery

    def _make_directory(self) -> Directory:
        settings, forget = self.settings, self.engine.forget_context
        return Directory(
            settings.devices, settings.max_devices, forget, settings.access, settings.host
        )

    def _make_files(self) -> OpenFiles:
        return OpenFiles(
            self.engine,
            self.directory,
            self.opener,
            self.turns,
            Pace(time.monotonic_ns),
            self.timers.start,
            self.pumps.wake,
            self.bugs.report,
        )

    def _connect_mount(self, mount: FuseMount | None) -> None:
        """Serve the file system; its connection is the first also where there is none."""
        settings, now = self.settings, int(time.time())
        charge = partial(self.opener.charge, self.engine)
        choice = Choice(time.monotonic_ns)
        tree = Tree(self.directory, choice, now, partial(charge, INODES))
        logs = LogTree(self.engine, resource.getpagesize())
        payer, access = self.opener.payer, settings.logs_access
        self.logs = LogFiles(logs, now, self._request_failed, payer, access)
        inside = None
        if mount is not None and not mount.can_mount_inside:
            inside = Inside(logs, now, payer, access, settings.host)
        self.device = FuseDevice(self.files, tree, self.directory, self.opener, self.entrance)
        is_offered = settings.has_lanes
        lanes = Lanes(self.files, self.turns, beat, self.bugs.report, is_offered=is_offered)
        self.pumps.look_at(lanes)
        negotiation = Negotiation(self.shutdown, _no_mount, self._see_passthrough)
        self.session = Session(
            tree,
            self.device,
            negotiation.ended,
            self._handler_failed,
            self.turns,
            has_passthrough=settings.passthrough,
            needs_passthrough=self.transport.needs_passthrough,
            charge_wait=partial(charge, LOCK_WAITS),
            inside=inside,
        )
        self.pump: Pump | None = None
        if mount is not None:
            self.pump = self.pumps.add(mount.fd, self.session)
            self.device.written_by(self.pump.flush)
            self.negotiations[self.pump] = negotiation

    def _connect_node(self, name: str, node: CuseNode) -> None:
        """Serve a character device."""
        listed = self.directory.find(name.encode())
        assert listed is not None
        self.directory.opened(listed)  # it keeps its context as long as the node leads to it
        device = CuseDevice(self.files, listed.context)
        negotiation = Negotiation(self.shutdown, Unsupported)
        session = CuseSession(
            node.name, device, negotiation.ended, self._handler_failed, self.turns
        )
        pump = self.pumps.add(node.fd, session)
        device.written_by(pump.flush)
        self.negotiations[pump] = negotiation
        self.node_pumps[node] = pump

    # What the parts tell each other

    def _see_passthrough(self) -> None:
        if not self.session.has_passthrough:
            self.device.lack_passthrough()

    def _expire(self, timer: int) -> None:
        self.attempt("a time limit", partial(self.files.expire, timer))

    def _expire_entrance(self, timer: int) -> None:
        self.attempt("opens that wait", self.entrance.expire)

    def _set_log_level(self, level: str) -> None:
        set_log_level(level)
        self.pumps.trace_with(tracer())

    def _show_links(self) -> list[str]:
        return self.links.update(self.reload.settings.devices) if self.links is not None else []

    def _where(self) -> str:
        """Return what is served, as people write paths."""
        prefixes = [f"/dev/{self.settings.device_prefix}"] if self.transport.nodes else []
        if self.transport.mount is not None:
            prefixes.insert(0, f"{self.transport.mount.path}/")
        names = ",".join(self.reload.settings.devices)
        names = f"{{{names}}}" if "," in names else names
        return " and ".join(f"{prefix}{names}" for prefix in prefixes)

    def _handler_failed(self, opcode: int, error: Exception) -> None:
        self._request_failed(OPCODES.get(opcode, f"opcode {opcode}"), error)

    def _reply_failed(self, error: OSError) -> None:
        self.bugs.report("a reply that the kernel does not take, so its client has none", error)

    def _request_failed(self, name: str, error: Exception) -> None:
        self.bugs.report(f"{name}, to be answered with EIO if at all", error)


def _no_mount(refusal: str) -> StartError:
    return Unmappable(refusal) if refusal in NOT_MAPPABLE else Unsupported(refusal)
