# SPDX-License-Identifier: Apache-2.0
"""``android.hidl.manager`` on hwbinder, with clients whose every buffer is written by hand."""

from __future__ import annotations

import os
import queue
import struct
import threading
from typing import TYPE_CHECKING, Final

import pytest

from binderclient import android
from binderclient.blocking import Device
from binderclient.errors import FailedTransaction, ParcelError, RemoteException
from binderclient.objects import Service
from binderclient.parcel import Parcel
from binderclient.servicemanager import ServiceManager
from client.drivers import PATIENCE
from client.managers import cli
from dialects.hostile import silent
from support.waiting import eventually

if TYPE_CHECKING:
    from binderclient.ibinder import IBinder
    from client.conftest import Bench
    from dialects.conftest import Start

V10: Final = "android.hidl.manager@1.0::IServiceManager"
V11: Final = "android.hidl.manager@1.1::IServiceManager"
V12: Final = "android.hidl.manager@1.2::IServiceManager"
BASE: Final = "android.hidl.base@1.0::IBase"
FOO: Final = "a.foo@1.1::IFoo"
OLD_FOO: Final = "a.foo@1.0::IFoo"
CHAIN: Final = (FOO, OLD_FOO, BASE)


class Foo(Service):
    """A HIDL service: says of which interfaces it is, each call in a parcel of its own making."""

    def __init__(self, chain: tuple[str, ...] = CHAIN) -> None:
        self.chain = chain

    def on_transact(self, code: int, data: Parcel, reply: Parcel, _flags: int) -> None:
        assert (code, data.read_cstring(), data.remaining) == (0x0F43484E, BASE, 0)
        reply.write_int32(0)
        put_strings(reply, *self.chain)


class Callback(Service):
    def __init__(self, descriptor: str) -> None:
        self._descriptor = descriptor
        self.seen: queue.Queue[tuple[object, ...]] = queue.Queue()

    def on_transact(self, code: int, data: Parcel, _reply: Parcel, _flags: int) -> None:
        assert (code, data.read_cstring()) == (1, self._descriptor)
        if "Notification" in self._descriptor:
            self.seen.put((take_string(data), take_string(data), data.read_int32()))
        else:
            self.seen.put((data.read_bare_binder(), data.read_int32()))
        assert not data.remaining


def put_string(parcel: Parcel, text: str) -> None:
    head = parcel.write_buffer(struct.pack("=QIB3x", 0, len(text), 1))
    parcel.write_buffer(text.encode() + b"\0", parent=head, parent_offset=0)


def put_strings(parcel: Parcel, *texts: str) -> None:
    head = parcel.write_buffer(struct.pack("=QIB3x", 0, len(texts), 1))
    records = b"".join(struct.pack("=QIB3x", 0, len(text), 1) for text in texts)
    array = parcel.write_buffer(records, parent=head, parent_offset=0)
    for number, text in enumerate(texts):
        parcel.write_buffer(text.encode() + b"\0", parent=array, parent_offset=16 * number)


def take_string(parcel: Parcel) -> str:
    head, text = parcel.read_buffer(), parcel.read_buffer()
    address, size, _owns = struct.unpack("=QIB3x", head.data)
    assert (text.address, len(text.data), text.parent) == (address, size + 1, head.index)
    return bytes(text.data)[:-1].decode()


def take_strings(parcel: Parcel) -> list[str]:
    head, array = parcel.read_buffer(), parcel.read_buffer()
    _address, count, _owns = struct.unpack("=QIB3x", head.data)
    assert len(array.data) == 16 * count
    texts = [bytes(parcel.read_buffer().data) for _ in range(count)]
    assert not parcel.remaining
    return [text[:-1].decode() for text in texts]


def ask(device: Device, token: str, code: int, *values: str | list[str] | IBinder) -> Parcel:
    """Call the manager; return its reply behind the status."""
    request = Parcel()
    request.write_cstring(token)
    for value in values:
        if isinstance(value, str):
            put_string(request, value)
        elif isinstance(value, list):
            put_strings(request, *value)
        else:
            request.write_bare_binder(value)
    reply = device.context_manager.call(code, request)
    assert reply.read_int32() == 0
    return reply


