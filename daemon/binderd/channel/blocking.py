# SPDX-License-Identifier: Apache-2.0
"""Calls that block until the daemon's own loop serves them: a thread makes them."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from errno import EAGAIN
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


async def in_thread(step: Callable[[], None]) -> None:
    """Take a step that blocks until the loop has served it.

    The thread is gone when the step is done: trio keeps those of its own for ten seconds, and a
    process with two threads pays more for each system call. When we are told to end it is left
    alone: the step fails once the channel is closed.

    Raises:
        OSError: the step did; EAGAIN: there may be no more threads, and it was not taken.
    """
    done = trio.Event()
    token = trio.lowlevel.current_trio_token()
    failures: list[OSError] = []

    def run() -> None:
        try:
            step()
        except OSError as error:
            failures.append(error)
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(done.set)

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError:  # RLIMIT_NPROC, or the cgroup's pids.max
        raise OSError(EAGAIN, os.strerror(EAGAIN)) from None
    await done.wait()
    if failures:
        raise failures[0]
