# SPDX-License-Identifier: Apache-2.0
"""The guard: keeps a watchdog process, and feeds the watchdog of the service manager.

The watchdog is a process of its own (``watchdog/``). It goes when the daemon goes; should it end
before, or hang, it is reaped and another one is started.

Nothing here may know what it looks at.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import trio

from binderd import heartbeat
from binderd.linux import pidfd
from binderd.linux.sd_notify import notify, watchdog_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from binderd.channel.pump import Pump

_log: Final = logging.getLogger("binderd")

_SECONDS_BETWEEN_STARTS: Final = 1.0
_SECONDS_BETWEEN_LOOKS: Final = 10.0  # of ours at the watchdog
_BEATS_PER_TIMEOUT: Final = 3  # so often is the service manager's watchdog fed


class Guard:
    """The watchdog of this process, as long as the block runs.

    Args:
        limit: seconds for which clients of one user may block the daemon; 0: no watchdog.
        own_type: what our own file systems are called in /proc/self/mountinfo.
    """

    def __init__(self, limit: float, own_type: str) -> None:
        self._limit = limit
        self._own_type = own_type
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if self._limit:
            self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Before we end: what we have as standard error is its own as well, and a reader of that
        # takes its end for ours.
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def keep(self) -> None:
        """Start another watchdog whenever the last one has ended or does not look any more."""
        while self._limit:
            if self._process is not None:
                status = await self._await_end(self._process)
                self._process = None
                _log.error("the watchdog has ended (%s): starting another one", _how(status))
            await trio.sleep(_SECONDS_BETWEEN_STARTS)
            self._start()

    async def _await_end(self, process: subprocess.Popen[bytes]) -> int:
        """Return the exit status of a watchdog, which is killed if it hangs."""
        with pidfd.opened_process(process.pid) as end:
            looks = -1
            while True:
                with trio.move_on_after(_SECONDS_BETWEEN_LOOKS) as scope:
                    await trio.lowlevel.wait_readable(end)
                if not scope.cancelled_caught:
                    return process.wait()
                if heartbeat.read(heartbeat.LOOKS) == looks:
                    _log.error("the watchdog does not look any more: killing it")
                    process.kill()
                looks = heartbeat.read(heartbeat.LOOKS)

    def _start(self) -> None:
        command = [sys.executable, "-P", "-m", "binderd.watchdog"]
        command += [str(heartbeat.FD), str(os.getpid()), str(self._limit), self._own_type]
        places = os.pathsep.join(os.path.abspath(place) for place in sys.path)  # as ours
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(heartbeat.FD,),
                env={**os.environ, "PYTHONPATH": places},
            )
        except OSError as error:
            _log.error("no watchdog can be started, so clients can hold us: %s", error)


async def feed(pumps: Sequence[Pump]) -> None:
    """Tell the service manager that requests are being served, as often as it wants to know."""
    seconds = watchdog_seconds()
    while seconds:
        if all(pump.is_alive() for pump in pumps):
            notify("WATCHDOG=1")
        await trio.sleep(seconds / _BEATS_PER_TIMEOUT)


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
