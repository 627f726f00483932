# SPDX-License-Identifier: Apache-2.0
"""Both sides from AIDL: they call each other, blocking and in trio, and errors reach the caller."""

from __future__ import annotations

import logging
import os
import struct
import tempfile
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from aidl.test_bytes import text
from binderclient import android
from binderclient.errors import RemoteException
from binderclient.files import ReceivedFile
from binderclient.interfaces import as_interface
from binderclient.objects import Service
from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aidl.conftest import Generated
    from binderclient.testing import Binder

PATIENCE: Final = 10.0
NAME: Final = "org.example.IPlain"


class _Methods:
    """They do what their names say, or fail."""

    def __init__(self) -> None:
        self.told = threading.Event()

    def flip(self, value: bool) -> bool:
        return not value

    def addByte(self, a: int, b: int) -> int:  # noqa: N802
        return a + b

    def addLong(self, a: int, b: int) -> int:  # noqa: N802
        return a + b

    def echo(self, text: str) -> str:
        return text

    def perhaps(self, text: str | None) -> str | None:
        return text

    def same(self, binder: Any) -> Any:  # noqa: ANN401
        return binder

    def watch(self, callback: Any) -> Any:  # noqa: ANN401
        callback.onProgress(50, None)
        callback.onDone()
        return callback

    def bare(self, file: ReceivedFile) -> ReceivedFile:
        return file

    def file(self, file: ReceivedFile) -> ReceivedFile:
        return file

    def tell(self, text: str, numbers: list[int]) -> None:
        assert (text, numbers) == ("x", [1, 2])
        self.told.set()

    def next(self, value: str) -> str:
        raise LookupError(value)

    def half(self, value: float) -> float:
        raise ValueError("no halves")

    def third(self, value: float) -> Any:  # noqa: ANN401
        return "a third"


def plain(generated: Generated) -> Any:  # noqa: ANN401
    """Return a service."""
    return type("Plain", (_Methods, generated(NAME)), {})()


@pytest.fixture
def called(generated: Generated, binder: Binder) -> Iterator[tuple[Any, Any]]:
    """A service and its proxy."""
    with binder.device() as server, binder.device() as client:
        service = plain(generated)
        server.become_context_manager(service)
        server.start_thread_pool()
        client.start_thread_pool()
        yield service, as_interface(generated(NAME), client.context_manager)


def test_blocking(generated: Generated, called: tuple[Any, Any]) -> None:
    service, proxy = called
    assert proxy.flip(True) is False
    assert proxy.addByte(-100, 3) == -97
    assert proxy.addLong(1 << 40, 1) == (1 << 40) + 1
    assert proxy.echo("tea ☕") == "tea ☕"
    assert proxy.perhaps(None) is None
    assert proxy.perhaps("x") == "x"
    proxy.tell("x", [1, 2])
    assert service.told.wait(PATIENCE)
    mine = Service()
    assert proxy.same(mine) is mine
    assert proxy.ANSWER == generated(NAME).ANSWER == 42


def test_a_service_calls_back(generated: Generated, called: tuple[Any, Any]) -> None:
    seen: list[object] = []
    done = threading.Event()

    class Callback(generated("org.example.ICallback")):  # type: ignore[misc]
        def onProgress(self, percent: int, what: str | None) -> None:  # noqa: N802
            seen.append((percent, what))

        def onDone(self) -> None:  # noqa: N802
            done.set()

    callback = Callback()
    assert called[1].watch(callback) is callback
    assert done.wait(PATIENCE)
    assert seen == [(50, None)]


@pytest.mark.parametrize("method", ["bare", "file"])
def test_files(called: tuple[Any, Any], method: str) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"hello")
        file.flush()
        with getattr(called[1], method)(ReceivedFile(os.dup(file.fileno()))) as back:
            assert os.pread(back.fileno(), 5, 0) == b"hello"


