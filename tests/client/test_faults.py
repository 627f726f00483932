# SPDX-License-Identifier: Apache-2.0
"""Handlers that raise, hang or return what they must not, in every flavour: who hears what."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from binderclient import (
    CallTimeout,
    Parcel,
    RemoteException,
    Service,
    android,
    as_interface,
    interface,
    oneway,
    transaction,
)
from client.flavours import FLAVOURS
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from binderclient.testing import Binder, Process

PATIENCE = 20.0


@interface("org.example.IFaulty")
class Faulty(Service):
    """What callers know; ``Blocking`` and ``Awaiting`` have it two ways."""

    def fail(self, how: str) -> None: ...
    def wrong(self, how: str) -> int: ...
    def hang(self) -> None: ...
    @oneway
    def tell(self, how: str) -> None: ...
    def echo(self, text: str) -> str: ...


class Textless(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("why")


GROUP_OF_ONE = ExceptionGroup("outer", [ExceptionGroup("inner", [PermissionError("not you")])])
IN_GROUP = "ExceptionGroup: tasks: KeyError: 'why'; PermissionError: not you; OSError: how"


def fail(how: str) -> None:
    raise {
        "KeyError": KeyError("why"),
        "ValueError": ValueError("why"),
        "PermissionError": PermissionError("why"),
        "NotImplementedError": NotImplementedError("why"),
        "specific": RemoteException(android.EX_SERVICE_SPECIFIC, "why", service_specific=7),
        "long": LookupError("y" * (2 << 20)),
        "timeout": CallTimeout(1, "org.example.IOther", 1),
        "RecursionError": RecursionError("why"),
        "without a text": Textless(),
        "nothing": RemoteException(),
        "code of a wrong type": RemoteException("why"),  # type: ignore[arg-type]
        "large code": RemoteException(1 << 40, "why"),
        "code of a header": RemoteException(android.EX_HAS_REPLY_HEADER, "why"),
        "message of a wrong type": RemoteException(android.EX_SECURITY, 5),  # type: ignore[arg-type]
        "large number": RemoteException(android.EX_SERVICE_SPECIFIC, service_specific=1 << 40),
        "status of a wrong type": RemoteException(status="why"),  # type: ignore[arg-type]
        "a group": ExceptionGroup("tasks", [KeyError("why"), GROUP_OF_ONE, OSError("how")]),
        "a group of one": GROUP_OF_ONE,
        "a large group": ExceptionGroup("tasks", [OSError(str(n)) for n in range(10_000)]),
    }[how]


UNSENDABLE = "a RemoteException that cannot be sent: "


WRONG: dict[str, Any] = {"text": "5", "none": None, "large": 1 << 40, "two": (1, 2)}


class Blocking(Faulty):
    def __init__(self) -> None:
        self.go_on = threading.Event()

    def fail(self, how: str) -> None:
        fail(how)

    def wrong(self, how: str) -> int:
        return WRONG[how]  # type: ignore[no-any-return]

    def hang(self) -> None:
        assert self.go_on.wait(PATIENCE)

    def tell(self, how: str) -> None:
        fail(how)

    def echo(self, text: str) -> str:
        return text


class Awaiting(Faulty):
    def __init__(self, flavour: Any) -> None:  # noqa: ANN401
        self._sleep = flavour.sleep
        self.is_let_go = False

    async def fail(self, how: str) -> None:  # type: ignore[override]
        await self._sleep(0)
        fail(how)

    async def wrong(self, how: str) -> int:  # type: ignore[override]
        await self._sleep(0)
        return WRONG[how]  # type: ignore[no-any-return]

    async def hang(self) -> None:  # type: ignore[override]
        while not self.is_let_go:
            await self._sleep(0.001)

    async def tell(self, how: str) -> None:  # type: ignore[override]
        fail(how)

    async def echo(self, text: str) -> str:  # type: ignore[override]
        return text


class Server:
    """Serves in one flavour, with one thread more than asked for."""

    def __init__(self, flavour: Any, process: Process) -> None:  # noqa: ANN401
        self.flavour = flavour
        self.process = process
        self.service: Any = Blocking() if flavour is None else Awaiting(flavour)

    @contextlib.contextmanager
    def serving(self, threads: int, service: Service | None = None) -> Iterator[None]:
        service = service or self.service
        if self.flavour is None:
            with self.process.device(max_threads=threads) as device:
                device.become_context_manager(service)
                device.start_thread_pool()
                yield
                self.let_go()
            return
        flavour, is_ready, is_over = self.flavour, threading.Event(), threading.Event()

        async def main() -> None:
            async with flavour.open_device(self.process.path(), max_threads=threads) as device:
                device.become_context_manager(service)
                device.start_serving()
                is_ready.set()
                await flavour.in_thread(lambda: is_over.wait(PATIENCE))

        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(flavour.run, main)
            assert is_ready.wait(PATIENCE)
            try:
                yield
            finally:
                self.let_go()
                is_over.set()
                running.result(PATIENCE)

    def let_go(self) -> None:
        if self.flavour is None:
            self.service.go_on.set()
        else:
            self.service.is_let_go = True


@pytest.fixture(params=[None, *FLAVOURS], ids=lambda flavour: getattr(flavour, "name", "blocking"))
def server(request: pytest.FixtureRequest, binder: Binder) -> Server:
    return Server(request.param, binder.process(pid=4000, uid=40))


@pytest.fixture
def caller(binder: Binder) -> Callable[[], Any]:
    return lambda: binder.process(pid=5000, uid=50).device()


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        ("KeyError", android.EX_ILLEGAL_STATE, "KeyError: 'why'"),
        ("ValueError", android.EX_ILLEGAL_ARGUMENT, "why"),
        ("PermissionError", android.EX_SECURITY, "why"),
        ("NotImplementedError", android.EX_UNSUPPORTED_OPERATION, "why"),
        ("specific", android.EX_SERVICE_SPECIFIC, "why"),
        ("long", android.EX_ILLEGAL_STATE, "LookupError: yyy"),
        ("timeout", android.EX_ILLEGAL_STATE, "CallTimeout: org.example.IOther, code 1, did not"),
        ("RecursionError", android.EX_ILLEGAL_STATE, "RecursionError: why"),
        ("without a text", android.EX_ILLEGAL_ARGUMENT, ""),
        ("nothing", android.EX_ILLEGAL_STATE, UNSENDABLE + "ValueError: it has neither"),
        ("code of a wrong type", android.EX_ILLEGAL_STATE, UNSENDABLE + "TypeError: "),
        ("large code", android.EX_ILLEGAL_STATE, UNSENDABLE),
        ("code of a header", android.EX_ILLEGAL_STATE, UNSENDABLE + "ValueError: -128 is what"),
        ("message of a wrong type", android.EX_ILLEGAL_STATE, UNSENDABLE + "TypeError: "),
        ("large number", android.EX_ILLEGAL_STATE, UNSENDABLE),
        ("status of a wrong type", android.EX_ILLEGAL_STATE, UNSENDABLE + "TypeError: "),
        ("a group", android.EX_ILLEGAL_STATE, IN_GROUP),
        ("a group of one", android.EX_SECURITY, "not you"),
        ("a large group", android.EX_ILLEGAL_STATE, "ExceptionGroup: tasks: OSError: 0; OSError"),
    ],
)
def test_what_is_raised_reaches_the_caller(
    server: Server,
    caller: Callable[[], Any],
    caplog: pytest.LogCaptureFixture,
    how: str,
    code: int,
    text: str,
) -> None:
    with caplog.at_level(logging.ERROR), server.serving(0), caller() as device:
        faulty = as_interface(Faulty, device.context_manager, timeout=PATIENCE)
        for _ in range(3):
            with pytest.raises(RemoteException) as caught:
                faulty.fail(how)
            assert caught.value.exception_code == code
            assert caught.value.message.startswith(text)
        assert faulty.echo("there") == "there"
    said = "org.example.IFaulty.fail(), called by process 5000 of user 50, failed"
    assert (said in caplog.text) == (code == android.EX_ILLEGAL_STATE)


@pytest.mark.parametrize("how", list(WRONG))
def test_a_result_of_a_wrong_type(
    server: Server, caller: Callable[[], Any], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    with caplog.at_level(logging.ERROR), server.serving(0), caller() as device:
        faulty = as_interface(Faulty, device.context_manager, timeout=PATIENCE)
        with pytest.raises(RemoteException, match=r"IFaulty\.wrong\(\): result: ") as caught:
            faulty.wrong(how)
        assert caught.value.exception_code == android.EX_ILLEGAL_STATE
        assert faulty.echo("there") == "there"
    assert "org.example.IFaulty.wrong(), called by process 5000 of user 50" in caplog.text


def test_one_that_hangs_holds_up_nobody_else(server: Server, caller: Callable[[], Any]) -> None:
    with server.serving(3), caller() as device:
        faulty = as_interface(Faulty, device.context_manager, timeout=PATIENCE)
        for _ in range(2):
            with pytest.raises(CallTimeout, match=r"IFaulty\.hang\(\) did not answer"):
                faulty.hang(timeout=0.05)  # type: ignore[call-arg]
            assert faulty.echo("there") == "there"
        server.let_go()
        faulty.hang()


def test_one_way_calls_that_fail_are_in_the_log(
    server: Server, caller: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), server.serving(0), caller() as device:
        faulty = as_interface(Faulty, device.context_manager, timeout=PATIENCE)
        faulty.tell("KeyError")
        faulty.tell("ValueError")
        assert faulty.echo("there") == "there"
        place = "org.example.IFaulty.tell(), called one-way by user 50"
        eventually(lambda: f"{place}, failed" in caplog.text, PATIENCE)
        eventually(lambda: f"{place}, refused it: ValueError: why" in caplog.text, PATIENCE)


class Odd(Service):
    """Handlers by hand that do what they must not; it has no interface."""

    @transaction(1)
    def returns(self, _data: Parcel, _reply: Parcel) -> int:
        return 5

    @transaction(2)
    def ends(self, _data: Parcel, _reply: Parcel) -> None:
        raise SystemExit(1)

    @transaction(3)
    def echo(self, data: Parcel, reply: Parcel) -> None:
        reply.write_int32(data.read_int32())

    @transaction(4)
    def sends_what_it_got(self, data: Parcel, reply: Parcel) -> None:
        reply.write_int32(data.read_int32())
        reply.close()  # and then it cannot be sent


def test_handlers_by_hand(
    server: Server, caller: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    codes = (1, 4) if server.flavour else (1, 2, 4)  # a loop ends with SystemExit, as it should
    with caplog.at_level(logging.ERROR), server.serving(0, Odd()), caller() as device:
        manager = device.context_manager
        for code in codes * 2:
            request = Parcel()
            request.write_int32(9)
            with pytest.raises(RemoteException) as caught:
                manager.call(code, request, timeout=PATIENCE)
            wanted = android.STATUS_BAD_VALUE if code == 4 else android.STATUS_UNKNOWN_ERROR
            assert caught.value.status == wanted
            with manager.call(3, request, timeout=PATIENCE) as reply:
                assert reply.read_int32() == 9
    assert "Odd.returns(), called by process 5000 of user 50, failed" in caplog.text
    assert "a handler writes into its reply and returns None, not int" in caplog.text


def test_a_very_short_time_is_told() -> None:
    assert "within 1e-09 s" in str(CallTimeout(1e-9, "", 1))


class Unsendable(Service):
    accepts_descriptors = "yes"  # type: ignore[assignment] # the driver wants a number


def test_what_could_not_be_sent_is_not_kept(binder: Binder, caller: Callable[[], Any]) -> None:
    with binder.process().device() as device, caller() as client:
        device.become_context_manager(Service())
        device.start_thread_pool()
        odd = Unsendable()
        kept = weakref.ref(odd)
        request = Parcel()
        request.write_strong_binder(odd)
        with pytest.raises(TypeError):
            client.context_manager.call(1, request, timeout=PATIENCE)
        del odd, request
        gc.collect()
        assert kept() is None


def test_a_reply_that_cannot_be_sent(
    binder: Binder, caller: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    class ByHand(Service):
        @transaction(1)
        def odd(self, _data: Parcel, reply: Parcel) -> None:
            reply.write_strong_binder(Unsendable())

        @transaction(2)
        def closed(self, _data: Parcel, reply: Parcel) -> None:
            reply.write_file(0)
            reply.close()

    with binder.process().device(max_threads=0) as device, caller() as client:
        device.become_context_manager(ByHand())
        device.start_thread_pool()
        for code in (1, 2, 1, 2):
            caplog.clear()
            with pytest.raises(RemoteException) as caught:
                client.context_manager.call(code, timeout=PATIENCE)
            assert caught.value.status == android.STATUS_BAD_VALUE
            assert f"the reply to code {code:#x} cannot be sent: " in caplog.text
