# SPDX-License-Identifier: Apache-2.0
"""Interfaces as annotated classes: what travels, who is told what, and what is refused."""

from __future__ import annotations

import contextlib
import enum
import gc
import io
import logging
import os
import struct
import tempfile
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from binderclient import android
from binderclient.annotations import Byte, Char, Float, Long
from binderclient.blocking import Device
from binderclient.errors import DeadObject, ParcelError, RemoteException
from binderclient.files import ReceivedFile  # noqa: TC001 - annotations are looked at
from binderclient.ibinder import IBinder  # noqa: TC001 - annotations are looked at
from binderclient.interfaces import as_interface, interface, oneway
from binderclient.objects import Proxy, Service, caller, transaction
from binderclient.parcel import Parcel
from binderclient.servicemanager import ServiceManager
from binderclient.testing import Binder
from binderclient.trio import AsyncServiceManager, open_device
from client.drivers import PATIENCE
from client.managers import started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from client.conftest import Bench


class Color(enum.IntEnum):
    RED = 1
    BLUE = 5


@dataclass
class Point:
    x: int
    y: int = 7


@dataclass
class Shape:
    name: str | None
    points: list[Point]
    color: Color = Color.RED
    inner: Shape | None = None
    tags: list[str] = field(default_factory=list)


@interface("test.IListener")
class Listener(Service):
    """Whom the service tells."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.event = threading.Event()

    @oneway
    def hear(self, text: str) -> None:
        self.heard.append(text)
        self.event.set()


@interface("test.IThings")
class Things(Service):
    """One method for each thing to see."""

    accepts_descriptors = True

    def same(
        self, flag: bool, number: int, real: float, text: str, data: bytes
    ) -> tuple[bool, int, float, str, bytes]:
        return flag, number, real, text, data

    def narrow(
        self, byte: Byte, char: Char, long: Long, real: Float
    ) -> tuple[Byte, Char, Long, Float]:
        return byte, char, long, real

    def maybe(self, text: str | None, items: list[str | None] | None) -> list[str | None] | None:
        return None if items is None else [text, *items]

    def turn(self, shape: Shape) -> Shape:
        shape.points.reverse()
        return Shape("turned", shape.points, Color.BLUE, shape)

    def tell(self, listener: Listener, text: str = "by default") -> None:
        listener.hear(text)

    def read(self, file: ReceivedFile) -> bytes:
        with file.open("rb") as opened:
            return opened.read()

    def itself(self) -> Things:
        return self

    def fail(self, how: str) -> int:
        raise {"key": KeyError("x"), "value": ValueError("bad"), "wrong": TypeError("oh")}[how]

    def lie(self) -> int:
        return "no number"  # type: ignore[return-value]

    def whose(self, binder: IBinder | None) -> int:
        return 0 if binder is None else caller().sender_pid

    @transaction(100)
    def far(self) -> Color:
        return Color.BLUE

    def behind(self) -> None:
        pass

    def _private(self) -> None:
        raise AssertionError


class Slow(Service):
    """A class without types, which is no interface."""


@interface("test.ILater")
class Later(Service):
    async def twice(self, text: str) -> str:
        await trio.sleep(0.001)
        return text + text

    async def fail(self) -> None:
        raise LookupError("nothing there")


@pytest.fixture
def manager(bench: Bench, tmp_path: Path) -> Iterator[None]:
    process = started(bench, tmp_path)
    yield
    process.end()


@pytest.fixture
def things(bench: Bench, manager: None) -> Iterator[Things]:
    with Device(bench.device) as server, Device(bench.device) as client:
        server.start_thread_pool()
        client.start_thread_pool()
        ServiceManager(server).add("things", Things())
        yield as_interface(Things, ServiceManager(client).get("things"))


def test_everything_arrives_as_it_was(things: Things) -> None:
    values = (True, -5, 0.1, "h\u00e4\U0001f600", b"\0\1")
    assert things.same(*values) == values
    assert things.same(False, 1, 2, text="", data=b"") == (False, 1, 2.0, "", b"")
    assert things.narrow(-128, "x", 1 << 40, 0.5) == (-128, "x", 1 << 40, 0.5)
    assert things.maybe(None, ["a", None]) == [None, "a", None]
    assert things.maybe("a", None) is None
    shape = Shape(None, [Point(1), Point(2, 3)], tags=["t"])
    turned = things.turn(shape)
    assert turned == Shape(
        "turned",
        [Point(2, 3), Point(1, 7)],
        Color.BLUE,
        Shape(None, [Point(2, 3), Point(1, 7)], Color.RED, None, ["t"]),
    )
    assert things.far() is Color.BLUE
    assert things.behind() is None  # type: ignore[func-returns-value]
    with tempfile.TemporaryFile() as file:
        file.write(b"content")
        file.seek(0)
        assert things.read(file) == b"content"  # type: ignore[arg-type]


def test_objects_are_interfaces_on_the_other_side(things: Things) -> None:
    listener = Listener()
    things.tell(listener, "first")
    assert listener.event.wait(PATIENCE)
    listener.event.clear()
    things.tell(listener)
    assert listener.event.wait(PATIENCE)
    assert listener.heard == ["first", "by default"]
    again = things.itself()
    assert again == things
    assert hash(again) == hash(things)
    assert again.far() is Color.BLUE
    assert things.whose(None) == 0
    assert things.whose(listener) == os.getpid()
    assert as_interface(Listener, listener) is listener


def test_who_raises_is_heard(things: Things, caplog: pytest.LogCaptureFixture) -> None:
    for how, code, text in (
        ("key", android.EX_ILLEGAL_STATE, "KeyError: 'x'"),
        ("wrong", android.EX_ILLEGAL_STATE, "TypeError: oh"),
        ("value", android.EX_ILLEGAL_ARGUMENT, "bad"),
    ):
        caplog.clear()
        with caplog.at_level(logging.ERROR), pytest.raises(RemoteException) as caught:
            things.fail(how)
        assert (caught.value.exception_code, caught.value.message) == (code, text)
        said = f"test.IThings.fail(), called by process {os.getpid()} of user {os.geteuid()}"
        assert (said in caplog.text) == (how != "value")
    with pytest.raises(RemoteException, match=r"IThings.lie\(\): result: must be int, not str"):
        things.lie()
    assert things.far() is Color.BLUE, "it is still there"


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda t: t.same(1, 1, 1.0, "", b""), TypeError, r"same\(\): flag: must be bool, not int"),
        (lambda t: t.same(True, True, 1.0, "", b""), TypeError, "number: must be int, not bool"),
        (lambda t: t.same(True, 1 << 31, 1.0, "", b""), ValueError, "number: 2147483648 is not"),
        (lambda t: t.same(True, 1, "1", "", b""), TypeError, "real: must be float, not str"),
        (lambda t: t.same(True, 1, 1.0, None, b""), TypeError, "text: must be str, not None"),
        (lambda t: t.same(True, 1, 1.0, "", "x"), TypeError, "data: must be bytes, not str"),
        (lambda t: t.narrow(128, "x", 1, 1.0), ValueError, "byte: 128 is not from -128 to 127"),
        (lambda t: t.narrow(1, "xy", 1, 1.0), ValueError, "char: 'xy' is not one UTF-16 unit"),
        (lambda t: t.maybe("a", ["a", 5]), TypeError, r"items\[1\]: must be str, not int"),
        (lambda t: t.turn(Shape("", [Point(1, "2")])), TypeError, r"shape.points\[0\].y: must be"),
        (lambda t: t.turn(5), TypeError, "shape: must be Shape, not int"),
        (lambda t: t.tell(5), TypeError, "listener: must be Listener, not int"),
        (
            lambda t: t.tell(as_interface(Things, t.binder)),
            TypeError,
            "must be Listener, not Thing",
        ),
        (lambda t: t.tell(Things()), TypeError, "listener: must be Listener, not Things"),
        (lambda t: t.tell(), TypeError, "missing a required argument: 'listener'"),
        (lambda t: t.far(1), TypeError, "too many positional arguments"),
        (lambda t: t.read("x"), TypeError, "file: must be a file or descriptor, not str"),
        (lambda t: t.read(True), TypeError, "file: must be a file or descriptor, not bool"),
        (lambda t: t.read(io.BytesIO()), TypeError, "file: .* a file or a descriptor, not BytesIO"),
        (lambda t: t.read(1 << 40), ValueError, "file: 1099511627776 is no open file"),
    ],
)
def test_what_is_no_such_value_is_not_sent(
    call: Callable[[Any], object], error: type[Exception], text: str
) -> None:
    class Nobody:
        def transact(self, *_: object) -> Parcel:
            raise AssertionError("it was sent")

    with pytest.raises(error, match=text):
        call(as_interface(Things, Proxy(1, Nobody())))


def test_a_service_travels_as_itself() -> None:
    class Wrapping(Listener):
        def __init__(self, binder: Proxy) -> None:
            super().__init__()
            self.binder = binder  # what it stands for: not what is sent

    with Binder() as world, world.device() as server, world.device() as client:
        server.become_context_manager(Things())
        server.start_thread_pool()
        client.start_thread_pool()
        listener = Wrapping(client.context_manager)
        as_interface(Things, client.context_manager).tell(listener)
        assert listener.event.wait(PATIENCE)


def test_the_bytes_are_those_of_aidl() -> None:
    sent: list[tuple[int, Parcel]] = []

    class Wire:
        def transact(self, _handle: int, code: int, data: Parcel, _flags: int) -> Parcel:
            sent.append((code, data))
            raise DeadObject("enough")

    things = as_interface(Things, Proxy(1, Wire()))
    for call in (
        lambda: things.turn(Shape("n", [Point(1, 2)], Color.BLUE)),
        lambda: things.maybe(None, None),
        things.far,
        things.behind,
    ):
        with pytest.raises(DeadObject):
            call()
    assert [code for code, _ in sent] == [4, 3, 100, 101]
    request = Parcel.for_interface("test.IThings")
    head = len(request)
    name = struct.pack("=i2s2x", 1, b"n\0") + bytes(0)
    point = struct.pack("=iiii", 1, 12, 1, 2)
    body = name + struct.pack("=i", 1) + point + struct.pack("=iii", 5, 0, 0)
    assert bytes(sent[0][1])[head:] == struct.pack("=ii", 1, 4 + len(body)) + body
    assert bytes(sent[1][1])[head:] == struct.pack("=ii", -1, -1)
    assert bytes(sent[2][1]) == bytes(request)


def request_with(*words: int) -> Parcel:
    request = Parcel.for_interface("test.IThings")
    for word in words:
        request.write_int32(word)
    return request


def answer(service: Service, code: int, request: Parcel) -> Parcel:
    request.position = 0
    reply = Parcel()
    service.on_transact(code, request, reply, 0)
    return reply


def test_a_writer_may_know_fewer_or_more_fields() -> None:
    # A shape whose name is null and that has no points, and nothing else; then with two words more.
    for words in ((1, 12, -1, 0), (1, 32, -1, 0, 5, 0, 0, 8, 9)):
        reply = answer(Things(), 4, request_with(*words))
        reply.position = 0
        assert (reply.read_int32(), reply.read_int32()) == (0, 1)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (4, (0,)),  # null
        (4, (1, 400)),
        (4, (1, 3)),
        (4, (1, 4)),  # fields without a default are missing
        (4, (1, 12, -1, 1, 1, 100)),
        (4, (1, 16, -1, 0, 4)),  # no such color
        (3, (-1, 1 << 30)),
        (3, (-1,)),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(code: int, words: tuple[int, ...]) -> None:
    with pytest.raises(ParcelError):
        answer(Things(), code, request_with(*words))


def test_a_request_of_another_method_is_refused_aloud() -> None:
    with pytest.raises(RemoteException, match="unread size: 8") as caught:
        answer(Things(), 100, request_with(1, 2))
    assert caught.value.exception_code == android.EX_BAD_PARCELABLE


@given(st.integers(1, 12), st.lists(st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(-2, 40)))
def test_no_request_does_harm(code: int, words: list[int]) -> None:
    service = Things()
    lies = [TypeError] if Things.method_name(code) == "lie" else []
    with contextlib.suppress(ParcelError, RemoteException, ValueError, LookupError, *lies):
        answer(service, code, request_with(*words))


@pytest.mark.usefixtures("manager")
async def test_the_same_in_trio(bench: Bench) -> None:
    async with open_device(bench.device) as server, open_device(bench.device) as client:
        await AsyncServiceManager(server).add("later", Later())
        later = as_interface(Later, await AsyncServiceManager(client).get("later"))
        with trio.fail_after(PATIENCE):
            assert await later.twice("a") == "aa"
            with pytest.raises(RemoteException, match="LookupError: nothing there"):
                await later.fail()
        with pytest.raises(TypeError, match="text: must be str, not int"):
            await later.twice(1)  # type: ignore[arg-type]


@pytest.mark.usefixtures("manager")
async def test_flavours_meet(bench: Bench) -> None:
    with Device(bench.device) as server:
        server.start_thread_pool()
        ServiceManager(server).add("things", Things())
        async with open_device(bench.device) as client:
            found: Any = as_interface(Things, await AsyncServiceManager(client).get("things"))
            assert await found.far() is Color.BLUE


@pytest.mark.filterwarnings("error")
def test_what_blocks_refuses_what_is_to_be_awaited(binder: Binder) -> None:
    with binder.device() as server, binder.device() as client:
        server.become_context_manager(Later())
        server.start_thread_pool()
        later: Any = as_interface(Later, client.context_manager)
        with pytest.raises(RemoteException, match=r"use binderclient\.trio or binderclient\.aio"):
            later.twice("a")
        gc.collect()  # a coroutine that nobody has awaited would complain


def test_a_subclass_serves_what_its_base_says() -> None:
    class Loud(Later):
        def twice(self, text: str) -> str:  # type: ignore[override]
            return text.upper() * 2

    request = Parcel.for_interface("test.ILater")
    request.write_string16("a")
    reply = answer(Loud(), 1, request)
    reply.position = 4
    assert reply.read_string16() == "AA"


def make(annotations: dict[str, Any], **marks: object) -> None:
    def method(self: object, value: object) -> object:
        raise NotImplementedError

    method.__annotations__ = annotations
    method.__dict__.update(marks)
    interface("test.IBad")(type("Bad", (Service,), {"method": method}))


@pytest.mark.parametrize(
    ("annotations", "marks", "text"),
    [
        ({"return": None}, {}, "value has no type"),
        ({"value": int}, {}, "its result has no type"),
        ({"value": dict, "return": None}, {}, "value: dict is nothing that a parcel carries"),
        ({"value": int | str, "return": None}, {}, "one type or None"),
        ({"value": int | None, "return": None}, {}, "numbers, truth values and enumerations"),
        ({"value": list[Byte], "return": None}, {}, r"list\[Byte\] is bytes"),
        ({"value": 5, "return": None}, {}, "5 is nothing|Invalid|must be"),
        ({"value": int, "return": int}, {"binder_oneway": True}, "is one-way: it has no result"),
        ({"value": int, "return": int}, {"binder_codes": [1, 2]}, "several codes"),
    ],
)
def test_what_is_no_interface_says_why(
    annotations: dict[str, Any], marks: dict[str, object], text: str
) -> None:
    with pytest.raises(TypeError, match=text):
        make(annotations, **marks)


@pytest.mark.parametrize("name", ["binder", "timeout", "dump", "descriptor", "method_name"])
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    def method(self: object) -> int:
        raise NotImplementedError

    method.__annotations__ = {"return": int}
    with pytest.raises(TypeError, match=rf"Bad\.{name}: services or their callers have a {name}"):
        interface("test.IBad")(type("Bad", (Service,), {name: method}))


def test_what_every_service_has_is_none_of_an_interfaces_methods() -> None:
    @interface("test.IDumped")
    class Dumped(Service):
        def dump(self, descriptor: int, arguments: list[str]) -> None:
            raise NotImplementedError

        def first(self) -> None:
            raise NotImplementedError

    assert Dumped.method_name(1) == "first"
    assert Dumped.method_name(2) is None


def test_what_is_no_interface_cannot_be_asked_for() -> None:
    with pytest.raises(TypeError, match="Slow has no @interface"):
        as_interface(Slow, Slow())
    with pytest.raises(TypeError, match=r"is no test\.IListener, nor a proxy"):
        as_interface(Listener, Slow())
