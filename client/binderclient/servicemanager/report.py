# SPDX-License-Identifier: Apache-2.0
"""``Reporter``: writes text into files of callers, which may never read them.

A pipe that is full, or a file of a file system that does not answer, blocks the thread that writes.
So each report is written by a thread of its own, never by one that serves. There are few of these,
for each user and in all: more reports are refused.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Final

from binderclient import android
from binderclient.errors import BinderError, RemoteException

if TYPE_CHECKING:
    from collections.abc import Callable

REPORTS_PER_USER: Final = 4
REPORTS_MAX: Final = 32
# How long the caller waits for a report: usually the file has it all when the reply comes.
_WAIT_SECONDS: Final = 0.05


class Reporter:
    """Writes reports, a few at a time."""

    def __init__(self) -> None:
        self._of_user: Counter[int] = Counter()
        self._lock = threading.Lock()

    def write(
        self, uid: int, descriptor: int, text: str, then: Callable[[], object] | None = None
    ) -> None:
        """Write text into a file; returns soon, whatever the file does.

        Args:
            uid: the user id of the caller that asked for it.
            descriptor: the file; it may be closed when this has returned.
            text: what to write.
            then: called when it is written, in the thread that has written it; None: nothing.

        Raises:
            RemoteException: STATUS_WOULD_BLOCK, too many reports wait for their callers to read.
        """
        with self._lock:
            if self._of_user[uid] >= REPORTS_PER_USER or self._of_user.total() >= REPORTS_MAX:
                raise RemoteException(status=android.STATUS_WOULD_BLOCK)
            own = os.dup(descriptor)
            self._of_user[uid] += 1
        arguments = (uid, own, text.encode("utf-8", "replace"), then)
        thread = threading.Thread(
            target=self._write, args=arguments, name="binder-report", daemon=True
        )
        thread.start()
        thread.join(_WAIT_SECONDS)

    def _write(
        self, uid: int, descriptor: int, data: bytes, then: Callable[[], object] | None
    ) -> None:
        try:
            with contextlib.suppress(OSError), open(descriptor, "wb", buffering=0) as file:
                view = memoryview(data)
                while view and (written := file.write(view)):  # None: it is full, and O_NONBLOCK
                    view = view[written:]
            if then is not None:
                with contextlib.suppress(BinderError):
                    then()
        finally:
            with self._lock:
                self._of_user -= Counter({uid: 1})