def truth(reply: Parcel) -> bool:
    with reply:
        value = reply.read_int32()
        assert value in (0, 1)
        assert not reply.remaining
        return bool(value)


def names(device: Device) -> list[str]:
    with ask(device, V10, 4) as reply:
        return take_strings(reply)


def found(device: Device, interface: str, name: str) -> IBinder | None:
    with ask(device, V10, 1, interface, name) as reply:
        assert len(reply) == 4 + 24
        return reply.read_bare_binder()


def test_services_of_a_process_with_one_thread(bench: Bench, start: Start) -> None:
    """The chain is asked for on the thread that waits for the answer; there is no other."""
    start("--android", "hidl")
    with Device(bench.device) as client:
        with Device(bench.device) as server:
            service = Foo()
            assert truth(ask(server, V10, 2, "default", service))
            assert names(client) == sorted(f"{interface}/default" for interface in CHAIN)
            assert found(server, FOO, "default") is service
            proxy = found(client, OLD_FOO, "default")
            assert proxy is not None
            assert found(client, FOO, "default") is proxy
            assert found(client, FOO, "other") is None
            with ask(client, V10, 3, FOO, "default") as reply:
                assert reply.read_int32() == 1
            with ask(client, V10, 3, FOO, "other") as reply:
                assert reply.read_int32() == 0
            with ask(client, V10, 5, FOO) as reply:
                assert take_strings(reply) == ["default"]
            assert truth(ask(server, V12, 12, "second", Foo(), [BASE]))
            assert f"{BASE}/second" in names(client)
            ask(client, V10, 8, FOO, "default").close()
            request = Parcel()  # some write an empty string without its buffer
            request.write_cstring(V10)
            request.write_buffer(bytes(16))
            with client.context_manager.call(5, request) as reply:
                assert reply.read_int32() == 0
                assert take_strings(reply) == []
        eventually(lambda: names(client) == [])


def test_what_every_object_answers(bench: Bench, start: Start) -> None:
    process = start("--android", "hidl", "--declare", f"{FOO}/one", "--declare", f"{FOO}/two")
    with Device(bench.device) as device:
        with ask(device, BASE, 0x0F504E47) as reply:
            assert not reply.remaining
        with ask(device, BASE, 0x0F445343) as reply:
            assert take_string(reply) == V12
        with ask(device, BASE, 0x0F43484E) as reply:
            assert take_strings(reply) == [V12, V11, V10, BASE]
        with ask(device, BASE, 0x0F524546) as reply:
            data = reply.read_buffer().data
            assert struct.unpack("=i4xQi4x", data) == (process.pid, 0, 1)
        with ask(device, BASE, 0x0F485348) as reply:
            head, hashes = reply.read_buffer(), reply.read_buffer()
            assert struct.unpack("=QIB3x", head.data)[:2] == (hashes.address, 4)
            assert (bytes(hashes.data), hashes.parent) == (bytes(4 * 32), head.index)
            assert not reply.remaining
        for code in (0x0F494E54, 0x0F535953, 0x0F444247):
            with ask(device, BASE, code) as reply:
                assert not reply.remaining
        with ask(device, V12, 13, FOO) as reply:
            assert take_strings(reply) == ["one", "two"]
        device.context_manager.ping()


def test_the_dump_says_who_serves_what(bench: Bench, start: Start) -> None:
    start("--android", "hidl")
    with Device(bench.device) as client, Device(bench.device) as server:
        with ask(client, V10, 7) as reply:
            assert (len(reply.read_buffer().data), len(reply.read_buffer().data)) == (16, 0)
            assert not reply.remaining
        assert truth(ask(server, V12, 12, "one", Foo(), [FOO]))
        assert truth(ask(server, V12, 12, "other", Foo(), [BASE]))
        with ask(client, V10, 7) as reply:
            head, array = reply.read_buffer(), reply.read_buffer()
            assert struct.unpack("=QIB3x", head.data)[:2] == (array.address, 2)
            seen = []
            for number in range(2):
                record = bytes(array.data[64 * number : 64 * number + 64])
                fields = struct.unpack("=QIB3xQIB3xi4xQIB3xi4x", record)
                buffers = [reply.read_buffer() for _ in range(3)]
                places = [(each.parent, each.parent_offset - 64 * number) for each in buffers]
                assert places == [(array.index, 0), (array.index, 16), (array.index, 40)]
                assert [each.address for each in buffers[:2]] == [fields[0], fields[3]]
                texts = [bytes(each.data) for each in buffers]
                assert [len(each) - 1 for each in texts[:2]] == [fields[1], fields[4]]
                assert (fields[6], fields[8], fields[10]) == (os.getpid(), 0, 0)
                seen.append(texts)
            assert not reply.remaining
    assert sorted(seen) == [
        [FOO.encode() + b"\0", b"one\0", b""],
        [BASE.encode() + b"\0", b"other\0", b""],
    ]


