# SPDX-License-Identifier: Apache-2.0
"""The trio flavour: concurrency, nesting, cancellation, deaths."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import trio

from binderclient import android
from binderclient.blocking import Device
from binderclient.errors import DeadObject, DeviceError, MisuseError, RemoteException
from binderclient.objects import Proxy, Service, caller, transaction
from binderclient.parcel import Parcel
from binderclient.trio import AsyncDevice, AsyncProxy, open_device
from client import peer as p

if TYPE_CHECKING:
    from pathlib import Path

    from client.conftest import Bench

PATIENCE = 10.0


def request(*numbers: int, binder: Service | AsyncProxy | None = None) -> Parcel:
    parcel = Parcel.for_interface(p.DESCRIPTOR)
    if binder is not None:
        parcel.write_strong_binder(binder)
    for number in numbers:
        parcel.write_int32(number)
    return parcel


class AsyncService(Service):
    """A context manager whose handlers take their time."""

    descriptor: ClassVar[str] = p.DESCRIPTOR

    def __init__(self) -> None:
        self.running = self.most = 0
        self.cancelled = 0
        self.started = trio.Event()
        self.callers: set[int] = set()

    @transaction(p.SLEEP)
    async def sleep(self, data: Parcel, reply: Parcel) -> None:
        self.running += 1
        self.started.set()
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(data.read_int32() / 1000)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        self.callers.add(caller().sender_pid)
        reply.write_int32(os.getpid())

    @transaction(p.WHO)
    def who(self, _data: Parcel, reply: Parcel) -> None:
        reply.write_int32(caller().sender_pid)

    @transaction(p.RAISE)
    async def fail(self, _data: Parcel, _reply: Parcel) -> None:
        await trio.lowlevel.checkpoint()
        raise PermissionError("no")


async def test_calls_of_many_tasks_are_in_the_air_at_a_time(bench: Bench) -> None:
    bench.peer("--threads", "5")
    async with open_device(bench.device) as device:
        peer = device.context_manager

        async def nap() -> None:
            (await peer.call(p.SLEEP, request(400))).close()

        start = time.monotonic()
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(nap)
        assert time.monotonic() - start < 2


async def test_handlers_run_as_tasks_at_a_time(bench: Bench) -> None:
    service = AsyncService()
    async with open_device(bench.device) as server, open_device(bench.device) as client:
        server.become_context_manager(service)
        server.start_serving()
        # Handle 0 is closed to the manager's own process (E2): other processes have to call.
        with pytest.raises(MisuseError):
            _ = server.context_manager
        assert client.context_manager.handle == 0
        answers = await elsewhere(bench, "naps", p.DESCRIPTOR, p.SLEEP)
    assert answers == [os.getpid()] * 5
    assert service.most >= 4
    assert len(service.callers) == 1


async def elsewhere(bench: Bench, *words: object) -> Any:  # noqa: ANN401
    """See ``Bench.elsewhere``."""
    with trio.fail_after(PATIENCE):
        return await trio.to_thread.run_sync(bench.elsewhere, *words)


async def test_a_cancelled_call_frees_its_thread(bench: Bench) -> None:
    bench.peer("--threads", "2")
    async with open_device(bench.device, max_calls=1) as device:
        peer = device.context_manager
        start = time.monotonic()
        with trio.move_on_after(0.1):
            await peer.call(p.SLEEP, request(10_000))
        with trio.fail_after(5):
            await peer.ping()  # there is one thread for calls, and it is not waiting any more
        assert time.monotonic() - start < 6


async def test_a_call_that_is_cancelled_before_it_starts_has_not_happened(bench: Bench) -> None:
    bench.peer()
    async with open_device(bench.device) as device:
        with trio.CancelScope() as scope:
            scope.cancel()
            await device.context_manager.call(p.NOTE, request(1), oneway=True)
        with await device.context_manager.call(p.JOURNAL, request()) as reply:
            assert reply.read_string16_array() == []


class Mirror(Service):
    """Calls back into the peer, from inside of its handler."""

    def __init__(self, peer: AsyncProxy) -> None:
        self._peer = peer
        self.cancelled_calls = 0

    @transaction(1)
    async def reflect(self, data: Parcel, reply: Parcel) -> None:
        depth = data.read_int32()
        if depth <= 0:
            reply.write_int32(0)
            return
        with await self._peer.call(p.CALL_BACK, request(depth, binder=self)) as answer:
            reply.write_int32(answer.read_int32() + 1)

    @transaction(2)
    async def impatient(self, _data: Parcel, reply: Parcel) -> None:
        with trio.move_on_after(0.05) as scope:
            (await self._peer.call(p.SLEEP, request(150))).close()
            await trio.lowlevel.checkpoint()
        reply.write_int32(scope.cancelled_caught)


async def test_handlers_call_back_into_their_caller(bench: Bench) -> None:
    bench.peer()  # one thread: it can be called back only where it waits
    async with open_device(bench.device) as device:
        peer = device.context_manager
        with trio.fail_after(PATIENCE):
            with await peer.call(p.CALL_BACK, request(6, binder=Mirror(peer))) as reply:
                assert reply.read_int32() == 11


async def test_a_call_of_a_handler_is_finished_before_it_is_cancelled(bench: Bench) -> None:
    bench.peer("--threads", "2")
    async with open_device(bench.device) as device:
        peer = device.context_manager
        device.start_serving()
        (await peer.call(p.HOLD, request(binder=Mirror(peer)))).close()
        assert await elsewhere(bench, "call_given", p.DESCRIPTOR, p.RETURN, 2) == 1


async def test_errors_of_asynchronous_handlers_come_back(bench: Bench) -> None:
    async with open_device(bench.device) as device:
        device.become_context_manager(AsyncService())
        device.start_serving()
        code, text = await elsewhere(bench, "failure", p.DESCRIPTOR, p.RAISE)
    assert (code, text) == (android.EX_SECURITY, "no")


async def test_leaving_the_block_cancels_handlers_and_answers_their_callers(bench: Bench) -> None:
    service = AsyncService()
    ends: list[object] = []

    async def call() -> None:
        ends.append(await elsewhere(bench, "status", p.DESCRIPTOR, p.SLEEP))

    async with trio.open_nursery() as nursery, open_device(bench.device) as device:
        device.become_context_manager(service)
        device.start_serving()
        nursery.start_soon(call)
        with trio.fail_after(PATIENCE):
            await service.started.wait()
    assert service.cancelled == 1
    assert ends in ([android.STATUS_DEAD_OBJECT], ["dead"])


async def test_an_exception_in_the_block_closes_the_device(bench: Bench) -> None:
    devices: list[AsyncDevice] = []

    async def fail() -> None:
        async with open_device(bench.device) as device:
            devices.append(device)
            raise KeyError("why")

    with pytest.raises(KeyError):
        await fail()
    with pytest.raises(OSError, match="closed"):
        _ = devices[0].context_manager


async def test_a_device_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no such device"):
        async with open_device(tmp_path / "binder"):
            pass


async def test_the_death_of_a_server(bench: Bench) -> None:
    peer_process = bench.peer()
    async with open_device(bench.device) as device:
        device.start_serving()
        peer = device.context_manager
        with trio.fail_after(PATIENCE):
            with trio.move_on_after(0.05) as scope:
                await peer.wait_dead()
            assert scope.cancelled_caught
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.wait_dead)
                await trio.sleep(0.05)
                peer_process.kill()
            await peer.wait_dead()
        with pytest.raises(DeadObject):
            await peer.ping()


async def test_blocking_devices_refuse_asynchronous_handlers(bench: Bench) -> None:
    with Device(bench.device) as blocking:
        blocking.become_context_manager(AsyncService())
        blocking.start_thread_pool()
        _, text = await elsewhere(bench, "failure", p.DESCRIPTOR, p.RAISE)
    assert "use binderclient.trio or binderclient.aio" in text


def test_flavours_do_not_mix(bench: Bench) -> None:
    bench.peer()

    async def main() -> None:
        async with open_device(bench.device) as device:
            assert not isinstance(device.context_manager, Proxy)
            with pytest.raises(RemoteException):
                await device.context_manager.call(p.ECHO, Parcel())

    trio.run(main)
