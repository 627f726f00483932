# SPDX-License-Identifier: Apache-2.0
"""Where the daemon's log goes, and how much of it.

Nothing here may know what is logged. A log that is not read must not hold up requests: lines that
the system's log does not take at once are lost.
"""

from __future__ import annotations

import logging
import sys
import time
from logging.handlers import SysLogHandler
from typing import TYPE_CHECKING, Final

from binderd.channel.errors import StartError
from binderwire.describe import describe_reply, describe_request

if TYPE_CHECKING:
    from collections.abc import Callable

SYSLOG: Final = "/dev/log"
_SECONDS_BETWEEN_REPORTS: Final = 10.0

_log: Final = logging.getLogger("binderd")


class _Syslog(SysLogHandler):
    """The system's log, never waited for."""

    ident = "binderd: "

    def createSocket(self) -> None:  # noqa: N802 - the library's name
        super().createSocket()
        self.socket.setblocking(False)  # type: ignore[attr-defined]

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """The log is full, or being restarted: go on without this line."""


def start_log(level: str, place: str) -> None:
    """Send the log somewhere from now on.

    Args:
        level: of LOG_LEVELS.
        place: of LOG_PLACES.

    Raises:
        StartError: there is no such place.
    """
    if place == "syslog":
        try:
            handler: logging.Handler = _Syslog(SYSLOG, SysLogHandler.LOG_DAEMON)
        except OSError as error:
            raise StartError(
                f"cannot log to {SYSLOG} ({error.strerror}): start a system log, or choose stderr "
                "with --log-to"
            ) from None
        logging.basicConfig(handlers=[handler], level=level.upper(), format="%(message)s")
        return
    logging.basicConfig(stream=sys.stderr, level=level.upper(), format="binderd: %(message)s")


def set_log_level(level: str) -> None:
    """Change how much is logged."""
    logging.getLogger().setLevel(level.upper())


class BugReports:
    """Logs bugs of ours, but not each: whatever goes wrong may do so with every request.

    Args:
        clock: returns seconds.
    """

    __slots__ = ("_clock", "_count", "_last")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._count = 0
        self._last = -_SECONDS_BETWEEN_REPORTS

    def report(self, about: str, error: Exception) -> None:
        """Count one more, and log it unless one was a moment ago.

        Args:
            about: what was done.
            error: how it failed.
        """
        self._count += 1
        now = self._clock()
        if now - self._last < _SECONDS_BETWEEN_REPORTS:
            return
        self._last = now
        _log.error(
            "our bug in %s (%d so far, %s)",
            about,
            self._count,
            f"at most one line per {_SECONDS_BETWEEN_REPORTS:.0f} s",
            exc_info=error,
        )


def tracer() -> Callable[[bool, bytes], None] | None:
    """Return what shows each request and reply, None if the level is too high for that."""
    return _trace if _log.isEnabledFor(logging.DEBUG) else None


def _trace(is_request: bool, frame: bytes) -> None:
    _log.debug("%s", describe_request(frame) if is_request else describe_reply(frame))
