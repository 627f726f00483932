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


class Callers:
    """Threads that go through a gate at a time, once they are let."""

    def __init__(self, gate: Gate, count: int) -> None:
        self._begin = threading.Event()
        self._through: list[bool] = []
        self._threads = [threading.Thread(target=self._run, args=[gate]) for _ in range(count)]
        for each in self._threads:
            each.start()

    def _run(self, gate: Gate) -> None:
        self._begin.wait(PATIENCE)
        gate.go_through()
        self._through.append(True)

    def begin(self) -> None:
        self._begin.set()

    def all_are_through(self) -> bool:
        for each in self._threads:
            each.join(2 * PATIENCE)
        return len(self._through) == len(self._threads)


def test_a_pool_that_cannot_grow_goes_on(binder: Binder, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    with binder.process().device() as server, binder.device() as client:
        server.become_context_manager(gate)
        with no_threads(), pytest.raises(RuntimeError):
            server.start_thread_pool()
        server.start_thread_pool()
        Alarm(PATIENCE, lambda: None).stop()  # has the clock started, for time limits
        proxy = as_interface(Gate, client.context_manager, timeout=PATIENCE)
        some, more = Callers(proxy, 4), Callers(proxy, 4)
        with no_threads():
            some.begin()
            eventually(lambda: "the pool stays with " in caplog.text, "it is in the log")
            gate.opened.set()
            assert some.all_are_through()
        assert caplog.text.count("the pool stays with ") == 1
        gate.opened.clear()
        more.begin()
        eventually(lambda: gate.waiting == 8, "all are served")  # there are threads again
        gate.opened.set()
        assert more.all_are_through()
