# SPDX-License-Identifier: Apache-2.0
"""trio programs outlive their daemon: real daemons, ends and restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

import pytest
import trio

from binderclient.errors import DeadObject, DeviceGone
from binderclient.objects import Service, transaction
from binderclient.trio import AsyncDevice, AsyncProxy, AsyncServiceManager, open_device
from client.drivers import PATIENCE
from client.recovery_world import DESCRIPTOR, ECHO, RESTARTS, WAIT, World, held, request
from support.waiting import eventually

if TYPE_CHECKING:
    from binderclient.parcel import Parcel

NAME: Final = "org.binderd.test.trio"
CALL: Final = 3


@pytest.fixture
def world(world: World) -> World:
    """The same, with a service manager from the beginning."""
    world.start_manager()
    return world


class AsyncEcho(Service):
    descriptor: ClassVar[str] = DESCRIPTOR

    def __init__(self) -> None:
        self.entered, self.ended = trio.Event(), trio.Event()
        self.outcome: list[BaseException] = []
        self.target: AsyncProxy | None = None

    @transaction(ECHO)
    async def echo(self, data: Parcel, reply: Parcel) -> None:
        await trio.lowlevel.checkpoint()
        reply.write_int32(data.read_int32())

    @transaction(WAIT)
    async def wait(self, _data: Parcel, _reply: Parcel) -> None:
        self.entered.set()
        await trio.sleep(PATIENCE)

    @transaction(CALL)
    async def call(self, _data: Parcel, _reply: Parcel) -> None:
        assert self.target is not None
        try:
            await self.target.call(WAIT, request())
        except DeviceGone as error:
            self.outcome.append(error)
            self.ended.set()
            raise


async def echo(target: AsyncProxy, number: int) -> int:
    with await target.call(ECHO, request(number)) as reply:
        return reply.read_int32()


async def restart(world: World) -> None:
    await trio.to_thread.run_sync(world.restart)


async def end(world: World, how: str = "SIGKILL") -> None:
    await trio.to_thread.run_sync(world.end, how)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
async def test_when_the_driver_goes_every_task_is_told(world: World, how: str) -> None:
    told: list[AsyncDevice] = []
    errors: list[BaseException] = []
    service, middle = AsyncEcho(), AsyncEcho()

    async def failing(target: AsyncProxy, code: int) -> None:
        with pytest.raises(DeviceGone) as caught:
            await target.call(code, request())
        errors.append(caught.value)

    async with open_device(world.path) as server, open_device(world.path) as device:
        await AsyncServiceManager(server).add(NAME, service)
        await AsyncServiceManager(server).add(NAME + ".middle", middle)
        device.on_gone(told.append)
        device.start_serving()
        manager = AsyncServiceManager(device)
        proxy = await manager.get(NAME)
        middle.target = await AsyncServiceManager(device).get(NAME)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(failing, proxy, WAIT)
                nursery.start_soon(failing, await manager.get(NAME + ".middle"), CALL)
                nursery.start_soon(proxy.wait_dead)
                nursery.start_soon(device.wait_gone)
                nursery.start_soon(waiting_in_vain, manager)
                await service.entered.wait()
                await end(world, how)
            await device.wait_gone()
            await proxy.wait_dead()
            with pytest.raises(DeviceGone):
                await device.wait_back()
            with pytest.raises(DeviceGone):
                await manager.list()
        assert len(errors) == 4
        assert told == [device]


async def waiting_in_vain(manager: AsyncServiceManager) -> None:
    with pytest.raises(DeadObject):
        await manager.wait("no.such.service")


async def test_a_call_of_a_handler_that_is_under_way_ends(world: World) -> None:
    service, middle = AsyncEcho(), AsyncEcho()
    async with (
        open_device(world.path) as back,
        open_device(world.path) as server,
        open_device(world.path) as device,
    ):
        await AsyncServiceManager(back).add(NAME, service)
        await AsyncServiceManager(server).add(NAME + ".middle", middle)
        middle.target = await AsyncServiceManager(server).get(NAME)
        proxy = await AsyncServiceManager(device).get(NAME + ".middle")
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_when, service.entered, world)
                with pytest.raises(DeviceGone):
                    await proxy.call(CALL, request())
            await middle.ended.wait()
    assert isinstance(middle.outcome[0], DeviceGone)


async def end_when(event: trio.Event, world: World) -> None:
    await event.wait()
    await end(world)


async def test_a_device_comes_back_with_its_services(world: World) -> None:
    told: list[str] = []
    told_all = trio.Event()

    def back(_device: AsyncDevice) -> None:
        told.append("back")
        told_all.set()

    async with (
        open_device(world.path, reconnect=True) as server,
        open_device(world.path, reconnect=True) as client,
    ):
        await AsyncServiceManager(server).add(NAME, AsyncEcho())
        client.on_gone(lambda _device: told.append("gone"))
        client.on_back(back)
        manager = AsyncServiceManager(client)
        with trio.fail_after(3 * PATIENCE):
            old = await manager.wait(NAME)
            assert await echo(old, 1) == 1
            await restart(world)
            assert await echo(await manager.wait(NAME), 2) == 2
            with pytest.raises(DeviceGone):
                await echo(old, 3)
            await client.wait_back()
            await told_all.wait()
    assert told == ["gone", "back"]


async def test_waiting_tasks_can_be_cancelled_while_the_device_is_away(world: World) -> None:
    async with open_device(world.path, reconnect=True) as device:
        await end(world)
        with trio.fail_after(PATIENCE):
            await device.wait_gone()
            for waiting in (device.wait_back, lambda: AsyncServiceManager(device).wait(NAME)):
                with trio.move_on_after(0.05) as scope:
                    await waiting()
                assert scope.cancelled_caught


async def test_a_service_that_is_held_by_name_is_found_again(world: World) -> None:
    async with (
        open_device(world.path, reconnect=True) as server,
        open_device(world.path, reconnect=True) as client,
    ):
        await AsyncServiceManager(server).add(NAME, AsyncEcho())
        named = AsyncServiceManager(client).named(NAME)
        with trio.fail_after(4 * PATIENCE):
            for number in range(3):
                await named.wait()
                with await named.call(ECHO, request(number)) as reply:
                    assert reply.read_int32() == number
                await restart(world)


async def test_many_restarts_leave_nothing_behind(world: World) -> None:
    rounds = max(3, RESTARTS // 4)
    async with (
        open_device(world.path, reconnect=True) as server,
        open_device(world.path, reconnect=True) as client,
    ):
        await AsyncServiceManager(server).add(NAME, AsyncEcho())
        manager = AsyncServiceManager(client)
        counts: list[tuple[int, int, int]] = []
        for number in range(rounds):
            with trio.fail_after(2 * PATIENCE):
                assert await echo(await manager.wait(NAME), number) == number
                counts.append(held())
                await restart(world)
        with trio.fail_after(PATIENCE):
            await manager.wait(NAME)
        # trio keeps idle worker threads, a few more or less.
        eventually(lambda: held()[0] <= counts[0][0], f"{held()} {counts}")
        eventually(lambda: held()[1] <= counts[0][1] + 6, f"{held()} {counts}")
        eventually(lambda: held()[2] <= counts[0][2], f"{held()} {counts}")
