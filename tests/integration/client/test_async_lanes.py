# SPDX-License-Identifier: Apache-2.0
"""What only real processes can show of event loops whose threads have lanes.

``tests/client/test_async_calls.py`` has what they promise on all devices.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from binderclient import DeadObject, DeviceGone
from binderclient.lane import Lane
from client import peer as p
from client.flavours import FLAVOURS, PATIENCE
from client.test_async_calls import GIVE_BACK, Worked, hammer, request, serve

if TYPE_CHECKING:
    from client.conftest import Bench
    from client.flavours import Flavour
    from client.recovery_world import World

pytestmark = [
    pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: flavour.name),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="there are no lanes here"),
]


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """How those have ended that the loop has made for its threads."""
    seen: list[bool] = []
    attempt = Lane.attempt

    def watched(lane: Lane) -> bool:
        seen.append(attempt(lane))
        return seen[-1]

    monkeypatch.setattr(Lane, "attempt", watched)
    return seen


def test_a_loop_makes_calls_without_its_threads(
    bench: Bench, flavour: Flavour, attempts: list[bool]
) -> None:
    bench.peer()

    async def main() -> None:
        async with flavour.open_device(bench.device) as device:
            end = time.monotonic() + PATIENCE / 2
            while not any(attempts) and time.monotonic() < end:  # a busy machine may take a while
                (await device.context_manager.call(p.WHO, request())).close()
        assert any(attempts)

    flavour.run(main)


def test_a_loop_serves_without_its_threads(
    bench: Bench, flavour: Flavour, attempts: list[bool]
) -> None:
    async def use(_worked: Worked) -> None:
        for _ in range(20):
            assert await hammer(bench, flavour, GIVE_BACK, 1, 100) == 100
            if any(attempts):
                return
        pytest.fail("all was handed over")

    serve(bench, flavour, use)


_TESTS = Path(__file__).parents[2]
_MAIN = f"""
import sys
sys.path.insert(0, {str(_TESTS)!r})
from client.flavours import FLAVOURS
from client.test_async_calls import Worked, request
from client import peer as p
[flavour] = [each for each in FLAVOURS if each.name == sys.argv[2]]
async def serve():
    async with flavour.open_device(sys.argv[1]) as device:
        device.become_context_manager(Worked(flavour))
        device.start_serving()
        print("ready", flush=True)
        await flavour.sleep(60)
async def call():
    async with flavour.open_device(sys.argv[1]) as device:
        (await device.context_manager.ping())
        print("ready", flush=True)
        while True:
            with await device.context_manager.call(1, request(5)) as reply:
                assert reply.read_int32() == 5
def run(main):
    import asyncio, trio
    asyncio.run(main()) if flavour.name == "asyncio" else trio.run(main)
try:
    run(globals()[sys.argv[3]])
except* KeyboardInterrupt:  # trio has it in a group
    print("interrupted", flush=True)
"""


class Program:
    """A process with an event loop, that serves or calls until SIGINT."""

    def __init__(self, bench: Bench, flavour: Flavour, what: str) -> None:
        command = [sys.executable, "-c", _MAIN, str(bench.device), flavour.name, what]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> str:
        """Interrupt it; return what it says."""
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate(timeout=PATIENCE)
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def test_both_ends_can_be_interrupted(bench: Bench, flavour: Flavour) -> None:
    """In the midst of calls; the other end goes on."""
    with Program(bench, flavour, "serve") as server:
        for number in range(6):
            with Program(bench, flavour, "call") as client:
                time.sleep(0.05 + number * 0.011)
                assert not client.is_over
                assert client.stop() == "interrupted\n"
        with Program(bench, flavour, "call") as client:
            time.sleep(0.1)
            assert server.stop() == "interrupted\n"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_asks_in_no_lane(bench: Bench, flavour: Flavour) -> None:
    bench.peer()

    async def main() -> None:
        async with flavour.open_device(bench.device) as device:
            peer = device.context_manager
            for _ in range(50):
                (await peer.call(p.WHO, request())).close()
            child = os.fork()
            if child == 0:
                signal.alarm(10)  # ends it, if it waits
                with contextlib.suppress(BaseException):
                    peer.call(p.WHO, request()).send(None)
                os._exit(0)
            assert await flavour.in_thread(lambda: os.waitpid(child, 0)[1]) == 0
            for _ in range(50):
                (await peer.call(p.WHO, request())).close()

    flavour.run(main)


def test_calls_under_way_end_with_the_daemon(world: World, flavour: Flavour) -> None:
    """Whoever waits for their answers; and there are new ones when it is back."""
    world.start_manager()

    async def main() -> None:
        async with flavour.open_device(world.path, reconnect=True) as device:
            gone: list[bool] = []

            async def call_on() -> None:
                manager = device.context_manager
                try:
                    while True:
                        await manager.ping()
                except DeviceGone:
                    gone.append(True)

            for _ in range(2):
                gone.clear()
                async with flavour.tasks() as start:
                    for _ in range(4):
                        start(call_on)
                    await flavour.sleep(0.1)
                    await flavour.in_thread(lambda: world.end("SIGKILL"))
                assert len(gone) == 4
                await flavour.in_thread(world.daemon.start)
                assert await device.wait_back()
                while True:  # the manager comes back as well, when it does
                    with contextlib.suppress(DeadObject):
                        await device.context_manager.ping()
                        break
                    await flavour.sleep(0.01)

    flavour.run(main)
