# SPDX-License-Identifier: Apache-2.0
"""Android's service manager from AIDL, spoken with ours: blocking, and in trio."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from aidl.conftest import HERE, Generated, compile_into, importable
from binderclient import android
from binderclient.errors import RemoteException
from binderclient.interfaces import as_interface
from binderclient.objects import Service
from binderclient.servicemanager import ServiceManagerService
from binderclient.servicemanager.declared import parse_declared
from binderwire.service_manager import DIALECTS, DUMP_PRIORITY_ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.testing import Binder

PATIENCE: Final = 10.0
DECLARED: Final = "org.example.ITea/default,apex=com.example.tea,address=192.0.2.1:99"


@pytest.fixture(scope="module", params=[14, 16])
def dialect(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def spoken(dialect: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    folder = tmp_path_factory.mktemp("manager")
    texts = HERE / "servicemanager"
    files = [*(texts / "common").rglob("*.aidl"), *(texts / str(dialect)).rglob("*.aidl")]
    made = compile_into(folder, sorted(map(str, files)))
    with importable(folder):
        yield made


def test_it_is_that_dialect(spoken: Generated, dialect: int) -> None:
    methods = spoken("android.os.IServiceManager").binder_interface.methods
    ours = {each.name: code for code, each in enumerate(DIALECTS[dialect].methods, 1)}
    assert {name: each.code for name, each in methods.items()} == ours
    assert spoken("android.os.IServiceManager").DUMP_FLAG_PRIORITY_ALL == DUMP_PRIORITY_ALL


def manager(dialect: int) -> ServiceManagerService:
    return ServiceManagerService(dialect, [parse_declared(DECLARED)])


def test_blocking(spoken: Generated, dialect: int, binder: Binder) -> None:
    interface: Any = spoken("android.os.IServiceManager")
    tea = Service()
    told: list[Any] = []
    is_told = threading.Event()

    class Callback(spoken("android.os.IServiceCallback")):  # type: ignore[misc]
        def onRegistration(self, name: str, found: Any) -> None:  # noqa: ANN401, N802
            told.append((name, found))
            is_told.set()

    with binder.device() as server, binder.device() as client:
        server.become_context_manager(manager(dialect))
        server.start_thread_pool()
        client.start_thread_pool()
        found = as_interface(interface, client.context_manager)
        assert found.getService("tea") is None
        assert found.checkService("tea") is None
        found.registerForNotifications("tea", Callback())
        found.addService("tea", tea, False, interface.DUMP_FLAG_PRIORITY_DEFAULT)
        assert is_told.wait(PATIENCE)
        assert told == [("tea", tea)]
        assert found.getService("tea") is tea
        assert set(found.listServices(interface.DUMP_FLAG_PRIORITY_ALL)) == {"manager", "tea"}
        assert found.isDeclared("org.example.ITea/default") is True
        assert found.isDeclared("org.example.ITea/other") is False
        assert found.getDeclaredInstances("org.example.ITea") == ["default"]
        assert found.updatableViaApex("org.example.ITea/default") == "com.example.tea"
        assert found.updatableViaApex("tea") is None
        assert found.getUpdatableNames("com.example.tea") == ["org.example.ITea/default"]
        where = found.getConnectionInfo("org.example.ITea/default")
        assert where == spoken("android.os.ConnectionInfo")("192.0.2.1", 99)
        assert found.getConnectionInfo("tea") is None
        names = {each.name for each in found.getServiceDebugInfo()}
        assert names == {"manager", "tea"}
        with pytest.raises(RemoteException) as refused:
            found.addService("no/\\name", tea, False, 8)
        assert refused.value.exception_code == android.EX_ILLEGAL_ARGUMENT
        if dialect == 16:
            both: Any = spoken("android.os.Service")
            for ask in (found.getService2, found.checkService2):
                assert ask("tea").serviceWithMetadata.service is tea
                assert ask("none").tag is both.Tag.serviceWithMetadata
                assert ask("none").serviceWithMetadata.service is None


async def test_in_trio(spoken: Generated, dialect: int, binder: Binder) -> None:
    interface = spoken.awaiting("android.os.IServiceManager")
    heard = trio.Event()

    class Callback(spoken.awaiting("android.os.IServiceCallback")):  # type: ignore[misc]
        async def onRegistration(self, name: str, found: Any) -> None:  # noqa: ANN401, N802
            assert name == "tea"
            heard.set()

    with binder.device() as server:
        server.become_context_manager(manager(dialect))
        server.start_thread_pool()
        async with binder.async_device() as client:
            client.start_serving()
            with trio.fail_after(PATIENCE):
                found = as_interface(interface, client.context_manager)
                await found.registerForNotifications("tea", Callback())
                tea = Service()
                await found.addService("tea", tea, False, 8)
                await heard.wait()
                assert await found.checkService("tea") is tea
                assert set(await found.listServices(DUMP_PRIORITY_ALL)) == {"manager", "tea"}
