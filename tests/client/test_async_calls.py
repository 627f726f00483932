# SPDX-License-Identifier: Apache-2.0
"""Calls of event loops and to them, many and fast: everybody is answered, whatever the loop does.

Where threads have lanes the loop's thread does what it can for them, and hands over the rest.  What
that could spoil is here: loops that are busy, handlers that wait for each other, calls that come
back, calls of a loop to itself, cancellation in the middle.
"""

from __future__ import annotations

import contextlib
import gc
import random
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from binderclient import (
    CallTimeout,
    DeviceError,
    Parcel,
    RemoteException,
    Service,
    caller,
    transaction,
)
from client import peer as p
from client.flavours import FLAVOURS, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from binderclient.asynchronous import AsyncDevice, AsyncProxy
    from binderclient.ibinder import IBinder
    from client.conftest import Bench
    from client.flavours import Flavour

pytestmark = [
    pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: flavour.name),
]

GIVE_BACK, MARK, WAIT, LET_GO, COMPUTE, HURRY = range(1, 7)


def request(*numbers: int, binder: IBinder | None = None, blob: bytes | None = None) -> Parcel:
    parcel = Parcel.for_interface(p.DESCRIPTOR)
    if binder is not None:
        parcel.write_strong_binder(binder)
    for number in numbers:
        parcel.write_int32(number)
    if blob is not None:
        parcel.write_bytes(blob)
    return parcel


class Worked(Service):
    """What a loop serves in these tests."""

    descriptor: ClassVar[str] = p.DESCRIPTOR
    mark: ClassVar[ContextVar[int]] = ContextVar("mark", default=0)

    def __init__(self, flavour: Flavour) -> None:
        self._flavour = flavour
        self.waits, self.go_on = flavour.event(), flavour.event()

    @transaction(GIVE_BACK)
    async def give_back(self, data: Parcel, reply: Parcel) -> None:
        """Some answers take a moment, some do not."""
        number = data.read_int32()
        if number % 5 == 4:
            await self._flavour.sleep(0.001 * (number % 3))
        reply.write_int32(number)

    @transaction(MARK)
    async def leave_a_mark(self, _data: Parcel, reply: Parcel) -> None:
        reply.write_int32(self.mark.get())
        assert caller().sender_pid
        self.mark.set(1)
        await self._flavour.sleep(0)
        assert self.mark.get() == 1

    @transaction(WAIT)
    async def wait(self, data: Parcel, reply: Parcel) -> None:
        self.waits.set()
        await self.go_on.wait()
        reply.write_int32(data.read_int32())

    @transaction(LET_GO)
    def let_go(self, data: Parcel, reply: Parcel) -> None:
        self.go_on.set()
        reply.write_int32(data.read_int32())

    @transaction(HURRY)
    async def hurry(self, data: Parcel, reply: Parcel) -> None:
        """Exceed a limit of its own, every other time."""
        number = data.read_int32()
        seconds = 0.01 if number % 2 else 0
        is_over = await self._flavour.returns_within(
            0.001 if seconds else PATIENCE, lambda: self._flavour.sleep(seconds)
        )
        assert is_over == (not seconds)
        reply.write_int32(number)

    @transaction(COMPUTE)
    def compute(self, data: Parcel, reply: Parcel) -> None:
        number = data.read_int32()
        if number % 20 == 10:
            time.sleep(0.1)  # the loop stands still
        reply.write_int32(number)


def hammer(bench: Bench, flavour: Flavour, code: int, threads: int, times: int) -> Awaitable[int]:
    return flavour.in_thread(
        lambda: bench.elsewhere("hammer", p.DESCRIPTOR, code, threads, times),
    )


def serve(bench: Bench, flavour: Flavour, use: Callable[[Worked], Awaitable[None]]) -> None:
    """Serve in a loop while ``use`` goes on in it."""

    async def main() -> None:
        worked = Worked(flavour)
        async with flavour.open_device(bench.device) as device:
            device.become_context_manager(worked)
            device.start_serving()
            await use(worked)

    flavour.run(main)


