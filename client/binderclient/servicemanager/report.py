# SPDX-License-Identifier: Apache-2.0
"""``Reporter``: writes text into files of callers, whom nobody trusts to read them.

A pipe that is full, or a file of a file system that does not answer, blocks whoever writes into it.
So a thread beside the one that serves does, and there are few of these: more reports are refused.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final

from binderclient import android
from binderclient.errors import BinderError, RemoteException

if TYPE_CHECKING:
    from collections.abc import Callable

REPORTS_MAX: Final = 4
# So that a file usually has it all when the reply comes.
_WAIT_SECONDS: Final = 0.05


class Reporter:
    """Writes reports, a few at a time."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(REPORTS_MAX)

    def write(self, descriptor: int, text: str, then: Callable[[], object] | None = None) -> None:
        """Write text into a file; returns soon, whatever the file does.

        Args:
            descriptor: the file; it may be closed when this has returned.
            text: what to write.
            then: is called afterwards, in the thread that has written.

        Raises:
            RemoteException: STATUS_WOULD_BLOCK, too many reports are not read by those who asked.
        """
        if not self._free.acquire(blocking=False):
            raise RemoteException(status=android.STATUS_WOULD_BLOCK)
        try:
            own = os.dup(descriptor)
        except OSError:
            self._free.release()
            raise
        arguments = (own, text.encode("utf-8", "replace"), then)
        thread = threading.Thread(
            target=self._write, args=arguments, name="binder-report", daemon=True
        )
        thread.start()
        thread.join(_WAIT_SECONDS)

    def _write(self, descriptor: int, data: bytes, then: Callable[[], object] | None) -> None:
        try:
            with contextlib.suppress(OSError), open(descriptor, "wb", buffering=0) as file:
                view = memoryview(data)
                while view and (written := file.write(view)):  # None: full, and not to wait for
                    view = view[written:]
            if then is not None:
                with contextlib.suppress(BinderError):
                    then()
        finally:
            self._free.release()
