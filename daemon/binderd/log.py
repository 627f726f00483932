# SPDX-License-Identifier: Apache-2.0
"""Where the daemon's log goes, and how much of it.

Nothing here may know what is logged. A log that nobody takes away must not hold up requests: what
the system's log does not take at once is lost.
"""

from __future__ import annotations

import logging
import sys
from logging.handlers import SysLogHandler
from typing import TYPE_CHECKING, Final

from binderd.channel.errors import StartError
from binderwire.describe import describe_reply, describe_request

if TYPE_CHECKING:
    from collections.abc import Callable

SYSLOG: Final = "/dev/log"
SECONDS_BETWEEN_COMPLAINTS: Final = 10.0

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


class Complaints:
    """Counts what goes wrong and says when it may be logged."""

    __slots__ = ("_last", "count")

    def __init__(self) -> None:
        self.count = 0
        self._last = -SECONDS_BETWEEN_COMPLAINTS

    def is_due(self, now: float) -> bool:
        """Count one more; return whether it may be logged at the time ``now`` (seconds)."""
        self.count += 1
        if now - self._last < SECONDS_BETWEEN_COMPLAINTS:
            return False
        self._last = now
        return True


def tracer() -> Callable[[bool, bytes], None] | None:
    """Return what shows each request and reply, None if the level is too high for that."""
    return _trace if _log.isEnabledFor(logging.DEBUG) else None


def _trace(is_request: bool, frame: bytes) -> None:
    _log.debug("%s", describe_request(frame) if is_request else describe_reply(frame))
