# SPDX-License-Identifier: Apache-2.0
"""trio's and asyncio's devices outlive their daemon alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from binderclient.blocking import Device
from binderclient.servicemanager import ServiceManager
from binderclient.servicemanager.async_client import AsyncServiceManager
from client.drivers import missing_capability
from client.flavours import FLAVOURS, PATIENCE
from client.recovery_world import World
from client.test_async_flavours import Busy

if TYPE_CHECKING:
    from pathlib import Path

    from binderclient.asynchronous import AsyncDevice
    from client.flavours import Asyncio, Trio

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: flavour.name)


def test_the_device_comes_back(tmp_path: Path, flavour: Trio | Asyncio) -> None:
    missing = missing_capability()
    if missing is not None:
        pytest.skip(missing)
    world = World(tmp_path)
    seen: list[str] = []

    async def main() -> None:
        is_back = flavour.event()

        def came_back(_device: AsyncDevice) -> None:
            seen.append("back")
            is_back.set()

        async with flavour.open_device(world.path, reconnect=True) as device:
            device.on_gone(lambda _device: seen.append("gone"))
            device.on_back(came_back)
            await AsyncServiceManager(device).add("busy", Busy(flavour))
            await flavour.in_thread(lambda: world.end("SIGKILL"))
            await device.wait_gone()
            assert not await device.wait_back(0.05)
            await flavour.in_thread(world.daemon.start)
            assert await device.wait_back()
            await is_back.wait()
            proxy = await flavour.in_thread(lambda: blocking_wait(world.path))
            assert proxy == "org.example.IBusy"
            assert seen == ["gone", "back"]

    try:
        world.start_manager()
        flavour.run(main)
    finally:
        world.close()


def blocking_wait(path: Any) -> str:  # noqa: ANN401
    """Find the service; the manager may need longer to come back than this process did."""
    with Device(path, reconnect=True) as device:
        return ServiceManager(device).wait("busy", PATIENCE).interface()
