# SPDX-License-Identifier: Apache-2.0
"""Ending a stall: the client is killed, and what blocks the daemon is aborted, in steps.

A thread that is blocked in a request cannot die before its answer, and memory that comes from
elsewhere does not come because its reader is dead; so the connection or userfaultfd that holds it
back is ended as well. The first step touches only what is certainly at fault. Connections of other
users come last, and late.

Each line says what was done and succeeded, or what failed and why.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from binderd.linux.proc import OWN
from binderd.watchdog import userfaults
from binderd.watchdog.connections import Connection, abort, connections, mounted_types
from binderd.watchdog.culprit import ROOT, Spared
from binderd.watchdog.system import say, why

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from binderd.watchdog.access import Access
    from binderd.watchdog.culprit import Culprit
    from binderd.watchdog.fault import Fault

_PATIENCE: Final = 0.15  # seconds for a step to help
_BETWEEN_LOOKS: Final = 0.01
# So long may a file system or process of other users, which need not know the client, block us.
_GRACE: Final = 15.0


class Remedies:
    """What is done about one stall.

    Args:
        access: that the daemon is stuck in.
        culprit: the client.
        fault: what keeps the daemon.
        limit: seconds for which it may.
        own_type: what our own file systems are called in /proc/self/mountinfo.
        is_stuck: whether the daemon still is.
    """

    def __init__(
        self,
        access: Access,
        culprit: Culprit,
        fault: Fault,
        limit: float,
        own_type: bytes,
        is_stuck: Callable[[], bool],
    ) -> None:
        self._access = access
        self._culprit = culprit
        self._fault = fault
        self._limit = limit
        self._own_type = own_type
        self._is_stuck = is_stuck
        self._began = time.monotonic()
        self._silent: set[int] | None = None  # connections that have never answered meanwhile
        self._aborted: set[int] = set()

    def run(self) -> None:
        """Go through the steps until one has helped."""
        if not self._kill():
            return
        self._release()
        self._abort(one for one in self._fault.sources if self._is_free_to_go(one))
        if self._goes_on():
            return
        self._abort_waiting()
        if self._goes_on():
            return
        say(f"still waiting for client {self._culprit.pid}, which {self._fault.what}")
        while not self._goes_on():
            self._abort_waiting()
            if time.monotonic() - self._began > _GRACE:
                self._abort_silent()

    def _kill(self) -> bool:
        """Kill the client; False if nothing has to be done any more."""
        error = self._culprit.kill(self._is_stuck)
        if isinstance(error, Spared):
            return False
        pid = self._culprit.pid
        late = f"client {pid} keeps its memory back for more than {self._limit:g} s"
        if not self._access.size:
            late = f"client {pid} {self._fault.what} for more than {self._limit:g} s"
        if error is None:
            say(f"{late}: killed")
        elif isinstance(error, ProcessLookupError):
            say(f"{late}, and has ended itself")
        else:
            say(f"{late}, and cannot be killed: {why(error)}")
        return True

    def _release(self) -> None:
        copy = self._fault.userfaultfd
        if copy < 0:
            return
        error = userfaults.unregister(copy, self._access.start, self._access.size)
        os.close(copy)
        what = f"the userfaultfd that client {self._culprit.pid}'s memory waits for"
        if error is None:
            say(f"{what} has been told to let go of it")
        else:
            say(f"{what} cannot be told to let go of it: {error.strerror}")

    def _is_free_to_go(self, connection: Connection) -> bool:
        """Whether a connection that the memory comes from may be aborted at once.

        What root has mounted for others is no client's, unless that is root's as well.
        """
        return connection.owner != ROOT or self._culprit.has_user(ROOT)

    def _abort_waiting(self) -> None:
        """Abort what the client's users serve and do not answer for.

        That releases memory behind another file system, and the locks of a process that sleeps in
        one. Root's are left alone: too much depends on them.
        """
        waiting = [one for one in self._connections() if one.waiting]
        numbers = {one.number for one in waiting}
        self._silent = numbers if self._silent is None else self._silent & numbers
        self._abort(
            one for one in waiting if one.owner != ROOT and self._culprit.has_user(one.owner)
        )

    def _abort_silent(self) -> None:
        """Abort what has not answered for all that time, of any user but root.

        Of root's only that from which the memory comes for certain.
        """
        sources = {one.number for one in self._fault.sources}
        self._abort(
            one
            for one in self._connections()
            if one.number in sources or (one.owner != ROOT and one.number in (self._silent or ()))
        )

    def _connections(self) -> list[Connection]:
        with suppress(OSError):
            types = mounted_types(OWN)
            return [one for one in connections() if types.get(one.number) != self._own_type]
        return []

    def _abort(self, which: Iterable[Connection]) -> None:
        sources = {one.number for one in self._fault.sources}
        for one in which:
            if one.number in self._aborted:
                continue
            self._aborted.add(one.number)
            error = abort(one.number)
            what = f"FUSE connection {one.number}"
            if one.number in sources:
                what += ", from which that memory comes"
            else:
                what += f" of user {one.owner}, which does not answer"
            say(f"{what}: aborted" if error is None else f"{what}, cannot be aborted: {why(error)}")

    def _goes_on(self) -> bool:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if not self._is_stuck():
                return True
            time.sleep(_BETWEEN_LOOKS)
        return False