@pytest.mark.parametrize(("threads", "times"), [(1, 300), (2, 200), (8, 60)])
def test_everybody_is_answered(bench: Bench, flavour: Flavour, threads: int, times: int) -> None:
    async def use(_worked: Worked) -> None:
        assert await hammer(bench, flavour, GIVE_BACK, threads, times) == threads * times

    serve(bench, flavour, use)


def test_calls_wait_for_a_loop_that_computes(bench: Bench, flavour: Flavour) -> None:
    async def use(_worked: Worked) -> None:
        assert await hammer(bench, flavour, COMPUTE, 3, 45) == 135

    serve(bench, flavour, use)


def test_a_handler_that_waits_for_another_call_keeps_nobody(bench: Bench, flavour: Flavour) -> None:
    async def use(worked: Worked) -> None:
        answers: list[int] = []

        async def call(code: int, times: int) -> None:
            answers.append(await hammer(bench, flavour, code, 1, times))

        assert await hammer(bench, flavour, GIVE_BACK, 1, 100) == 100
        async with flavour.tasks() as start:
            start(lambda: call(WAIT, 1))
            await worked.waits.wait()
            assert await hammer(bench, flavour, GIVE_BACK, 2, 50) == 100
            start(lambda: call(LET_GO, 1))
        assert answers == [1, 1]

    serve(bench, flavour, use)


def test_what_a_handler_does_to_its_context_ends_with_it(bench: Bench, flavour: Flavour) -> None:
    async def use(_worked: Worked) -> None:
        for _ in range(3):  # the first call of each has to give back a 0
            assert await hammer(bench, flavour, MARK, 1, 20) == 1

    serve(bench, flavour, use)


class Mirror(Service):
    """Calls back into the peer, from inside of its handler."""

    def __init__(self, peer: AsyncProxy) -> None:
        self._peer = peer

    @transaction(1)
    async def reflect(self, data: Parcel, reply: Parcel) -> None:
        depth = data.read_int32()
        if depth <= 0:
            reply.write_int32(0)
            return
        (await self._peer.call(p.WHO, request())).close()  # one that is over at once
        with await self._peer.call(p.CALL_BACK, request(depth, binder=self)) as answer:
            reply.write_int32(answer.read_int32() + 1)


def echo_task(peer: AsyncProxy, rounds: int) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        for number in range(rounds):
            blob = bytes([number]) * (number * 37 % 13_000)
            with await peer.call(p.ECHO, request(blob=blob)) as reply:
                assert reply.read_blob() == blob

    return run


def test_calls_come_back_while_others_are_made(bench: Bench, flavour: Flavour) -> None:
    bench.peer("--threads", "3")

    async def main() -> None:
        async with flavour.open_device(bench.device, max_calls=3) as device:
            peer = device.context_manager
            mirror = Mirror(peer)

            async def reflect() -> None:
                for depth in (2, 4, 6, 2):
                    with await peer.call(p.CALL_BACK, request(depth, binder=mirror)) as reply:
                        assert reply.read_int32() == 2 * depth - 1

            async with flavour.tasks() as start:
                for _ in range(2):
                    start(reflect)
                    start(echo_task(peer, 60))

    flavour.run(main)


def test_a_loop_calls_itself(bench: Bench, flavour: Flavour) -> None:
    """Through two devices, as two libraries in one program may do; neither waits for the other."""
    bench.peer()

    async def main() -> None:
        async with (
            flavour.open_device(bench.device) as server,
            flavour.open_device(bench.another()) as client,
        ):
            server.start_serving()
            (await server.context_manager.call(p.HOLD, request(binder=Worked(flavour)))).close()
            with await client.context_manager.call(p.RETURN, request()) as reply:
                worked: Any = reply.read_strong_binder()

            async def call(first: int) -> None:
                for number in range(first, first + 40):
                    with await worked.call(GIVE_BACK, request(number)) as reply:
                        assert reply.read_int32() == number

            async with flavour.tasks() as start:
                for first in (0, 100, 200):
                    start(lambda first=first: call(first))

    flavour.run(main)


