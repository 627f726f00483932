# SPDX-License-Identifier: Apache-2.0
"""``binderclient.testing``: clients and services in one process, without a daemon."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from binderclient.blocking import Device
from binderclient.errors import (
    DeadObject,
    DeviceError,
    DeviceGone,
    FailedTransaction,
    FrozenObject,
    ParcelError,
    RemoteException,
)
from binderclient.objects import Proxy, Service, caller, transaction
from binderclient.parcel import Parcel
from binderclient.servicemanager import ServiceManager, ServiceManagerService
from binderclient.testing import Binder, LeakError
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from binderclient.ibinder import IBinder

ECHO, WHO, FILE, KEEP, WAIT, NOTHING, CALL_BACK = range(1, 8)
PATIENCE = 10.0


class Everything(Service):
    """A service with one method for each thing that can be asked."""

    descriptor = "org.example.IEverything"
    accepts_descriptors = True

    def __init__(self) -> None:
        self.kept: list[IBinder] = []
        self.is_called = threading.Event()
        self.go_on = threading.Event()

    @transaction(ECHO)
    def echo(self, data: Parcel, reply: Parcel) -> None:
        reply.write_string16(data.read_string16() or "")

    @transaction(WHO)
    def who(self, data: Parcel, reply: Parcel) -> None:
        reply.write_int32(caller().sender_pid)
        reply.write_int32(caller().sender_euid)

    @transaction(FILE)
    def file(self, data: Parcel, reply: Parcel) -> None:
        with data.read_file() as file:
            reply.write_bytes(os.pread(file.fileno(), 100, 0))

    @transaction(KEEP)
    def keep(self, data: Parcel, reply: Parcel) -> None:
        self.kept.append(data.read_strong_binder())

    @transaction(WAIT)
    def wait(self, data: Parcel, reply: Parcel) -> None:
        self.is_called.set()
        assert self.go_on.wait(PATIENCE)

    @transaction(NOTHING)
    def nothing(self, data: Parcel, reply: Parcel) -> None:
        """Return nothing at all."""

    @transaction(CALL_BACK)
    def call_back(self, data: Parcel, reply: Parcel) -> None:
        callback = data.read_strong_binder()
        assert isinstance(callback, Proxy)
        with callback.call(ECHO, request("back")) as answer:
            reply.write_string16(answer.read_string16() or "")


def request(text: str | None = None) -> Parcel:
    parcel = Parcel.for_interface(Everything.descriptor)
    if text is not None:
        parcel.write_string16(text)
    return parcel


def with_object(binder: IBinder) -> Parcel:
    parcel = request()
    parcel.write_strong_binder(binder)
    return parcel


def echo(proxy: Proxy, text: str) -> str | None:
    with proxy.call(ECHO, request(text)) as reply:
        return reply.read_string16()


class Pair:
    """A service, and who calls it."""

    def __init__(self, binder: Binder) -> None:
        self.binder = binder
        self.service = Everything()
        self.server, self.client = binder.process(uid=10), binder.process(uid=20)
        self.devices = ExitStack()
        server = self.devices.enter_context(self.server.device())
        server.become_context_manager(self.service)
        server.start_thread_pool()
        self.server_device = server
        self.device = self.devices.enter_context(self.client.device())
        self.proxy = self.device.context_manager


@pytest.fixture
def pair(binder: Binder) -> Iterator[Pair]:
    pair = Pair(binder)
    with pair.devices:
        yield pair


@pytest.mark.parametrize("size", [0, 1, 10, 100_000])
def test_a_call(pair: Pair, size: int) -> None:
    assert echo(pair.proxy, size * "x") == size * "x"
    pair.proxy.call(NOTHING, request()).close()


def test_who_calls(pair: Pair) -> None:
    with pair.proxy.call(WHO, request()) as reply:
        assert reply.read_int32() == pair.client.pid
        assert reply.read_int32() == 20


def test_an_exception_of_the_service(pair: Pair) -> None:
    with pytest.raises(RemoteException):
        pair.proxy.call(99, request())


def test_a_file_is_another_descriptor_of_the_same_file(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    before = len(os.listdir("/proc/self/fd"))
    with request() as data:
        with (tmp_path / "text").open() as file:
            data.write_file(file)  # which may be closed then
        for _ in range(2):
            with pair.proxy.call(FILE, data) as reply:
                assert reply.read_bytes() == b"hello"
    with pytest.raises(ParcelError, match="given back"):
        pair.proxy.call(FILE, data)
    pair.devices.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_none(pair: Pair, tmp_path: Path) -> None:
    place = os.open(tmp_path, os.O_PATH)
    before = len(os.listdir("/proc/self/fd"))
    data = request()
    data.write_file(place)
    with pytest.raises(FailedTransaction):
        pair.proxy.call(FILE, data)
    del data
    pair.device.flush()
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(place)


def test_calls_nest(pair: Pair) -> None:
    with pair.proxy.call(CALL_BACK, with_object(Everything())) as reply:
        assert reply.read_string16() == "back"


def test_many_threads(pair: Pair) -> None:
    answers: list[str | None] = []

    def call(number: int) -> None:
        answers.extend(echo(pair.proxy, str(number)) for _ in range(50))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(answers, key=str) == sorted(str(number) for number in range(8) for _ in range(50))


def test_one_way_calls_arrive_in_order(pair: Pair) -> None:
    objects = [Everything() for _ in range(20)]
    for binder in objects:
        pair.proxy.call(KEEP, with_object(binder), oneway=True)
    eventually(lambda: len(pair.service.kept) == len(objects))
    handles = [binder.handle for binder in pair.service.kept if isinstance(binder, Proxy)]
    assert handles == sorted(handles)


def test_a_death_is_told(pair: Pair) -> None:
    is_told = threading.Event()
    pair.device.start_thread_pool()
    pair.proxy.link_to_death(lambda _: is_told.set())
    pair.server.kill()
    assert is_told.wait(PATIENCE)
    with pytest.raises(DeadObject):
        echo(pair.proxy, "x")
    eventually(lambda: pair.server_device.gone)
    with pytest.raises(DeviceGone):
        pair.server_device.proxy(1)
    with pytest.raises(DeviceError, match="dead"):
        pair.server.device()


def test_a_service_dies_in_a_call(pair: Pair) -> None:
    outcome: list[Exception] = []

    def call() -> None:
        try:
            pair.proxy.call(WAIT, request())
        except DeadObject as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert pair.service.is_called.wait(PATIENCE)
    pair.server.kill()
    pair.service.go_on.set()
    thread.join(PATIENCE)
    assert len(outcome) == 1


@pytest.mark.parametrize("code", [ECHO, NOTHING])
def test_a_reply_is_lost(pair: Pair, code: int) -> None:
    pair.server.lose_reply()
    with pytest.raises(FailedTransaction):
        pair.proxy.call(code, request("x"))
    assert echo(pair.proxy, "x") == "x"


def test_a_process_without_memory(pair: Pair) -> None:
    pair.server.is_full = True
    with pytest.raises(FailedTransaction, match="ENOMEM"):
        echo(pair.proxy, "x")
    pair.server.is_full = False
    assert echo(pair.proxy, "x") == "x"


def test_a_small_receive_area(binder: Binder) -> None:
    with binder.device() as server, binder.device(map_size=8192) as client:
        server.become_context_manager(Everything())
        server.start_thread_pool()
        with pytest.raises(FailedTransaction):
            echo(client.context_manager, 10_000 * "x")
        assert echo(client.context_manager, "x") == "x"


def test_frozen(pair: Pair) -> None:
    pair.server.freeze()
    with pytest.raises(FrozenObject):
        echo(pair.proxy, "x")
    pair.server.thaw()
    assert echo(pair.proxy, "x") == "x"


def test_time_is_virtual(pair: Pair) -> None:
    """An hour passes for a freeze that waits for a call."""
    caller_thread = threading.Thread(target=lambda: pair.proxy.call(WAIT, request()).close())
    caller_thread.start()
    assert pair.service.is_called.wait(PATIENCE)
    errors: list[int | None] = []

    def freeze() -> None:
        try:
            pair.server.freeze(timeout=3600)
        except OSError as error:
            errors.append(error.errno)

    freezer = threading.Thread(target=freeze)
    freezer.start()
    eventually(lambda: pair.binder.counts()["freezing"] == 1)
    pair.binder.advance(3599)
    assert freezer.is_alive()
    pair.binder.advance(1)
    freezer.join(PATIENCE)
    assert errors == [errno.EAGAIN]
    pair.service.go_on.set()
    caller_thread.join(PATIENCE)


def test_a_process_that_has_opened_nothing_cannot_be_frozen(binder: Binder) -> None:
    with pytest.raises(OSError, match="Invalid"):
        binder.process().freeze()


def test_two_devices_have_two_managers(binder: Binder) -> None:
    with binder.device("binder") as one, binder.device("hwbinder") as two:
        one.become_context_manager(Everything())
        two.become_context_manager(Everything())
        with binder.device("binder") as another, pytest.raises(DeviceError, match="already"):
            another.become_context_manager(Everything())


def test_code_that_opens_a_path(binder: Binder) -> None:
    path = binder.path()
    with Device(path) as server, Device(path) as client:
        server.become_context_manager(Everything())
        server.start_thread_pool()
        assert echo(client.context_manager, "x") == "x"
    with pytest.raises(DeviceError), Device(path + "-other"):
        pass


def test_services_by_name(binder: Binder) -> None:
    with binder.device() as manager, binder.device() as server, binder.device() as client:
        manager.become_context_manager(ServiceManagerService())
        manager.start_thread_pool()
        server.start_thread_pool()
        ServiceManager(server).add("org.example.everything", Everything())
        found = ServiceManager(client).wait("org.example.everything")
        assert isinstance(found, Proxy)
        assert echo(found, "x") == "x"


async def test_trio(binder: Binder) -> None:
    async with binder.async_device() as server, binder.async_device() as client:
        server.become_context_manager(Everything())
        server.start_serving()
        with trio.fail_after(PATIENCE):
            proxy = client.context_manager
            with await proxy.call(ECHO, request("x")) as reply:
                assert reply.read_string16() == "x"


def test_what_is_left_open_is_told() -> None:
    with pytest.raises(LeakError, match="device binder of process 1000 is open"), Binder() as one:
        device = one.device()
    with pytest.raises(DeviceError):
        device.context_manager.ping()


def test_the_end_can_come_twice() -> None:
    one = Binder()
    process = one.process()
    process.device()
    assert one.close()
    assert not one.close()
    process.kill()


def test_a_failure_is_not_hidden_by_what_it_leaves() -> None:
    one = Binder()
    one.device()
    one.__exit__(ZeroDivisionError, ZeroDivisionError(), None)


def test_an_interrupted_call_ends(pair: Pair) -> None:
    class Stop(Exception):
        pass

    def stop(_number: int, _frame: object) -> None:
        raise Stop

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(Stop):
            pair.proxy.call(WAIT, request())
    finally:
        signal.signal(signal.SIGALRM, previous)
        pair.service.go_on.set()
    assert echo(pair.proxy, "x") == "x"


def test_a_finalizer_that_calls(pair: Pair) -> None:
    """Large replies are handed back by whoever drops them, at any point of any thread."""

    def leave_garbage() -> None:
        reply = pair.proxy.call(ECHO, request(50_000 * "x"))
        cycle = [reply]
        cycle.append(cycle)  # type: ignore[arg-type]

    before = gc.get_threshold()
    gc.set_threshold(5)
    try:
        for _ in range(100):
            leave_garbage()
    finally:
        gc.set_threshold(*before)
    assert gc.isenabled()


def test_the_plugin_is_there_where_binderd_is_installed(tmp_path: Path) -> None:
    """As somebody else's project has it, with nothing configured."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(
        "def test_it(binder):\n"
        "    with binder.device() as device:\n"
        "        assert not binder.counts()['transactions']\n"
        "def test_leak(binder):\n"
        "    binder.device()\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_it.py"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert "2 passed, 1 error" in outcome.stdout
    assert "device binder of process 1000 is open" in outcome.stdout
