# SPDX-License-Identifier: Apache-2.0
"""Closing other people's files, which may take any time: in threads that may get stuck.

A close can flush to a file system of a client's own, wait for a peer to read, or free gigabytes. So
nobody who has other things to do may close a file that a client gave us.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

_WORKERS_MAX: Final = 64  # with as many closes stuck, further files stay open
_IDLE_SECONDS: Final = 0.5  # after this a thread goes: it makes each system call dearer


class Closer:
    """Closes descriptors, in the background."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[list[int]] = SimpleQueue()
        self._lock = threading.Lock()
        self._workers = self._idle = 0

    def close(self, fds: list[int]) -> None:
        """Close descriptors, soon; never waits."""
        self._queue.put(fds)
        with self._lock:
            if self._idle or self._workers >= _WORKERS_MAX:
                return
            self._workers += 1
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                fds = self._queue.get(timeout=_IDLE_SECONDS)
            except Empty:
                fds = []
            with self._lock:
                self._idle -= 1
                if not fds and self._queue.empty():
                    self._workers -= 1
                    return
            for fd in fds:
                with suppress(OSError):
                    os.close(fd)
