# SPDX-License-Identifier: Apache-2.0
"""Programs with threads outlive their daemon, and its return: real daemons, ends and restarts."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from binderclient import driver
from binderclient.blocking import Device
from binderclient.driver import Driver, WriteRead
from binderclient.errors import DeadObject, DeviceError, DeviceGone
from binderclient.objects import Proxy
from binderclient.servicemanager import ServiceManager, ServiceNotFound
from binderclient.workers import IDLE_SECONDS
from binderwire.binder_abi import BC_ENTER_LOOPER
from client.drivers import PATIENCE
from client.recovery_world import (
    ECHO,
    RESTARTS,
    WAIT,
    EchoService,
    World,
    held,
    holds_no_more,
    is_gone,
    outcome_of,
    request,
    sleeps,
)
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from client.conftest import Bench

NAME: Final = "org.binderd.test.restart"
ENDS: Final = ["SIGKILL", "SIGTERM", "abort", "unmount"]


def echo(target: Proxy, number: int) -> int:
    with target.call(ECHO, request(number)) as reply:
        return reply.read_int32()


def serve(device: Device, service: EchoService) -> None:
    device.start_thread_pool()
    ServiceManager(device).add(NAME, service)


# The end


@pytest.mark.parametrize("how", ENDS)
def test_when_the_driver_goes_everybody_is_told(world: World, how: str) -> None:
    world.start_manager()
    before = held()
    service = EchoService()
    with Device(world.path) as server, Device(world.path) as device:
        serve(server, service)
        told: list[str] = []
        device.on_gone(lambda _device: told.append("gone"))
        device.start_thread_pool()
        manager = ServiceManager(device)
        proxy = manager.get(NAME)
        proxy.link_to_death(lambda dead: told.append(f"{dead is proxy}"))
        proxy.link_to_death(lambda _dead: told.append("again"))
        device.context_manager.link_to_death(lambda _dead: told.append("manager"))
        ends = [outcome_of(lambda: proxy.call(WAIT, request())) for _ in range(3)]
        ends.append(outcome_of(server.join_thread_pool))
        assert service.entered.wait(PATIENCE)

        world.end(how)
        service.go_on.set()  # one of the threads of the server's is in the handler
        for thread, outcome in ends:
            thread.join(PATIENCE)
            assert is_gone(outcome[0]), outcome
        eventually(lambda: "gone" in told)
        assert sorted(told[:-1]) == sorted(["True", "again", "manager"])
        assert_refused(device, manager, proxy)
        assert told[3:] == ["gone"]
        eventually(lambda: not any(t.name.startswith("binder-") for t in threading.enumerate()))
    eventually(lambda: holds_no_more(before), f"{held()} {before}")


def assert_refused(device: Device, manager: ServiceManager, proxy: Proxy) -> None:
    """Nothing can be done any more with a device that is gone for good."""
    told: list[object] = []
    assert proxy.dead
    assert device.gone
    for refused in (
        proxy.ping,
        lambda: device.context_manager,
        lambda: proxy.link_to_death(told.append),
        device.flush,
        device.start_thread_pool,
        device.join_thread_pool,
        lambda: device.wait_back(1),
        lambda: device.become_context_manager(EchoService()),
        lambda: manager.wait(NAME),
        manager.list,
    ):
        with pytest.raises(DeviceGone, match="driver behind it is gone") as caught:
            refused()
        assert isinstance(caught.value, DeviceError)
        assert isinstance(caught.value, DeadObject)
    assert not proxy.unlink_to_death(told.append)
    assert told == []
    device.on_gone(told.append)
    assert told == [device]


def test_what_was_received_can_be_read_after_the_end(world: World) -> None:
    world.start_manager()
    with Device(world.path) as server, Device(world.path) as device:
        serve(server, EchoService())
        reply = ServiceManager(device).get(NAME).call(ECHO, request(7))
        with ServiceManager(device).get(NAME).call(ECHO, request(8)) as other:
            world.end("SIGKILL")
            with pytest.raises(DeviceGone):
                device.flush()
            assert other.read_int32() == 8
    assert reply.closed


def test_an_idle_device_without_a_thread_notices_with_its_next_call(world: World) -> None:
    with Device(world.path) as device:
        told = threading.Event()
        device.on_gone(lambda _device: told.set())
        world.end("SIGKILL")
        assert not device.gone
        with pytest.raises(DeviceGone) as caught:
            device.context_manager.ping()
        assert caught.value.errno == errno.ENOTCONN
        assert told.wait(PATIENCE)


def test_a_call_under_way_is_told_from_one_that_was_never_made(world: World) -> None:
    world.start_manager()
    service = EchoService()
    with Device(world.path) as server, Device(world.path) as device:
        serve(server, service)
        proxy = ServiceManager(device).get(NAME)
        thread, outcome = outcome_of(lambda: proxy.call(WAIT, request()))
        assert service.entered.wait(PATIENCE)
        world.end("SIGKILL")
        thread.join(PATIENCE)
        service.go_on.set()
        assert isinstance(outcome[0], DeviceGone)
        assert outcome[0].errno == errno.ECONNABORTED
        with pytest.raises(DeviceGone) as caught:
            proxy.ping()
        assert caught.value.errno == errno.ENOTCONN


@pytest.mark.parametrize("how", ["abort", "SIGKILL"])
def test_what_a_daemon_may_still_write_to_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """An abort does not wait for the daemon, which writes straight into the read buffer."""
    device = Driver(str(world.path), 1 << 20)
    memory = WriteRead()
    memory.load(bytearray(BC_ENTER_LOOPER.to_bytes(4, "little")), read=True)
    reading, outcome = outcome_of(partial(read_on, memory, device))
    kept = weakref.ref(memory)
    del memory
    eventually(lambda: sleeps(reading.native_id))
    world.end(how)
    reading.join(PATIENCE)
    assert outcome == [errno.ECONNABORTED]
    device.close()
    gc.collect()
    assert kept() is not None
    # It is let go of when the next one comes, if that is late enough.
    monkeypatch.setattr(driver, "OUTLIVE_SECONDS", -1.0)
    monkeypatch.setattr(device, "call", lambda _request, _address: errno.ECONNABORTED)
    assert WriteRead().run(device, lambda: False) == errno.ECONNABORTED
    gc.collect()
    assert kept() is None


def read_on(memory: WriteRead, device: Driver) -> int:
    """Read until there is an error: a new thread, and one that a flush woke, comes back with 0."""
    while not (number := memory.run(device, lambda: False)):
        memory.load(bytearray(), read=True)
    return number


def test_the_number_of_a_closed_file_means_no_other_while_a_thread_is_in_it(bench: Bench) -> None:
    driver = Driver(str(bench.device), 1 << 20)
    driver.enter()  # as a thread does that is about to make an ioctl
    number = driver.fd
    driver.close()
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    assert number not in others
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        os.tcgetpgrp(number)
    driver.leave()
    others.append(os.open("/dev/null", os.O_RDONLY))
    assert number in others
    for other in others:
        os.close(other)


# The return


@pytest.mark.parametrize("how", ENDS)
def test_a_device_comes_back_with_its_services(world: World, how: str) -> None:
    world.start_manager()
    told: list[str] = []
    with Device(world.path, reconnect=True) as server, Device(world.path, reconnect=True) as client:
        serve(server, EchoService())
        client.on_gone(lambda _device: told.append("gone"))
        client.on_back(lambda _device: told.append("back"))
        old = ServiceManager(client).wait(NAME, PATIENCE)
        client.start_thread_pool()
        old.link_to_death(lambda _proxy: told.append("dead"))
        assert echo(old, 1) == 1
        world.restart(how)
        new = ServiceManager(client).wait(NAME, PATIENCE)
        assert echo(new, 2) == 2
        with pytest.raises(DeviceGone):
            echo(old, 3)
        with pytest.raises(DeadObject):
            old.link_to_death(lambda _proxy: told.append("late"))
        assert client.wait_back(PATIENCE)
        eventually(lambda: len(told) == 3)
        assert told == ["dead", "gone", "back"]
    assert "back" in world.end_manager()


def test_a_device_without_any_thread_or_call_comes_back(world: World) -> None:
    back = threading.Event()
    with Device(world.path, reconnect=True) as device:
        device.on_back(lambda _device: back.set())
        world.restart()
        assert back.wait(PATIENCE)
        with pytest.raises(DeadObject) as caught:
            device.context_manager.ping()
        assert not is_gone(caught.value)


def test_services_wait_for_a_manager_that_comes_later(world: World) -> None:
    world.start_manager("--no-reconnect")
    with Device(world.path, reconnect=True) as server, Device(world.path, reconnect=True) as client:
        serve(server, EchoService())
        waiting, found = outcome_of(lambda: ServiceManager(client).wait(NAME + ".2", PATIENCE))
        world.end("SIGKILL")
        assert world.manager is not None
        assert world.manager.wait(PATIENCE) == 1
        world.daemon.start()
        assert server.wait_back(PATIENCE)
        assert client.wait_back(PATIENCE)
        with pytest.raises(DeadObject):
            ServiceManager(client).list()
        world.kill_manager()
        world.start_manager()
        assert echo(ServiceManager(client).wait(NAME, PATIENCE), 5) == 5
        ServiceManager(server).add(NAME + ".2", EchoService())
        waiting.join(PATIENCE)
        assert isinstance(found[0], Proxy), found


def test_services_are_offered_to_a_manager_that_was_restarted_alone(world: World) -> None:
    world.start_manager()
    with Device(world.path, reconnect=True) as server, Device(world.path) as client:
        serve(server, EchoService())
        for number in range(3):
            world.kill_manager()
            world.start_manager()
            assert echo(ServiceManager(client).wait(NAME, PATIENCE), number) == number
        assert not server.gone


def test_who_waits_for_a_service_gets_it_after_the_restart(world: World) -> None:
    world.start_manager()
    with Device(world.path, reconnect=True) as client:
        waiting, found = outcome_of(lambda: ServiceManager(client).wait(NAME, 3 * PATIENCE))
        eventually(lambda: ServiceManager(client).list() == ["manager"])
        world.restart()
        with Device(world.path) as server:
            assert client.wait_back(PATIENCE)
            eventually(lambda: answers(server))
            serve(server, EchoService())
            waiting.join(PATIENCE)
            assert isinstance(found[0], Proxy), found
            assert echo(found[0], 4) == 4


def answers(device: Device) -> bool:
    try:
        device.context_manager.ping()
    except DeadObject:
        return False
    return True


def test_waiting_for_a_name_ends_in_time_while_nothing_is_there(world: World) -> None:
    world.start_manager()
    with Device(world.path, reconnect=True) as client:
        world.end("SIGKILL")
        with pytest.raises(ServiceNotFound):
            ServiceManager(client).wait(NAME, 0.2)


def test_a_context_manager_is_one_again(world: World) -> None:
    with Device(world.path, reconnect=True) as manager, Device(world.path, reconnect=True) as other:
        manager.become_context_manager(EchoService())
        manager.start_thread_pool()
        world.restart()
        assert manager.wait_back(PATIENCE)
        assert other.wait_back(PATIENCE)
        with pytest.raises(DeviceError, match="there is a context manager already"):
            other.become_context_manager(EchoService())


def test_a_service_that_is_held_by_name_is_found_again(world: World) -> None:
    world.start_manager()
    with Device(world.path, reconnect=True) as server, Device(world.path, reconnect=True) as client:
        serve(server, EchoService())
        held_by_name = ServiceManager(client).named(NAME)
        for number in range(3):
            held_by_name.wait(PATIENCE)
            with held_by_name.call(ECHO, request(number)) as reply:
                assert reply.read_int32() == number
            world.restart()


def test_a_death_callback_may_wait_for_the_return(world: World) -> None:
    world.start_manager()
    answers: list[int] = []
    with Device(world.path, reconnect=True) as server, Device(world.path, reconnect=True) as client:
        serve(server, EchoService())
        manager = ServiceManager(client)

        def found_again(_dead: Proxy) -> None:
            answers.append(echo(manager.wait(NAME, PATIENCE), 6))

        client.start_thread_pool()
        manager.wait(NAME, PATIENCE).link_to_death(found_again)
        world.restart()
        eventually(lambda: answers == [6])


@pytest.mark.parametrize("is_there", [True, False])
def test_a_thread_that_serves_goes_on_until_it_is_stopped(world: World, is_there: bool) -> None:
    world.start_manager()
    with Device(world.path, reconnect=True) as server, Device(world.path) as client:
        ServiceManager(server).add(NAME, EchoService())
        serving, outcome = outcome_of(server.join_thread_pool)
        assert echo(ServiceManager(client).get(NAME), 1) == 1
        world.end("SIGKILL")
        if is_there:
            world.daemon.start()
            with Device(world.path) as second:
                assert server.wait_back(PATIENCE)
                eventually(lambda: answers(second))
                assert echo(ServiceManager(second).wait(NAME, PATIENCE), 2) == 2
        else:
            eventually(lambda: server.gone)
        assert serving.is_alive()
        server.stop()
        serving.join(PATIENCE)
        assert outcome == [None]


def test_a_signal_handler_stops_a_thread_that_waits_for_the_return(world: World) -> None:
    with Device(world.path, reconnect=True) as device:
        previous = signal.signal(signal.SIGALRM, lambda _number, _frame: device.stop())
        try:
            device.on_gone(lambda _device: os.kill(os.getpid(), signal.SIGALRM))
            killing, _ = outcome_of(lambda: world.end("SIGKILL"))
            device.join_thread_pool()
            killing.join(PATIENCE)
        finally:
            signal.signal(signal.SIGALRM, previous)


def has_open(path: Path) -> bool:
    """Has this process a descriptor of that file?"""
    status = os.stat(path)
    found = set()
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            found.add(os.fstat(number).st_dev)
    return status.st_dev in found


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_no_part_in_the_return(world: World) -> None:
    with Device(world.path, reconnect=True) as device:
        device.start_thread_pool()  # a thread that is in an ioctl at the fork
        with pytest.raises(DeadObject):
            device.context_manager.ping()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with pytest.raises(DeviceError, match="before a fork"):
                    device.context_manager.ping()
                device.close()
                assert not has_open(world.path)
                status = 0
            finally:
                os._exit(status)
        assert has_open(world.path)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        world.restart()
        assert device.wait_back(PATIENCE)


def test_closing_while_the_device_is_away(world: World) -> None:
    before = held()
    device = Device(world.path, reconnect=True)
    world.end("SIGKILL")
    eventually(lambda: device.gone)
    assert not device.wait_back(0.05)
    waiting, outcome = outcome_of(device.wait_back)
    device.close()
    waiting.join(PATIENCE)
    assert isinstance(outcome[0], DeviceError)
    assert not is_gone(outcome[0])
    with pytest.raises(DeviceError, match="closed"):
        device.wait_back()
    assert holds_no_more(before)


def test_waiting_for_the_return_costs_next_to_nothing(world: World) -> None:
    with Device(world.path, reconnect=True) as device:
        device.start_thread_pool()
        world.end("SIGKILL")
        eventually(lambda: device.gone)
        used = sum(os.times()[:2])
        assert not device.wait_back(3.0)
        assert sum(os.times()[:2]) - used < 1


def test_many_restarts_leave_nothing_behind(world: World) -> None:
    """``make soak-restarts`` does it a hundred times."""
    world.start_manager()
    base = held()
    with Device(world.path, reconnect=True) as server, Device(world.path, reconnect=True) as client:
        serve(server, EchoService())
        manager = ServiceManager(client)
        after: list[tuple[int, int, int]] = []
        deaths: list[int] = []
        kept: list[Proxy] = []
        for number in range(RESTARTS):
            proxy = manager.wait(NAME, PATIENCE)
            kept.append(proxy)
            assert echo(proxy, number) == number
            proxy.link_to_death(lambda _dead, number=number: deaths.append(number))
            after.append(held())
            world.restart(ENDS[number % 2])
        eventually(lambda: deaths == list(range(RESTARTS)))
        # The threads of one session may be there when those of the next one are.
        assert all(
            n <= first + 3 for counts in after for n, first in zip(counts, after[0], strict=True)
        )
        eventually(lambda: held() <= after[0], f"{held()} {after[0]}")
    # A thread that had something to do at the end stays for IDLE_SECONDS.
    patience = 3 * IDLE_SECONDS
    eventually(lambda: held()[:2] <= base[:2], f"{held()} {base}", seconds=patience)