def test_errors_reach_the_caller(called: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    _, proxy = called
    with caplog.at_level(logging.CRITICAL):
        for call, code, said in (
            (lambda: proxy.next("q"), android.EX_ILLEGAL_STATE, "LookupError: q"),
            (lambda: proxy.half(1.0), android.EX_ILLEGAL_ARGUMENT, "no halves"),
            (lambda: proxy.third(1.0), android.EX_ILLEGAL_STATE, "result: must be float, not str"),
            (proxy.nothing, android.EX_UNSUPPORTED_OPERATION, ""),
        ):
            with pytest.raises(RemoteException) as caught:
                call()
            assert caught.value.exception_code == code
            assert said in caught.value.message
    assert proxy.echo("still there") == "still there"


def test_what_does_not_fit_is_refused(generated: Generated, called: tuple[Any, Any]) -> None:
    _, proxy = called
    request = Parcel.for_interface(NAME)
    request.write_string16("x")
    request.write_int32(1)
    code = generated(NAME).binder_interface.methods["echo"].code
    with proxy.binder.call(code, request) as reply, pytest.raises(RemoteException) as caught:
        reply.read_exception()
    assert caught.value.exception_code == android.EX_BAD_PARCELABLE
    with pytest.raises(RemoteException) as unknown:
        proxy.binder.call(99, Parcel.for_interface(NAME))
    assert unknown.value.status == android.STATUS_UNKNOWN_TRANSACTION


def test_values_that_nest_without_end(generated: Generated, binder: Binder) -> None:
    """Whoever sends that is refused; others go on."""
    name = "org.example.later.ILater"
    cls = generated(name)

    class Later(cls):  # type: ignore[misc,valid-type]
        def rotate(self, point: list[int]) -> Any:  # noqa: ANN401
            return point, [[1, 2], [3, 4]]

    levels = 20_000
    request = Parcel.for_interface(name)
    request.write_int32(-1)  # the list
    request.write_int32(1)  # and one Inner
    empty = text("")
    each = 8 + len(empty)
    data = b"".join(
        struct.pack("=ii", 1, each * (levels - level)) + empty for level in range(levels)
    )
    request.write_raw(data + bytes(4))
    with binder.device() as server, binder.device() as client:
        server.become_context_manager(Later())
        server.start_thread_pool()
        proxy = client.context_manager
        code = cls.binder_interface.methods["perhaps"].code
        with pytest.raises(RemoteException) as caught:
            proxy.call(code, request)
        assert caught.value.status == android.STATUS_BAD_VALUE
        assert as_interface(cls, proxy).rotate([1, 2, 3])[0] == [1, 2, 3]


def test_an_object_of_another_interface(generated: Generated, called: tuple[Any, Any]) -> None:
    """The service's own object, which is of another interface, is no argument."""
    service, proxy = called
    code = generated(NAME).binder_interface.methods["watch"].code
    request = Parcel.for_interface(NAME)
    request.write_strong_binder(proxy.binder)
    with pytest.raises(RemoteException) as caught:
        proxy.binder.call(code, request)
    assert caught.value.status == android.STATUS_BAD_VALUE
    assert service.flip(False) is True


async def test_in_trio(generated: Generated, binder: Binder) -> None:
    class Plain(generated.awaiting(NAME)):  # type: ignore[misc]
        async def echo(self, text: str) -> str:
            await trio.lowlevel.checkpoint()
            return text

        async def watch(self, callback: Any) -> Any:  # noqa: ANN401
            await callback.onProgress(1, "x")
            return callback

    heard = trio.Event()

    class Callback(generated.awaiting("org.example.ICallback")):  # type: ignore[misc]
        async def onProgress(self, percent: int, what: str | None) -> None:  # noqa: N802
            assert (percent, what) == (1, "x")
            heard.set()

    async with binder.async_device() as server, binder.async_device() as client:
        server.become_context_manager(Plain())
        server.start_serving()
        client.start_serving()
        with trio.fail_after(PATIENCE):
            proxy = as_interface(generated.awaiting(NAME), client.context_manager)
            assert await proxy.echo("tea") == "tea"
            assert proxy.ANSWER == 42
            callback = Callback()
            assert await proxy.watch(callback) is callback
            await heard.wait()


async def test_trio_calls_what_blocks(generated: Generated, binder: Binder) -> None:
    """Either flavour calls either flavour."""
    with binder.device() as server:
        server.become_context_manager(plain(generated))
        server.start_thread_pool()
        async with binder.async_device() as client:
            with trio.fail_after(PATIENCE):
                proxy = as_interface(generated.awaiting(NAME), client.context_manager)
                assert await proxy.addLong(1, 2) == 3
                with pytest.raises(RemoteException):
                    await proxy.half(1.0)


def test_results_of_several_kinds(generated: Generated, binder: Binder) -> None:
    class Arrays(generated("org.example.IArrays")):  # type: ignore[misc]
        def ints(self, given: list[int], made_size: int, changed: list[int]) -> Any:  # noqa: ANN401
            return given, [made_size] * made_size, [*changed, 9]

        def bytes_(self, given: bytes, made_size: int, changed: bytes) -> Any:  # noqa: ANN401
            return given, bytes(made_size), changed + b"!"

    with binder.device() as server, binder.device() as client:
        server.become_context_manager(Arrays())
        server.start_thread_pool()
        proxy = as_interface(generated("org.example.IArrays"), client.context_manager)
        assert proxy.ints([1], 3, [2]) == ([1], [3, 3, 3], [2, 9])
        assert proxy.bytes_(b"a", 2, b"b") == (b"a", b"\0\0", b"b!")


@pytest.mark.parametrize("size", [1_000_001, (1 << 31) - 1, -1, -(1 << 31)])
def test_an_array_that_is_wanted_too_large(generated: Generated, binder: Binder, size: int) -> None:
    """Whoever serves makes it: a number is all that a caller has to send."""
    made: list[int] = []

    class Arrays(generated("org.example.IArrays")):  # type: ignore[misc]
        def ints(self, given: list[int], made_size: int, changed: list[int]) -> Any:  # noqa: ANN401
            made.append(made_size)
            return given, [0] * made_size, changed

    with binder.device() as server, binder.device() as client:
        server.become_context_manager(Arrays())
        server.start_thread_pool()
        manager = client.context_manager
        request = Parcel.for_interface("org.example.IArrays")
        for number in (0, size, 0):
            request.write_int32(number)
        code = generated("org.example.IArrays").binder_interface.methods["ints"].code
        with pytest.raises(RemoteException) as caught, manager.call(code, request) as reply:
            reply.read_exception()
        if size > 0:
            assert caught.value.exception_code == android.EX_BAD_PARCELABLE
            assert f"Array too large: {size} items wanted at" in caught.value.message
        else:
            assert caught.value.status == android.STATUS_BAD_VALUE
        proxy = as_interface(generated("org.example.IArrays"), manager)
        with pytest.raises(ValueError, match=r"made_size: -?\d+ is not from 0 to 1000000"):
            proxy.ints([], size, [])
        assert made == []
        assert len(proxy.ints([], 100_000, [])[1]) == made.pop() == 100_000