def test_notifications(bench: Bench, start: Start) -> None:
    start("--android", "hidl")
    interface = "android.hidl.manager@1.0::IServiceNotification"
    one, every = Callback(interface), Callback(interface)
    with Device(bench.device) as client, Device(bench.device) as server:
        client.start_thread_pool()
        assert truth(ask(client, V10, 6, FOO, "default", one))
        assert truth(ask(server, V10, 2, "default", Foo()))
        assert one.seen.get(timeout=PATIENCE) == (FOO, "default", 0)
        assert truth(ask(client, V10, 6, FOO, "", every))
        assert every.seen.get(timeout=PATIENCE) == (FOO, "default", 1)
        assert truth(ask(server, V10, 2, "more", Foo()))
        assert every.seen.get(timeout=PATIENCE) == (FOO, "more", 0)
        assert truth(ask(client, V11, 9, FOO, "default", one))
        assert not truth(ask(client, V11, 9, FOO, "default", one))
        assert truth(ask(client, V11, 9, "", "", every))
        assert truth(ask(server, V10, 2, "default", Foo()))
        assert one.seen.empty()
        assert every.seen.empty()


def test_lazy_services(bench: Bench, start: Start) -> None:
    start("--android", "hidl")
    callback = Callback("android.hidl.manager@1.2::IClientCallback")
    with Device(bench.device) as server:
        server.start_thread_pool()
        service = Foo()
        assert truth(ask(server, V10, 2, "default", service))
        assert truth(ask(server, V12, 10, FOO, "default", service, callback))
        assert not truth(ask(server, V12, 10, FOO, "default", Foo(), callback))
        with Device(bench.device) as client:
            assert found(client, FOO, "default") is not None
            assert callback.seen.get(timeout=PATIENCE) == (service, 1)
            assert not truth(ask(server, V12, 14, FOO, "default", service))
        assert callback.seen.get(timeout=2 * PATIENCE) == (service, 0)
        assert truth(ask(server, V12, 14, FOO, "default", service))
        assert names(server) == []


def test_what_does_not_fit_is_refused(bench: Bench, start: Start) -> None:
    process = start("--android", "hidl")
    with Device(bench.device) as device:
        for token, code, values, status in (
            (V11, 4, [], android.STATUS_BAD_TYPE),
            (V10, 12, ["x"], android.STATUS_BAD_TYPE),
            (V10, 4, ["x"], android.STATUS_BAD_VALUE),
            (V10, 1, [FOO], android.STATUS_BAD_VALUE),
            (V10, 1, [FOO, "a", "b"], android.STATUS_BAD_VALUE),
            (V10, 99, [], android.STATUS_UNKNOWN_TRANSACTION),
        ):
            with pytest.raises(RemoteException) as caught:
                ask(device, token, code, *values)
            assert caught.value.status == status
        assert not truth(ask(device, V12, 12, "x", Foo(), []))
        assert not truth(ask(device, V12, 12, "", Foo(), [FOO]))
        assert not truth(ask(device, V10, 2, "x", Foo(())))
        with Device(bench.device) as plain:  # no HIDL service: answers no chain
            assert not truth(ask(plain, V10, 2, "x", Service()))
        request = Parcel()
        request.write_cstring(V10)
        head = request.write_buffer(struct.pack("=QIB3x", 0, 9, 1))  # it says nine, and has two
        request.write_buffer(b"a\0", parent=head, parent_offset=0)
        put_string(request, "default")
        with pytest.raises(RemoteException) as caught:
            device.context_manager.call(1, request)
        assert caught.value.status == android.STATUS_BAD_VALUE
        assert names(device) == []
    log = process.end()
    assert f"it is a method of {V10}" in log
    assert "bytes are left over" in log


