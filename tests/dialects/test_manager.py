# SPDX-License-Identifier: Apache-2.0
"""The service manager's own work: lazy services, dumps, deaths, many services, and floods."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from binderclient import android
from binderclient.blocking import Device
from binderclient.errors import FailedTransaction, RemoteException
from binderclient.objects import (
    Caller,
    Proxy,
    Service,
    reset_caller,
    set_caller,
    transaction,
)
from binderclient.parcel import Parcel
from binderclient.servicemanager import ServiceManager, formats
from binderclient.servicemanager.complaints import Complaints
from binderclient.servicemanager.entries import CALLBACKS_PER_NAME, Quota
from binderclient.servicemanager.report import REPORTS_PER_USER, Reporter
from binderclient.servicemanager.values import Offered, write_arguments
from binderwire.service_manager import ON_REGISTRATION, dialect_of
from client.drivers import PATIENCE
from dialects.hostile import stopped
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from client.conftest import Bench
    from dialects.conftest import Start

SERVICES_COUNT: Final = 10_000
ONLY_ITSELF: Final = "Only service can register client callback for itself."


class Lazy(Service):
    descriptor = "a.ILazy"


@pytest.mark.parametrize("chosen", [13, 16])
def test_a_lazy_service_hears_of_its_clients(bench: Bench, start: Start, chosen: int) -> None:
    start("--android", str(chosen))
    heard: queue.Queue[bool] = queue.Queue()
    with Device(bench.device) as server:
        server.start_thread_pool()
        own, service = ServiceManager(server, chosen), Lazy()
        own.add("lazy", service)
        own.register_client_callback("lazy", service, heard.put)
        with Device(bench.device) as client:
            proxy = ServiceManager(client, chosen).get("lazy")
            assert heard.get(timeout=PATIENCE) is True
            with pytest.raises(RemoteException, match="pending client"):
                own.try_unregister("lazy", service)
            eventually(lambda: tried(own, service) == "Can't unregister, known client.")
            proxy.ping()
            assert heard.empty()
        assert heard.get(timeout=2 * PATIENCE) is False
        own.try_unregister("lazy", service)
        assert own.list() == ["manager"]
        own.add("lazy", service)  # and it can come back


def tried(manager: ServiceManager, service: Service) -> str:
    with pytest.raises(RemoteException) as caught:
        manager.try_unregister("lazy", service)
    return caught.value.message


def test_a_service_is_only_its_own_servers_to_take_back(bench: Bench, start: Start) -> None:
    start()
    with Device(bench.device) as server:
        server.start_thread_pool()
        ServiceManager(server).add("lazy", Lazy())
        assert [tuple(refusal) for refusal in bench.elsewhere("meddle")] == [
            (android.EX_UNSUPPORTED_OPERATION, "Service can only unregister itself."),
            (android.EX_UNSUPPORTED_OPERATION, ONLY_ITSELF),
        ]
        assert ServiceManager(server).list() == ["lazy", "manager"]


# Dump and shell command


def dump(device: Device, descriptor: int, *words: str) -> None:
    request = Parcel()
    request.write_file(descriptor)
    request.write_int32(len(words))
    for word in words:
        request.write_string16(word)
    device.context_manager.call(android.DUMP_TRANSACTION, request).close()


class Receiver(Service):
    descriptor = android.RESULT_RECEIVER_DESCRIPTOR

    def __init__(self) -> None:
        self.results: queue.Queue[int] = queue.Queue()

    @transaction(android.RESULT_RECEIVER_SEND)
    def send(self, data: Parcel, _reply: Parcel) -> None:
        self.results.put(data.read_int32())


def shell(service: Proxy, output: int, error: int, *words: str) -> int:
    receiver = Receiver()
    request = Parcel()
    for descriptor in (0, output, error):
        request.write_file(descriptor)
    request.write_int32(len(words))
    for word in words:
        request.write_string16(word)
    request.write_strong_binder(None)
    request.write_strong_binder(receiver)
    service.call(android.SHELL_COMMAND_TRANSACTION, request).close()
    return receiver.results.get(timeout=PATIENCE)


def test_dump_and_shell_command(bench: Bench, start: Start, tmp_path: Path) -> None:
    start("--android", "14")
    with Device(bench.device) as device, (tmp_path / "out").open("w+b") as out:
        device.start_thread_pool()
        ServiceManager(device, 14).add("a.b", Lazy())
        dump(device, out.fileno(), "a.b")
        eventually(lambda: out.seek(0) == 0 and out.read().count(b"\n") == 2)
        out.seek(0)
        first, line = out.read().decode().splitlines()
        assert first == "service manager of Android 14"
        assert line.startswith(f"a.b: process {os.getpid()}, user {os.geteuid()}, stability 0xc")
        with (tmp_path / "list").open("w+b") as listed, (tmp_path / "error").open("w+b") as error:
            manager = device.context_manager
            assert shell(manager, listed.fileno(), error.fileno(), "list") == 0
            listed.seek(0)
            assert listed.read() == b"a.b\nmanager\n"
            assert shell(manager, listed.fileno(), error.fileno(), "dance") == -1
            error.seek(0)
            assert error.read().startswith(b"usage: ")


def test_any_service_answers_a_shell_command(bench: Bench, start: Start) -> None:
    class Quiet(Service):
        accepts_descriptors = True

    start()
    with Device(bench.device) as server, Device(bench.device) as device:
        server.start_thread_pool()
        device.start_thread_pool()
        ServiceManager(server).add("quiet", Quiet())
        quiet = ServiceManager(device).get("quiet")
        assert shell(quiet, 1, 2, "what") == android.STATUS_INVALID_OPERATION


def test_dumps_that_nobody_reads_hold_up_nobody(bench: Bench, start: Start) -> None:
    start()
    readers, writers = [], []
    with Device(bench.device) as device:
        manager = ServiceManager(device)
        for _ in range(REPORTS_PER_USER):
            reader, writer = full_pipe()
            readers.append(reader)
            writers.append(writer)
            dump(device, writer)
        with pytest.raises(RemoteException) as caught:
            dump(device, writers[0])
        assert caught.value.status == android.STATUS_WOULD_BLOCK
        assert manager.list() == ["manager"]
        for descriptor in readers:
            os.close(descriptor)  # those reports end with EPIPE
        with open(os.devnull, "wb") as nowhere:
            eventually(lambda: dumped(device, nowhere.fileno()))
        for descriptor in writers:
            os.close(descriptor)


def test_dumps_leave_no_file_behind(bench: Bench, start: Start) -> None:
    process = start()
    with Device(bench.device) as device, open(os.devnull, "wb") as nowhere:
        files = f"/proc/{process.pid}/fd"
        dump(device, nowhere.fileno())
        before = len(os.listdir(files))
        for _ in range(20):
            dump(device, nowhere.fileno())
        eventually(lambda: len(os.listdir(files)) <= before)


def test_reports_of_one_user_leave_room_for_others(tmp_path: Path) -> None:
    reporter, pipes = Reporter(), [full_pipe() for _ in range(REPORTS_PER_USER)]
    for _, writer in pipes:
        reporter.write(1, writer, "text")
    with (tmp_path / "out").open("w+b") as out:
        with pytest.raises(RemoteException):
            reporter.write(1, out.fileno(), "no")
        reporter.write(2, out.fileno(), "yes")
        eventually(lambda: out.seek(0) == 0 and out.read() == b"yes")
        for descriptor in (descriptor for pipe in pipes for descriptor in pipe):
            os.close(descriptor)
        eventually(lambda: not reporter._of_user)


def dumped(device: Device, descriptor: int) -> bool:
    try:
        dump(device, descriptor)
    except RemoteException:
        return False
    return True


def full_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.write(writer, bytes(fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)))
    return reader, writer


# Many services, deaths, floods


def test_ten_thousand_services_come_and_die(bench: Bench, start: Start) -> None:
    start()
    with Device(bench.device) as client:
        manager = ServiceManager(client)
        server = Device(bench.device)
        server.start_thread_pool()
        own = ServiceManager(server)
        for number in range(SERVICES_COUNT):
            own.add(f"a.{number}", Lazy())
        assert len(manager.list()) == SERVICES_COUNT + 1
        assert manager.get("a.9999").interface() == Lazy.descriptor
        server.close()
        # The driver tells one death for each read, in the order of all that comes: who asks now
        # waits for those that were before.
        slowest, deadline = 0.0, time.monotonic() + 3 * PATIENCE
        while time.monotonic() < deadline:
            asked = time.monotonic()
            found = manager.check("a.9999")
            slowest = max(slowest, time.monotonic() - asked)
            if found is None and manager.list() == ["manager"]:
                break
        assert manager.list() == ["manager"]
        assert slowest < PATIENCE


def test_a_notification_that_does_not_fit_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[object] = []
    callback = formats.RegistrationCallback(dialect_of(13), lambda *news: seen.append(news))
    for dialect in (13, 12):
        notice = Parcel.for_interface(callback.descriptor)
        write_arguments(notice, dialect_of(dialect), ON_REGISTRATION, ("a", Offered(Lazy())))
        notice.position = 0
        if dialect == 13:
            callback.on_transact(1, notice, Parcel(), 0)
            assert not caplog.messages
        else:
            with pytest.raises(RemoteException):
                callback.on_transact(1, notice, Parcel(), 0)
    assert len(seen) == 1
    assert "no onRegistration of Android 13" in caplog.text


class Deaf(Service):
    """A callback whose process reads nothing."""

    descriptor = "android.os.IServiceCallback"


def test_callbacks_that_are_not_read_hold_up_nobody(bench: Bench, start: Start) -> None:
    start()
    with Device(bench.device, map_size=1 << 16) as deaf, Device(bench.device) as device:
        quiet = ServiceManager(deaf)
        for _ in range(CALLBACKS_PER_NAME):
            quiet._ask("registerForNotifications", "busy", Offered(Deaf()))
        with pytest.raises(RemoteException, match="Too many callbacks"):
            quiet._ask("registerForNotifications", "busy", Offered(Deaf()))
        seen: queue.Queue[str] = queue.Queue()
        manager = ServiceManager(device)
        manager.register_for_notifications("other", lambda name, _service: seen.put(name))
        for _ in range(3):
            manager.add("busy", Lazy())  # more than its area has room for
        manager.add("other", Lazy())
        assert seen.get(timeout=PATIENCE) == "other"


def test_processes_that_do_nothing_hold_up_nobody(bench: Bench, start: Start) -> None:
    """The manager waits for nobody: not for services and callbacks of a process that is stopped."""
    start()
    with stopped(bench, "stopped"), Device(bench.device) as device:
        manager = ServiceManager(device)
        found = manager.get("stopped")
        seen: queue.Queue[str] = queue.Queue()
        manager.register_for_notifications("stopped", lambda name, _service: seen.put(name))
        assert seen.get(timeout=PATIENCE) == "stopped"
        assert manager.list() == ["manager", "stopped"]
        assert not found.dead


def test_one_way_floods_hold_up_nobody(bench: Bench, start: Start) -> None:
    start()
    over = threading.Event()

    def flood() -> None:
        with Device(bench.device) as device:
            while not over.is_set():
                call = formats.call(dialect_of(13), "listServices", 15)
                with contextlib.suppress(FailedTransaction):  # there is no room for more
                    device.context_manager.call(call.code, call.request, oneway=True)

    flooding = [threading.Thread(target=flood) for _ in range(2)]
    for thread in flooding:
        thread.start()
    try:
        with Device(bench.device) as device:
            manager = ServiceManager(device)
            for number in range(50):
                asked = time.monotonic()
                manager.add(f"a.{number}", Lazy())
                assert manager.check(f"a.{number}") is not None
                assert time.monotonic() - asked < PATIENCE / 2
    finally:
        over.set()
        for thread in flooding:
            thread.join(PATIENCE)


def test_one_user_cannot_have_it_all() -> None:
    quota = Quota("things", 10)
    for _ in range(5):
        quota.take(1)
    with pytest.raises(RemoteException, match="Too many things"):
        quota.take(1)
    for _ in range(5):
        quota.take(2)
    with pytest.raises(RemoteException, match="Too many things"):
        quota.take(3)
    quota.give(1)
    quota.take(3)


def test_a_binder_with_several_names_dies_once(bench: Bench, start: Start) -> None:
    start()
    with Device(bench.device) as client:
        manager = ServiceManager(client)
        with Device(bench.device) as server:
            server.start_thread_pool()
            own, service = ServiceManager(server), Lazy()
            for name in ("one", "two", "two"):
                own.add(name, service)
            own.add("one", Lazy())
            assert manager.get("two") is not manager.get("one")
        eventually(lambda: manager.list() == ["manager"])


def test_random_requests_leave_it_standing(bench: Bench, start: Start) -> None:
    process = start("--android", "16")
    whole = [
        formats.call(dialect_of(16), name, *values).request
        for name, values in (
            ("addService", ("a", Offered(Lazy()), False, 8)),
            ("registerForNotifications", ("a", Offered(Lazy()))),
            ("listServices", (15,)),
        )
    ]
    with Device(bench.device) as device:
        for code in range(20):
            for request in whole:
                for size in range(0, len(request), 4):
                    send(device, code, bytes(request)[:size] + b"\xff" * (code % 3 * 4))
        assert ServiceManager(device, 16).list() == ["manager"]
    assert "Traceback" not in process.end()


def send(device: Device, code: int, data: bytes) -> None:
    with contextlib.suppress(RemoteException):
        device.context_manager.call(code, Parcel(data)).close()


def test_the_log_is_not_a_clients_to_fill(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints("what to do")
    for uid in range(3):
        for number in range(100):
            token = set_caller(Caller(7, uid, False))
            complaints.refused(1, f"reason {number}")
            complaints.refused(1, f"reason {number}")
            reset_caller(token)
    assert 3 <= len(caplog.messages) < 150
    assert len(set(caplog.messages)) == len(caplog.messages)
    assert caplog.messages[-1].startswith("refused code 1 of process 7, user 2: reason ")
