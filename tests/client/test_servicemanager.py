# SPDX-License-Identifier: Apache-2.0
"""The service manager and its command lines."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from binderclient import android
from binderclient.blocking import Device
from binderclient.errors import BinderError, DeadObject, RemoteException
from binderclient.objects import Service
from binderclient.parcel import Parcel
from binderclient.servicemanager import ServiceManager, ServiceNotFound, formats
from binderwire.service_manager import dialect_of
from client import peer as p
from client.managers import cli, one_more, started
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from binderclient.ibinder import IBinder
    from client.conftest import Bench
    from client.managers import Manager

PATIENCE = 10.0


@pytest.fixture
def manager(bench: Bench, tmp_path: Path) -> Iterator[Manager]:
    manager = started(bench, tmp_path)
    yield manager
    if not manager.is_over:
        manager.end()


@pytest.mark.usefixtures("manager")
def test_services_are_found_by_name(bench: Bench) -> None:
    bench.peer("--name", "a.service")
    with Device(bench.device) as device:
        manager = ServiceManager(device)
        assert manager.list() == ["a.service", "manager"]
        assert manager.get("a.service").interface() == p.DESCRIPTOR
        assert manager.check("a.service") is manager.get("a.service")
        assert manager.check("b.service") is None
        with pytest.raises(ServiceNotFound, match=r"b\.service"):
            manager.get("b.service")


@pytest.mark.usefixtures("manager")
def test_an_own_service_comes_back_as_itself(bench: Bench) -> None:
    with Device(bench.device) as device:
        manager, service = ServiceManager(device), Service()
        manager.add("mine", service)
        assert manager.check("mine") is service
        with pytest.raises(ServiceNotFound, match="use it directly"):
            manager.get("mine")
        manager.add("mine", Service())
        assert manager.check("mine") is not service
        assert manager.list() == ["manager", "mine"]


@pytest.mark.usefixtures("manager")
def test_names_are_checked(bench: Bench) -> None:
    with Device(bench.device) as device:
        for name in ("", "x" * 128, "a b", "a\n"):
            with pytest.raises(RemoteException) as caught:
                ServiceManager(device).add(name, Service())
            assert caught.value.exception_code == android.EX_ILLEGAL_ARGUMENT


@pytest.mark.usefixtures("manager")
def test_a_service_that_dies_is_forgotten(bench: Bench) -> None:
    peer = bench.peer("--name", "mortal")
    bench.peer("--name", "other")
    with Device(bench.device) as device:
        manager = ServiceManager(device)
        assert manager.list() == ["manager", "mortal", "other"]
        peer.kill()
        eventually(lambda: manager.list() == ["manager", "other"])
        assert bench.peer("--name", "mortal").pid != peer.pid
        assert manager.list() == ["manager", "mortal", "other"]


@pytest.mark.usefixtures("manager")
def test_waiting_ends_when_the_service_comes(bench: Bench) -> None:
    with Device(bench.device) as device:
        manager = ServiceManager(device)
        with pytest.raises(ServiceNotFound):
            manager.wait("late", timeout=0.1)
        starter = threading.Timer(0.3, lambda: bench.peer("--name", "late"))
        starter.start()
        manager.wait("late", timeout=PATIENCE).ping()
        starter.join(PATIENCE)
        manager.wait("late", timeout=0.5).ping()  # at once if it is there


@pytest.mark.usefixtures("manager")
def test_callbacks_can_be_taken_back_once(bench: Bench) -> None:
    seen: list[tuple[str, IBinder]] = []
    with Device(bench.device) as device:
        device.start_thread_pool()
        manager = ServiceManager(device)
        callback = manager.register_for_notifications("x", lambda *news: seen.append(news))
        manager.add("x", Service())
        eventually(lambda: len(seen) == 1)
        manager.unregister_for_notifications("x", callback)
        with pytest.raises(RemoteException, match="Nothing to unregister"):
            manager.unregister_for_notifications("x", callback)
        manager.add("x", Service())
        assert len(seen) == 1


def test_the_end_of_the_manager_is_noticed(bench: Bench, manager: Manager) -> None:
    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            ServiceManager(device).wait("never")
        except BinderError as error:
            outcome.append(error)

    with Device(bench.device) as device:
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)
        manager.end()
        waiting.join(PATIENCE)
        assert isinstance(outcome[0], DeadObject)
        with pytest.raises(DeadObject, match="no service manager"):
            ServiceManager(device).list()


def test_the_bytes_of_a_request_are_those_of_android() -> None:
    token = Parcel.for_interface("android.os.IServiceManager")
    dialect = dialect_of(13)
    request = formats.call(dialect, "getService", "ab").request
    assert bytes(request) == bytes(token) + bytes.fromhex("02000000 6100 6200 0000 0000")
    request = formats.add_call(dialect, "ab", Service()).request
    assert len(request) == len(token) + 12 + 24 + 4 + 4 + 4
    assert request.object_offsets() == (len(token) + 12,)


# Command lines


@pytest.mark.usefixtures("manager")
def test_the_command_line_finds_and_calls(bench: Bench) -> None:
    bench.peer("--name", "a.service")
    assert cli(bench, "list").stdout == "a.service\nmanager\n"
    assert json.loads(cli(bench, "list", "--json").stdout) == ["a.service", "manager"]
    assert (
        json.loads(cli(bench, "--json", "check", "a.service").stdout)["interface"] == p.DESCRIPTOR
    )
    assert cli(bench, "ping", "a.service").returncode == 0
    reply = json.loads(
        cli(bench, "--json", "call", "a.service", str(p.ECHO), "hex", "616263").stdout
    )
    assert reply == {"size": 8, "hex": "0300000061626300"}
    assert "abc" in cli(bench, "call", "a.service", str(p.ECHO), "hex", "616263").stdout
    assert cli(bench, "wait", "a.service", "--timeout", "5").returncode == 0


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["check", "nobody"], 1, "no service is called 'nobody'"),
        (["wait", "nobody", "--timeout", "0.1"], 1, "no service is called 'nobody'"),
        (["call", "nobody", "1", "i33", "5"], 2, "'i33' is no type"),
        (["call", "nobody", "1", "i32"], 2, "i32 needs a value"),
        (["call", "nobody", "1", "i32", "x"], 2, "is no whole number"),
        (["dance"], 2, "invalid choice"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    bench: Bench, arguments: list[str], status: int, text: str
) -> None:
    result = cli(bench, *arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_the_command_line_without_a_manager(bench: Bench) -> None:
    result = cli(bench, "list")
    assert result.returncode == 1
    assert ": no service manager is running on " in result.stderr
    assert f"{bench.device.name}: start one with" in result.stderr


@pytest.mark.usefixtures("manager")
def test_there_is_one_manager(bench: Bench) -> None:
    result = one_more(bench)
    assert result.returncode == 1
    assert "context manager already" in result.stderr
