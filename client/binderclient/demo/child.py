# SPDX-License-Identifier: Apache-2.0
"""What the demo's server and client processes have in common: how they report, and end.

Reports go out as lines of JSON on stdout; the end of stdin means that it is time to stop, which
also happens when the demo's own process dies.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Final

REPORT_SECONDS: Final = 0.5


class Stop:
    """Set at the end of stdin."""

    def __init__(self) -> None:
        self._event = threading.Event()
        threading.Thread(target=self._watch, name="stdin", daemon=True).start()

    def _watch(self) -> None:
        # Not sys.stdin: a thread that sits in its lock would spoil the end of the process.
        while os.read(0, 4096):
            pass
        self._event.set()

    def is_set(self) -> bool:
        """Is it time to stop?"""
        return self._event.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for it; returns ``is_set``."""
        return self._event.wait(seconds)


class Reporter:
    """Sends what has changed, at most every REPORT_SECONDS."""

    def __init__(self) -> None:
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        """Is it time for the next report?"""
        return time.monotonic() >= self._due

    def send(self, report: dict[str, object]) -> None:
        """Send a report now."""
        self._due = time.monotonic() + REPORT_SECONDS
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
