# SPDX-License-Identifier: Apache-2.0
"""Signals that come while the main thread is on its way into the driver.

Python runs a signal's handler in the main thread, between two of its steps. A signal that comes
right before a system call, or reaches another thread, does not interrupt that call; so a thread
that sleeps in the driver until somebody calls would have the handler run then, or never. While the
main thread serves, a thread of ours has it come back for each signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_READ_SIZE: Final = 4096
_TRIES: Final = 20
_SECONDS_BETWEEN: Final = 0.05  # the first may come before the thread sleeps


@contextlib.contextmanager
def heeding_signals(wake: Callable[[], None], turns: Callable[[], int]) -> Iterator[None]:
    """Have the main thread come back from a call of the driver for each signal.

    Elsewhere than in the main thread, and where an event loop hears of signals already, this does
    nothing.

    Args:
        wake: has it come back, if it sleeps.
        turns: how often it has come back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    if before >= 0:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)
        yield
        return
    thread = threading.Thread(
        target=_watch, args=(reading, wake, turns), name="binder-signals", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        os.close(writing)  # ends the thread


def _watch(reading: int, wake: Callable[[], None], turns: Callable[[], int]) -> None:
    try:
        while os.read(reading, _READ_SIZE):
            seen = turns()
            for _ in range(_TRIES):
                wake()
                time.sleep(_SECONDS_BETWEEN)
                if turns() != seen:
                    break
    finally:
        os.close(reading)
