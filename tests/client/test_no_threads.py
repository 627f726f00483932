# SPDX-License-Identifier: Apache-2.0
"""When the system has no thread left for a while: what needed one fails or waits, the rest goes on.

That is had for real: a stack for which no memory can be mapped.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from binderclient import Service, as_interface, interface
from binderclient.deadlines import Alarm
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.testing import Binder

PATIENCE = 20.0
_TOO_LARGE = 1 << 47  # bytes of a stack


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """In this process no thread can be started meanwhile."""
    before = threading.stack_size(_TOO_LARGE)
    try:
        yield
    finally:
        threading.stack_size(before)


# In a process of its own, whose clock nobody has started yet.
_CLOCK = f"""
import sys, threading
from binderclient.deadlines import Alarm, Ticket

def started():
    rang = threading.Event()
    Alarm(0.01, rang.set)
    return rang

def refused():
    threading.stack_size({_TOO_LARGE})
    try:
        Alarm(0.01, lambda: None)
    except RuntimeError:
        threading.stack_size(0)
        return
    sys.exit("there was a thread")

refused()
assert started().wait({PATIENCE}), "the clock was never started again"

woken = threading.Event()
threading.stack_size({_TOO_LARGE})
Ticket(0.01).begin(woken.set)
again = threading.Event()
Alarm(0.05, again.set)
assert again.wait({PATIENCE}), "the clock has ended"
assert not woken.is_set()
threading.stack_size(0)
assert woken.wait({PATIENCE}), "nobody was woken"
"""


def test_the_clock_goes_on() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _CLOCK], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@interface("org.example.IGate")
class Gate(Service):
    """Lets nobody through until it is opened."""

    def __init__(self) -> None:
        self.waiting = 0
        self.opened = threading.Event()

    def go_through(self) -> None:
        self.waiting += 1
        assert self.opened.wait(PATIENCE)

    def count(self) -> int:
        return self.waiting


def test_a_pool_that_cannot_grow_goes_on(binder: Binder, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    with binder.process().device() as server, binder.device() as client:
        server.become_context_manager(gate)
        with no_threads(), pytest.raises(RuntimeError):
            server.start_thread_pool()
        server.start_thread_pool()
        Alarm(PATIENCE, lambda: None).stop()  # has the clock started, for time limits
        proxy = as_interface(Gate, client.context_manager, timeout=PATIENCE)
        with no_threads():
            for _ in range(3):
                assert proxy.count() == 0
        assert caplog.text.count("the pool stays with 1 threads") == 1
        assert proxy.count() == 0  # then there is one again
        callers = [threading.Thread(target=proxy.go_through) for _ in range(2)]
        for each in callers:
            each.start()
        eventually(lambda: gate.waiting == 2, PATIENCE)
        gate.opened.set()
        for each in callers:
            each.join(PATIENCE)
