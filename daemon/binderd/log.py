# SPDX-License-Identifier: Apache-2.0
"""Where the daemon's log goes, and how much of it.

Nothing here may know what is logged. A log that nobody takes away must not hold up requests: what
the system's log does not take at once is lost.
"""

from __future__ import annotations

import logging
import sys
from logging.handlers import SysLogHandler
from typing import Final

from binderd.channel.errors import StartError

SYSLOG: Final = "/dev/log"


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
