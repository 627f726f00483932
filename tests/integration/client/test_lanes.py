# SPDX-License-Identifier: Apache-2.0
"""Lanes, which ``binderclient`` uses wherever a daemon has them (docs/EXTENSION.md)."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binderclient.blocking import Device
from binderclient.driver import LANES_VARIABLE, open_driver
from client import peer as p
from client.test_device import request

if TYPE_CHECKING:
    from client.conftest import Bench

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="there are none here")

NAME = "binder-lane"


def has_lane() -> bool:
    return NAME in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_they_are_used_and_leave_nothing_behind(bench: Bench) -> None:
    bench.peer()
    with Device(bench.device) as device:
        device.context_manager.ping()
        assert has_lane()
    assert not any(NAME in os.readlink(f"/proc/self/fd/{fd}") for fd in open_descriptors())


def open_descriptors() -> list[str]:
    return [
        name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")
    ]


def test_they_can_be_switched_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = open_driver(bench.device, 1 << 20)
    assert driver.lane() is not None
    monkeypatch.setenv(LANES_VARIABLE, "0")
    assert driver.lane() is None
    driver.close()


def test_a_payload_of_any_size_arrives(bench: Bench) -> None:
    """Small ones lie in the lane, others elsewhere."""
    bench.peer()
    with Device(bench.device) as device:
        for size in (0, 1, 100, 5_000, 10_000, 11_000, 12_000, 300_000):
            blob = bytes(size)
            with device.context_manager.call(p.ECHO, request(blob=blob)) as reply:
                assert reply.read_bytes() == blob


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_none(bench: Bench) -> None:
    bench.peer()
    with Device(bench.device) as device:
        device.context_manager.ping()
        child = os.fork()
        if child == 0:
            os._exit(int(has_lane()))
        assert os.waitpid(child, 0)[1] == 0
        device.context_manager.ping()


INTERRUPTED = """
import signal, struct, sys
from binderclient.driver import WriteRead, open_driver
from binderwire.binder_abi import BC_ENTER_LOOPER
class Enough(Exception): pass
def enough(*_): raise Enough
signal.signal(signal.SIGALRM, enough)
driver = open_driver(sys.argv[1], 1 << 20)
lane = driver.lane()
wire = WriteRead(lane)
for number in range(150):
    try:
        wire.load(bytearray(), read=True)
        # Once more for one that comes right before the system call.
        signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + number % 100), 0.05)
        wire.run(driver, lambda: True)
    except Enough:
        signal.setitimer(signal.ITIMER_REAL, 0)
commands = struct.pack("=I", BC_ENTER_LOOPER)
wire.load(bytearray(commands), read=False)
assert (wire.run(driver, lambda: True), wire.write_consumed) == (0, len(commands))
print("answered", lane.is_over)
"""


def test_a_handler_may_raise_at_any_time(bench: Bench) -> None:
    """What was asked is taken back, so the next answer is to the next question."""
    assert run_program(INTERRUPTED, bench.device) == "answered False\n"


ATTEMPTED = """
import queue, struct, sys, threading
from binderclient.driver import WriteRead, open_driver
from binderwire.binder_abi import BC_ENTER_LOOPER
driver = open_driver(sys.argv[1], 1 << 20)
made, finish, ends = queue.SimpleQueue(), queue.SimpleQueue(), queue.SimpleQueue()
def own_thread():
    wire = WriteRead(driver.lane())
    commands = struct.pack("=I", BC_ENTER_LOOPER)
    wire.load(bytearray(commands), read=False)
    wire.run(driver, lambda: True)
    made.put(wire)
    while (go_on := finish.get()) is not None:
        ends.put((wire.run(driver, go_on), wire.is_begun))
threading.Thread(target=own_thread, daemon=True).start()
wire = made.get()
commands = struct.pack("=I", BC_ENTER_LOOPER)
done = begun = 0
for number in range(2000):
    # There is nothing to read, so every other attempt has to be finished, by who is told to stop.
    wire.load(bytearray(commands), read=bool(number % 2))
    if wire.attempt():
        assert not number % 2 and wire.write_consumed == len(commands), number
        done += 1
        continue
    begun += 1
    assert wire.is_begun
    finish.put(lambda: False)
    number, is_begun = ends.get()
    assert number in (0, 4) and not is_begun, number
    assert wire.write_consumed in (0 if number else len(commands), len(commands)), number
finish.put(None)
assert begun >= 1000
print("done", done > 0)
"""


def test_another_thread_asks_in_a_lane(bench: Bench) -> None:
    assert run_program(ATTEMPTED, bench.device) == "done True\n"


def run_program(text: str, *arguments: object) -> str:
    """Run a program; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
