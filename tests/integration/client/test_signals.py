# SPDX-License-Identifier: Apache-2.0
"""Signals while the main thread serves."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from client.drivers import PATIENCE

if TYPE_CHECKING:
    from client.conftest import Bench


DEAF = """
import signal, sys, threading, time
from binderclient import Device
device = Device(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: device.stop())
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("ready", flush=True)
device.join_thread_pool()
assert signal.set_wakeup_fd(-1) == -1
"""


@pytest.mark.parametrize("pause", [0.0, 0.3])
def test_a_signal_that_does_not_interrupt_the_read_ends_it(bench: Bench, pause: float) -> None:
    """Another thread gets it here; one that comes right before the system call is no other case."""
    with subprocess.Popen(
        [sys.executable, "-c", DEAF, bench.device], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(pause)
        process.terminate()
        try:
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