def test_a_task_that_calls_on_and_on_lets_others_run(bench: Bench, flavour: Flavour) -> None:
    bench.peer()

    async def main() -> None:
        turns = 0
        is_over = False

        async def count() -> None:
            nonlocal turns
            while not is_over:
                turns += 1
                await flavour.sleep(0)

        async with flavour.open_device(bench.device) as device, flavour.tasks() as start:
            start(count)
            for _ in range(400):
                (await device.context_manager.call(p.WHO, request())).close()
            is_over = True
        assert turns >= 80

    flavour.run(main)


def test_a_loop_goes_on_while_answers_take_long(bench: Bench, flavour: Flavour) -> None:
    bench.peer()

    async def main() -> None:
        turns, is_over = 0, False

        async def count() -> None:
            nonlocal turns
            while not is_over:
                turns += 1
                await flavour.sleep(0.001)

        async with flavour.open_device(bench.device) as device, flavour.tasks() as start:
            start(count)
            for _ in range(5):
                before = turns
                (await device.context_manager.call(p.SLEEP, request(200))).close()
                assert turns >= before + 5
            is_over = True

    flavour.run(main)


def test_calls_that_are_cancelled_at_any_time(bench: Bench, flavour: Flavour) -> None:
    bench.peer("--threads", "3")
    chance = random.Random(1)

    async def main() -> None:
        async with flavour.open_device(bench.device, max_calls=4) as device:
            peer = device.context_manager

            async def try_it() -> None:
                for _ in range(40):
                    seconds = chance.choice((0.0001, 0.0005, 0.002, 1))
                    call: Any = (
                        lambda: peer.call(p.WHO, request()),
                        lambda: peer.call(p.SLEEP, request(1)),
                        lambda: peer.call(p.ECHO, request(blob=bytes(70_000))),
                    )[chance.randrange(3)]
                    await flavour.returns_within(seconds, call)

            async with flavour.tasks() as start:
                for _ in range(6):
                    start(try_it)
            await echo_task(peer, 40)()
            gc.collect()
            assert not kept_parcels(device)

    flavour.run(main)


def kept_parcels(device: AsyncDevice) -> int:
    return len(device._device.session._received._parcels)


def test_calls_that_are_late_at_any_time(bench: Bench, flavour: Flavour) -> None:
    bench.peer("--threads", "3")

    async def main() -> None:
        async with flavour.open_device(bench.device) as device:
            peer = device.context_manager
            late = 0
            for number in range(60):
                try:
                    call = peer.call(p.SLEEP, request(number % 3 * 2), timeout=0.003)
                    (await call).close()
                except CallTimeout:
                    late += 1
            assert late >= 10
            await echo_task(peer, 20)()

    flavour.run(main)


def test_what_cannot_be_sent_leaves_the_thread_usable(bench: Bench, flavour: Flavour) -> None:
    bench.peer()

    async def main() -> None:
        async with (
            flavour.open_device(bench.device) as device,
            flavour.open_device(bench.another()) as other,
        ):
            peer = device.context_manager
            for _ in range(10):
                (await peer.call(p.WHO, request())).close()
                with pytest.raises(ValueError, match="of another device"):
                    await peer.call(p.HOLD, request(binder=other.context_manager))
                with pytest.raises(RemoteException):
                    await peer.call(999, request())

    flavour.run(main)


def test_a_limit_of_one_handler_is_not_that_of_the_next(bench: Bench, flavour: Flavour) -> None:
    async def use(_worked: Worked) -> None:
        assert await hammer(bench, flavour, HURRY, 2, 20) == 40

    serve(bench, flavour, use)


def test_calls_end_with_the_device(bench: Bench, flavour: Flavour) -> None:
    """Closing does not wait for what tasks try meanwhile."""
    bench.peer("--threads", "2")

    async def main() -> None:
        began = time.monotonic()
        async with flavour.tasks() as start, flavour.open_device(bench.device) as device:
            peer = device.context_manager

            async def call_on() -> None:
                with contextlib.suppress(DeviceError):
                    while True:
                        (await peer.call(p.SLEEP, request(1))).close()

            for _ in range(3):
                start(call_on)
            await flavour.sleep(0.1)
        assert time.monotonic() - began < PATIENCE / 2

    flavour.run(main)
