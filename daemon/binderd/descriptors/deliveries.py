# SPDX-License-Identifier: Apache-2.0
"""Descriptor delivery as a whole: what all open files share, and what hears the helper process.

The way to one process is chosen in ``delivery.py``. Nothing here may know requests or trio.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from binderd.closer import Closer
from binderd.descriptors.delivery import Delivery
from binderd.descriptors.disposer import FileDisposer
from binderd.descriptors.helper_process import HelperProcess
from binderd.descriptors.in_flight import InFlight
from binderd.descriptors.injector import Injector
from binderd.injector import messages
from binderd.linux.proc import place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.descriptors.injector import Reports
    from binderd.memory.client import FileClient
    from binderd.memory.thread_watch import ThreadWatch


class Deliveries:
    """What all open files share of descriptor delivery (the port ``Deliveries``).

    Args:
        moved, blocked: as of ``HelperProcess``.
        watch: tells of the end of processes that have attached, and when ``look`` is due.
        attachments_max: how many processes may attach a socket to one open file.
        injects: may the helper stop clients?

    ``reports`` must be set before anything is delivered.
    """

    def __init__(
        self,
        moved: Callable[[int], None],
        blocked: Callable[[], None],
        watch: ThreadWatch,
        attachments_max: int,
        *,
        injects: bool = True,
    ) -> None:
        self.watch = watch
        self.attachments_max = attachments_max
        self.in_flight = InFlight()
        closer = Closer()
        self.helper = HelperProcess(moved, blocked, closer)
        self.helper.owner = self
        self.disposer = FileDisposer(self.helper, closer)
        self.injector = Injector(self.helper, injects=injects)
        watch.register(self.in_flight.fileno())
        watch.register(self.disposer.fileno())

    @property
    def reports(self) -> Reports | None:
        """What is told how jobs of the helper go on."""
        return self.injector.reports

    @reports.setter
    def reports(self, reports: Reports | None) -> None:
        self.injector.reports = reports

    def of(self, client: FileClient) -> Delivery:
        """Return the ways to the processes that use an open file."""
        return Delivery(self, client)

    def is_own(self, tid: int) -> bool:
        """Whether a thread is of the daemon, or of its helper."""
        pids = [os.getpid(), self.helper.pid]
        return any(pid and os.path.exists(f"{place_of(pid)}/task/{tid}") for pid in pids)

    def look(self) -> None:
        """See what was taken from sockets, and what was closed."""
        self.in_flight.look()
        self.disposer.settle()

    def received(self, message: bytes) -> None:
        """The helper reports something."""
        kind, number, error = messages.report.unpack_from(message)
        if kind == messages.CLOSED:
            self.disposer.closed_there(number)
        elif kind == messages.SEIZED:
            self.injector.thread_stopped(number)
        else:
            numbers = messages.unpack_numbers(message, messages.report.size)
            self.injector.ended(number, None if error else numbers)

    def lost(self) -> None:
        """The helper has ended."""
        self.disposer.helper_is_lost()
        self.injector.helper_is_lost()

    def close(self) -> None:
        """Let the helper go, and tell of nothing any more."""
        self.in_flight.close()
        self.helper.close()
        self.disposer.close()
