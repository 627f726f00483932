# SPDX-License-Identifier: Apache-2.0
"""``ServiceManager`` with managers of each Android, also of another one than it believes."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from binderclient import android
from binderclient.blocking import Device
from binderclient.errors import MisuseError, ParcelError, RemoteException
from binderclient.objects import Service
from binderclient.servicemanager import ConnectionInfo, DebugInfo, ServiceManager, ServiceNotFound
from binderclient.trio import AsyncServiceManager, open_device
from binderwire.service_manager import DIALECTS, dialect_of
from client.drivers import PATIENCE
from client.managers import cli
from dialects.hostile import lenient
from support.waiting import eventually

if TYPE_CHECKING:
    from client.conftest import Bench
    from dialects.conftest import Start

ANDROIDS = sorted(DIALECTS)


class Named(Service):
    descriptor = "a.INamed"


@pytest.mark.parametrize("chosen", ANDROIDS)
def test_what_every_android_has(bench: Bench, start: Start, chosen: int) -> None:
    start("--android", str(chosen))
    with Device(bench.device) as server, Device(bench.device) as client:
        server.start_thread_pool()
        services, manager = ServiceManager(server, chosen), ServiceManager(client, chosen)
        assert manager.check("late") is None
        with pytest.raises(ServiceNotFound):
            manager.wait("late", 0.05)
        adding = threading.Timer(0.1, services.add, ("late", Named()))
        adding.start()
        assert manager.wait("late", PATIENCE).interface() == Named.descriptor
        adding.join(PATIENCE)
        assert manager.list() == ["late", "manager"]
        assert manager.get("manager").handle == 0


@pytest.mark.parametrize("chosen", ANDROIDS)
async def test_the_same_in_trio(bench: Bench, start: Start, chosen: int) -> None:
    start("--android", str(chosen))
    async with open_device(bench.device) as server, open_device(bench.device) as client:
        manager = AsyncServiceManager(client, chosen)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(AsyncServiceManager(server, chosen).add, "late", Named())
            with trio.fail_after(PATIENCE):
                proxy = await manager.wait("late")
                assert await proxy.interface() == Named.descriptor
        assert await manager.list() == ["late", "manager"]
        assert await manager.check("nobody") is None


@pytest.mark.parametrize("chosen", ANDROIDS)
def test_a_client_of_another_android_never_believes_that_it_has_added(
    bench: Bench, start: Start, chosen: int
) -> None:
    start("--android", str(chosen))
    with Device(bench.device) as device:
        for other in ANDROIDS:
            name = f"from.{other}"
            with contextlib.suppress(RemoteException, ParcelError):
                ServiceManager(device, other).add(name, Named())
                # It says that it has.
                assert isinstance(ServiceManager(device, chosen).check(name), Named)
        names = ServiceManager(device, chosen).list()
        # Those whose addService has the same number are understood, and those before AIDL.
        own = dialect_of(chosen if chosen > 10 else 13)
        understood = [
            f"from.{other}"
            for other in ANDROIDS
            if other <= 10
            or (
                DIALECTS[other].code("addService") == own.code("addService")
                and DIALECTS[other].stability is own.stability
            )
        ]
        assert names == sorted([*understood, "manager"])


def test_a_reply_with_more_than_there_should_be_is_no_success(bench: Bench) -> None:
    with lenient(bench), Device(bench.device) as device:
        with pytest.raises(ParcelError, match=r"addService of Android 13: 28 bytes .*android="):
            ServiceManager(device).add("x", Named())
        for method in (ServiceManager.list, ServiceManager.debug_info):
            with pytest.raises(ParcelError, match="no reply to"):
                method(ServiceManager(device))
        with pytest.raises(ParcelError, match="no reply to isDeclared"):
            ServiceManager(device).is_declared("x")


def test_what_is_declared(bench: Bench, start: Start) -> None:
    one, two = "a.IFoo/one", "a.IFoo/two"
    start("--android", "16", "--declare", f"{one},apex=com.a,address=::1:80", "--declare", two)
    with Device(bench.device) as device:
        manager = ServiceManager(device, "aidl6")
        assert manager.is_declared(two)
        assert not manager.is_declared("a.IFoo")
        assert manager.declared_instances("a.IFoo") == ["one", "two"]
        assert (manager.updatable_via_apex(one), manager.updatable_via_apex(two)) == ("com.a", None)
        assert manager.updatable_names("com.a") == [one]
        assert manager.connection_info(one) == ConnectionInfo("::1", 80)
        assert manager.connection_info(two) is None
        (info,) = manager.debug_info()
        assert info == DebugInfo("manager", info.pid)
        with pytest.raises(MisuseError, match="Android 9 has no isDeclared"):
            ServiceManager(device, 9).is_declared(one)


async def test_what_is_declared_in_trio(bench: Bench, start: Start) -> None:
    one = "a.IFoo/one"
    start("--android", "16", "--declare", f"{one},apex=com.a,address=::1:80")
    async with open_device(bench.device) as device:
        manager = AsyncServiceManager(device, 16)
        assert await manager.is_declared(one)
        assert await manager.declared_instances("a.IFoo") == ["one"]
        assert await manager.updatable_via_apex(one) == "com.a"
        assert await manager.updatable_names("com.a") == [one]
        assert await manager.connection_info(one) == ConnectionInfo("::1", 80)
        (info,) = await manager.debug_info()
        assert info.name == "manager"
        with pytest.raises(MisuseError, match="Android 9 has no isDeclared"):
            await AsyncServiceManager(device, 9).is_declared(one)


async def test_a_lazy_service_in_trio(bench: Bench, start: Start) -> None:
    start("--android", "16")
    send, heard = trio.open_memory_channel[object](10)
    service = Named()
    async with open_device(bench.device) as server, open_device(bench.device) as watcher:
        own = AsyncServiceManager(server, 16)
        others = AsyncServiceManager(watcher, 16)
        callback = await others.register_for_notifications(
            "lazy", lambda name, _service: send.send_nowait(name)
        )
        await own.add("lazy", service)
        with trio.fail_after(PATIENCE):
            assert await heard.receive() == "lazy"
        await others.unregister_for_notifications("lazy", callback)
        with pytest.raises(RemoteException):
            await others.unregister_for_notifications("lazy", callback)
        await own.register_client_callback("lazy", service, send.send_nowait)
        async with open_device(bench.device) as client:
            assert await AsyncServiceManager(client, 16).check("lazy") is not None
            with trio.fail_after(PATIENCE):
                assert await heard.receive() is True
            with pytest.raises(RemoteException):
                await own.try_unregister("lazy", service)
        with trio.fail_after(2 * PATIENCE):
            assert await heard.receive() is False
        await own.try_unregister("lazy", service)
        assert await own.list() == ["manager"]


def test_a_manager_that_is_killed_is_filled_again(bench: Bench, start: Start) -> None:
    first = start("--android", "16")
    with Device(bench.device, reconnect=True) as server, Device(bench.device) as client:
        server.start_thread_pool()
        ServiceManager(server, 16).add("kept", Named())
        manager = ServiceManager(client, 16)
        manager.get("kept").ping()
        first.kill()
        start("--android", "16")
        eventually(lambda: manager.list() == ["kept", "manager"])
        manager.get("kept").ping()


def test_the_managers_own_name_is_not_to_be_had(bench: Bench, start: Start) -> None:
    start()
    with Device(bench.device) as device:
        with pytest.raises(RemoteException) as caught:
            ServiceManager(device).add("manager", Named())
        assert caught.value.exception_code == android.EX_SECURITY
        assert ServiceManager(device).get("manager").handle == 0


def test_what_is_refused_is_said_once(bench: Bench, start: Start) -> None:
    process = start()
    with Device(bench.device) as device:
        for _ in range(3):
            with pytest.raises(RemoteException, match="unread size: 8"):
                ServiceManager(device, 16).add("x", Named())
    log = process.end()
    assert log.count("refused code 5 of process") == 1
    assert "no registerForNotifications of Android 13" in log
    assert "--android" in log


def test_binderctl_speaks_what_it_is_told(bench: Bench, start: Start) -> None:
    start("--android", "16")
    with Device(bench.device) as server:
        server.start_thread_pool()
        ServiceManager(server, 16).add("a.b", Named())
        assert cli(bench, "--android", "36", "list").stdout == "a.b\nmanager\n"
        assert cli(bench, "wait", "a.b", "--android", "aidl6").returncode == 0
        for words in (("list",), ("wait", "a.b", "--timeout", "1"), ("ping", "a.b")):
            refused = cli(bench, *words)
            assert (refused.returncode, refused.stdout) == (1, ""), refused
            assert len(refused.stderr.splitlines()) == 1
            assert "Traceback" not in refused.stderr
