# SPDX-License-Identifier: Apache-2.0
"""Signals while the main thread serves, or calls."""

from __future__ import annotations

import os
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


BUSY = """
import os, signal, sys, time
from binderclient import Device, MisuseError, Service, as_interface, interface, oneway

@interface("org.example.ICounter")
class Counter(Service):
    told = 0
    def echo(self, number: int) -> int:
        return number
    @oneway
    def tell(self) -> None:
        Counter.told += 1
    def count(self) -> int:
        return Counter.told

if sys.argv[2] == "serve":
    with Device(sys.argv[1]) as device:
        device.become_context_manager(Counter())
        print("ready", flush=True)
        device.join_thread_pool()
    sys.exit()

told = 0
def tell(*_):
    global told
    try:
        counter.tell()
        told += 1
    except MisuseError:
        pass

with Device(sys.argv[1]) as device:
    counter = as_interface(Counter, device.context_manager)
    signal.signal(signal.SIGALRM, tell)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0013)
    end, calls = time.monotonic() + 2, 0
    while time.monotonic() < end:
        assert counter.echo(calls) == calls
        calls += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert calls and told
    deadline = time.monotonic() + 10
    while counter.count() < told and time.monotonic() < deadline:
        time.sleep(0.01)
    assert counter.count() == told
"""


@pytest.mark.parametrize("lanes", ["0", "1"])
def test_handlers_that_call_disturb_no_call(bench: Bench, lanes: str) -> None:
    """The thread's memory is in use then; they are told so, or their call is one of its own."""
    words = [sys.executable, "-c", BUSY, bench.device]
    environment = {**os.environ, "BINDERCLIENT_LANES": lanes}
    with subprocess.Popen([*words, "serve"], env=environment, stdout=subprocess.PIPE) as service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline() == b"ready\n"
            subprocess.run([*words, "call"], env=environment, timeout=PATIENCE, check=True)
        finally:
            service.kill()