def test_services_that_do_not_answer_hold_up_nobody(bench: Bench, start: Start) -> None:
    start("--android", "hidl")
    services = [silent(bench) for _ in range(8)]
    try:
        for each in services:
            # Asked and silent, or refused because others are: root is one user.
            assert each.word() in ("asked", "refused")
        with Device(bench.device) as device:
            assert truth(ask(device, V12, 12, "default", Foo(), [FOO]))
            assert names(device) == [f"{FOO}/default"]
            with pytest.raises(RemoteException) as caught:
                ask(device, V10, 2, "more", Foo())
            assert caught.value.status == android.STATUS_WOULD_BLOCK
            for each in services:
                each.kill()

            def added() -> bool:
                try:
                    return truth(ask(device, V10, 2, "more", Foo()))
                except RemoteException:
                    return False

            eventually(added)
    finally:
        for each in services:
            each.kill()


def test_buffers_come_as_they_went(bench: Bench, start: Start) -> None:
    """Up to what the area has room for, both ways; views end with their parcel."""

    class Echo(Service):
        def on_transact(self, _code: int, data: Parcel, reply: Parcel, _flags: int) -> None:
            while data.remaining:
                reply.write_buffer(bytes(data.read_buffer().data))

    start()
    with Device(bench.device) as server, Device(bench.device) as client:
        server.start_thread_pool()

        ServiceManager(server).add("echo", Echo())
        echo = ServiceManager(client).get("echo")
        sizes = (0, 1, 7, 8, 9, 4096, 100_001)
        sent = Parcel()
        for size in sizes:
            sent.write_buffer(bytes(range(256)) * (size // 256) + bytes(size % 256))
        with echo.call(1, sent) as reply:
            buffers = [reply.read_buffer() for _ in sizes]
            for size, buffer in zip(sizes, buffers, strict=True):
                assert bytes(buffer.data) == bytes(range(256)) * (size // 256) + bytes(size % 256)
            with pytest.raises(ParcelError):
                reply.read_buffer()
        with pytest.raises(ValueError, match="released"):
            bytes(buffers[-1].data)
        large = Parcel()
        large.write_buffer(bytes(2 << 20))
        with pytest.raises(FailedTransaction):
            echo.call(1, large)
        echo.ping()


class Answering(Foo):
    """What else a service of HIDL is asked, and one method."""

    def on_transact(self, code: int, data: Parcel, reply: Parcel, flags: int) -> None:
        if code == 1:
            assert (data.read_cstring(), data.read_int32(), data.remaining) == (FOO, 42, 0)
            reply.write_int32(7)
        elif code == 0x0F445343:
            reply.write_int32(0)
            put_string(reply, FOO)
        elif code == 0x0F504E47:
            reply.write_int32(0)
        else:
            super().on_transact(code, data, reply, flags)


def test_binderctl_looks_around(bench: Bench, start: Start) -> None:
    start("--android", "hidl")
    name = f"{FOO}/one"

    def hidl(*words: str) -> tuple[int, str]:
        done = cli(bench, "--android", "hidl", *words)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    with Device(bench.device) as server:
        server.start_thread_pool()
        late = threading.Timer(0.5, lambda: truth(ask(server, V10, 2, "one", Answering())))
        late.start()
        assert hidl("wait", name) == (0, f"name: {name}  interface: {FOO}  handle: 1\n")
        late.join()
        assert hidl("list") == (0, f"{OLD_FOO}/one\n{name}\n{BASE}/one\n")
        assert hidl("check", name)[0] == 0
        assert hidl("ping", name) == (0, f"name: {name}  alive: True\n")
        status, shown = hidl("call", name, "1", "i32", "42")
        assert (status, shown.split()[:2]) == (0, ["000000", "07000000"])
    assert hidl("wait", f"{FOO}/other", "--timeout", "1")[0] == 1
    assert hidl("ping", "a.b")[0] == 1
    assert cli(bench, "list").returncode == 1
    assert cli(bench, "ping", "a@1::IFoo/x").returncode == 2
