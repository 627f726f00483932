# SPDX-License-Identifier: Apache-2.0
"""The watchdog's loop: looks at the daemon, and charges what it sees to users.

What counts is time, not one long call: a client may answer just in time, and again and again. Each
look that finds the daemon asleep in a client adds the time between two looks to what the client's
user owes; a little is forgiven with time. A user that has stalled the daemon before begins with a
debt.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Final, NoReturn

from binderd.heartbeat import BEATS, LOOKS, STALLER, STALLS, SUBJECT
from binderd.linux import prctl, proc
from binderd.watchdog import fault
from binderd.watchdog.access import Access, current_access, current_call
from binderd.watchdog.ask import reap
from binderd.watchdog.culprit import Culprit
from binderd.watchdog.remedies import Remedies
from binderd.watchdog.system import say

_LOOK_SECONDS: Final = 0.1
_LOOKS_PER_LIMIT: Final = 4  # at least
_FORGIVEN: Final = 0.02  # of each second
_REMEMBERED: Final = 0.75  # of the limit: what a user owes from then on that has stalled the daemon
_IDLE_LOOKS: Final = 3  # so often must it be seen to have gone on without a new request
_SECONDS_BETWEEN_WORDS: Final = 60.0
_NICE: Final = -20


def main() -> NoReturn:
    """Watch: arguments are the heartbeat's descriptor, the daemon, the limit, the type of mount."""
    heartbeat, daemon, limit, own_type = sys.argv[1:]
    prctl.die_with_parent()
    prctl.set_name("binderd-watch")
    # The daemon's business; we go when it does.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # without CAP_SYS_NICE we come as late as others
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    cells = memoryview(mmap.mmap(int(heartbeat), mmap.PAGESIZE)).cast("q")
    os.close(int(heartbeat))
    watch = Watch(int(daemon), float(limit), os.fsencode(own_type), cells)
    while os.getppid() == int(daemon):
        time.sleep(watch.period)
        watch.look()
    sys.exit(1)


class Watch:
    """What is known of the daemon from looking at it.

    Args:
        daemon: its process.
        limit: seconds that a user's clients may hold it.
        own_type: what our own file systems are called in /proc/self/mountinfo.
        cells: its heartbeat.
    """

    def __init__(self, daemon: int, limit: float, own_type: bytes, cells: memoryview[int]) -> None:
        self.period = min(_LOOK_SECONDS, limit / _LOOKS_PER_LIMIT)  # seconds between looks
        self._daemon = daemon
        self._limit = limit
        self._own_type = own_type
        self._cells = cells
        self._debts: dict[int, float] = {}  # user -> seconds
        self._said = -_SECONDS_BETWEEN_WORDS  # the latest line about no client's fault

    def look(self) -> None:
        """Look once; end a stall that lasts too long."""
        self._cells[LOOKS] += 1
        reap()
        self._forgive()
        self._look_at(self._daemon)
        for helper in self._helpers():
            self._look_at(helper)

    def _helpers(self) -> list[int]:
        """Return the processes that work for the daemon; they reach into clients as well."""
        with suppress(OSError):
            children = proc.children_of(self._daemon)
            return [child for child in children if child != os.getpid()]
        return []

    def _look_at(self, pid: int) -> None:
        moment = self._moment(pid)
        access = self._access(pid)
        if access is None or moment is None:
            return
        # What a helper reaches into has a request open, as long as it does.
        subject = (self._cells[SUBJECT] if pid == self._daemon else 0) or -access.tid
        if not subject:
            self._say_of_the_blameless("nobody knows whom we wait for")
            return
        try:
            culprit = Culprit(self._daemon, subject)
        except OSError:
            return  # it has gone on meanwhile
        try:
            if self._moment(pid) == moment:  # so the number has been its own
                self._charge(pid, access, culprit, subject)
        finally:
            culprit.close()

    def _moment(self, pid: int) -> object:
        """Return what stays the same as long as a process is at the same client."""
        if pid == self._daemon:
            return self._cells[BEATS], self._cells[SUBJECT]
        return current_call(pid)

    def _access(self, pid: int) -> Access | None:
        with suppress(OSError):
            return current_access(pid)
        return None

    def _forgive(self) -> None:
        for user, debt in list(self._debts.items()):
            self._debts[user] = debt - self.period * _FORGIVEN
            if self._debts[user] <= 0:
                del self._debts[user]

    def _charge(self, pid: int, access: Access, culprit: Culprit, subject: int) -> None:
        moment = self._moment(pid)
        user = culprit.user
        self._debts[user] = self._debts.get(user, 0.0) + self.period
        # Looks are a period apart, and what they find began at most one before the first.
        if self._debts[user] < self._limit:
            return
        cause = fault.find(pid, access, culprit, self._own_type)
        if not cause.is_clients:
            del self._debts[user]
            self._say_of_the_blameless(f"client {culprit.pid} {cause.what}")
            return
        if pid == self._daemon:
            self._cells[STALLER] = subject
            self._cells[STALLS] += 1
        idle = 0

        def is_stuck() -> bool:
            nonlocal idle
            self._cells[LOOKS] += 1
            reap()
            idle = idle + 1 if self._access(pid) is None else 0
            return self._moment(pid) == moment and idle < _IDLE_LOOKS

        Remedies(access, culprit, cause, self._limit, self._own_type, is_stuck).run()
        self._debts[user] = self._limit * _REMEMBERED

    def _say_of_the_blameless(self, what: str) -> None:
        if time.monotonic() - self._said >= _SECONDS_BETWEEN_WORDS:
            self._said = time.monotonic()
            say(f"everybody waits, and nobody is killed for it: {what}")
