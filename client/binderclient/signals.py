# SPDX-License-Identifier: Apache-2.0
"""Signals that reach the process right before its main thread sleeps in the driver.

Python runs a signal's handler in the main thread, between two bytecodes. A signal that comes right
before a system call, or reaches another thread, does not interrupt that call; so while the main
thread sleeps in the driver, the handler would run with the next incoming call, or never. Therefore
a helper thread wakes the main thread for each signal while the main thread serves.
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
_SECONDS_BETWEEN: Final = 0.05  # two attempts: the first may come before the thread sleeps


@contextlib.contextmanager
def waking_for_signals(wake: Callable[[], None], returns: Callable[[], int]) -> Iterator[None]:
    """Have the main thread come back from a call of the driver for each signal.

    Elsewhere than in the main thread, and where an event loop hears of signals already, this does
    nothing.

    Args:
        wake: has the main thread come back, if it sleeps in the driver.
        returns: tells how often it has come back.
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
        target=_watch, args=(reading, wake, returns), name="binder-signals", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        os.close(writing)  # ends the thread


def _watch(reading: int, wake: Callable[[], None], returns: Callable[[], int]) -> None:
    try:
        while os.read(reading, _READ_SIZE):
            seen = returns()
            for _ in range(_TRIES):
                wake()
                time.sleep(_SECONDS_BETWEEN)
                if returns() != seen:
                    break
    finally:
        os.close(reading)
