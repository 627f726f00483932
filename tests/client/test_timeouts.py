# SPDX-License-Identifier: Apache-2.0
"""``timeout=``: what a caller gets, what becomes of the reply, and of the thread that waited."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from binderclient import (
    BinderError,
    CallAbandoned,
    CallTimeout,
    Device,
    Parcel,
    ParcelError,
    RemoteException,
    Service,
    ServiceManager,
    android,
    as_interface,
    deadlines,
    interface,
    oneway,
    transaction,
)
from binderclient.servicemanager import ServiceManagerService, ServiceNotFound
from binderclient.servicemanager.async_client import AsyncServiceManager
from binderclient.workers import HELPERS
from client import peer as p
from client.flavours import FLAVOURS
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.testing import Binder
    from client.conftest import Bench
    from client.flavours import Asyncio, Trio

PATIENCE = 20.0
SHORT = 0.05
WAIT, ECHO, RELAY, CALL_BACK, NOTE = range(1, 6)


@interface("org.example.ISlow")
class Slow(Service):
    """Answers when it is let."""

    accepts_descriptors = True

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.calls = 0
        self.notes: list[int] = []

    def wait(self, size: int) -> bytes:
        self.calls += 1
        assert self.go_on.wait(PATIENCE)
        return bytes(size)

    def echo(self, text: str) -> str:
        return text

    def relay(self, other: Slow, size: int) -> str:
        try:
            other.wait(size, timeout=SHORT)  # type: ignore[call-arg]
        except CallTimeout:
            return other.echo("gave up")
        return "in time"

    def call_back(self, other: Slow, number: int) -> int:
        return other.count(number)

    @oneway
    def note(self, number: int) -> None:
        self.notes.append(number)

    def count(self, number: int) -> int:
        return number + 1


class World:
    """A slow service in a process of its own, and a caller in another."""

    def __init__(self, binder: Binder, stack: ExitStack) -> None:
        self.binder = binder
        self.stack = stack
        self.service = Slow()
        self.server = stack.enter_context(binder.process(uid=1).device())
        self.server.become_context_manager(self.service)
        self.server.start_thread_pool()
        self.process = binder.process(uid=2)

    def device(self, **arguments: Any) -> Device:  # noqa: ANN401
        return self.stack.enter_context(self.process.device(**arguments))


@pytest.fixture
def world(binder: Binder) -> Iterator[World]:
    with ExitStack() as stack:
        world = World(binder, stack)
        yield world
        world.service.go_on.set()  # devices wait for their handlers when they are closed


def requests(number: int) -> Parcel:
    parcel = Parcel.for_interface(Slow.descriptor)
    parcel.write_int32(number)
    return parcel


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(number, ValueError) for number in (0, -1, -math.inf, math.nan)]
    + [(value, TypeError) for value in (True, "1")],
)
def test_what_is_no_time_is_refused_before_anything_is_sent(
    world: World,
    timeout: Any,  # noqa: ANN401
    error: type[Exception],
) -> None:
    manager = world.device().context_manager
    with pytest.raises(error, match="timeout must be"):
        manager.call(WAIT, requests(0), timeout=timeout)
    with pytest.raises(error, match="timeout must be"):
        as_interface(Slow, manager, timeout=timeout)
    with pytest.raises(error, match="timeout must be"):
        as_interface(Slow, manager).wait(0, timeout=timeout)  # type: ignore[call-arg]
    assert world.service.calls == 0


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, PATIENCE])
def test_a_call_that_is_answered_in_time(world: World, timeout: float | None) -> None:
    slow = as_interface(Slow, world.device().context_manager, timeout=timeout)
    assert slow.echo("hello") == "hello"


def test_what_is_raised_says_what_was_called(world: World) -> None:
    manager = world.device().context_manager
    with pytest.raises(CallTimeout) as raised:
        manager.call(WAIT, requests(0), timeout=SHORT)
    error = raised.value
    assert isinstance(error, TimeoutError)
    assert isinstance(error, BinderError)
    assert isinstance(error, CallAbandoned)
    assert (error.interface, error.code, error.seconds) == (Slow.descriptor, WAIT, SHORT)
    assert "org.example.ISlow, code 1" in str(error)
    assert "within 0.05 s" in str(error)
    with pytest.raises(CallTimeout, match=r"org\.example\.ISlow\.wait\(\) did not answer"):
        as_interface(Slow, manager, timeout=SHORT).wait(1)
    assert str(CallTimeout(2, "", android.PING_TRANSACTION)).startswith("the object, code '_PNG',")
    with pytest.raises(CallTimeout, match="the object, code 1,"):
        call_without_a_token(world)


def call_without_a_token(world: World) -> None:
    class Deaf(Service):
        @transaction(WAIT)
        def wait(self, _data: Parcel, _reply: Parcel) -> None:
            world.service.go_on.wait(PATIENCE)

    other = world.stack.enter_context(world.binder.process().device("other"))
    other.become_context_manager(Deaf())
    other.start_thread_pool()
    world.device(name="other").context_manager.call(WAIT, timeout=SHORT)


def test_an_own_argument_of_that_name_is_the_methods(binder: Binder) -> None:
    @interface("org.example.ITimer")
    class Timer(Service):
        def set(self, timeout: int) -> int:
            return timeout

    with binder.device() as server, binder.device() as client:
        server.become_context_manager(Timer())
        server.start_thread_pool()
        assert as_interface(Timer, client.context_manager).set(timeout=-3) == -3


@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_the_late_reply_is_given_back_and_the_thread_goes_on(world: World, size: int) -> None:
    device = world.device(map_size=128 << 10)
    slow = as_interface(Slow, device.context_manager)
    for _ in range(5):  # were one of them kept, the second would have no room
        world.service.go_on.clear()
        with pytest.raises(CallTimeout):
            slow.wait(size, timeout=SHORT)  # type: ignore[call-arg]
        assert slow.echo("next") == "next"
        world.service.go_on.set()
        assert len(slow.wait(size)) == size
    device.flush()
    eventually(lambda: world.binder.counts()["buffers"] == 0, PATIENCE)


def test_every_timed_thread_is_free_again(world: World) -> None:
    slow = as_interface(Slow, world.device().context_manager, timeout=SHORT)
    results: list[object] = []

    def call() -> None:
        try:
            slow.wait(0)
        except CallTimeout as error:
            results.append(error)
        results.append(slow.echo("after"))

    threads = [threading.Thread(target=call) for _ in range(8)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert results.count("after") == 8
    assert len(results) == 16
    assert time.monotonic() - start < PATIENCE


def test_who_calls_back_while_the_time_passes_is_served_and_answered(world: World) -> None:
    """The reply to a call that came back is written before the thread leaves the driver."""
    answers: list[object] = []

    class Back(Slow):
        def count(self, number: int) -> int:
            time.sleep(2 * SHORT)  # longer than the outer caller is ready to wait
            return number + 1

    class Asking(Slow):
        def call_back(self, other: Slow, number: int) -> int:
            try:
                answers.append(other.count(number))
            except BinderError as error:
                answers.append(error)
            return number

    asking = Asking()
    server = world.stack.enter_context(world.binder.process().device("other"))
    server.become_context_manager(asking)
    server.start_thread_pool()
    device = world.device(name="other")
    other = as_interface(Slow, device.context_manager, timeout=SHORT)
    with pytest.raises(CallTimeout):
        other.call_back(Back(), 1)
    eventually(lambda: answers == [2], PATIENCE)
    assert other.echo("next") == "next"


def relays(world: World, service: Service) -> Device:
    """Serve with one thread that calls what comes along on the same device; return a caller's."""
    server = world.stack.enter_context(world.binder.process().device("asked", max_threads=0))
    server.become_context_manager(service)
    server.start_thread_pool()
    device = world.device(name="asked")
    device.start_thread_pool()
    return device


def test_a_handler_outlives_the_call_that_it_gave_up(world: World) -> None:
    """Leaving the driver with the handler's thread would leave its caller without an answer."""
    relay = as_interface(Slow, relays(world, Slow()).context_manager, timeout=PATIENCE)
    own = Slow()
    world.stack.callback(own.go_on.set)
    for _ in range(3):  # with the one thread that there is
        assert relay.relay(own, 0) == "gave up"
    own.go_on.set()


def test_a_one_way_handler_outlives_it_too(world: World) -> None:
    class Once(Service):
        outcomes: ClassVar[list[str]] = []

        @transaction(1)
        def ask(self, data: Parcel, _reply: Parcel) -> None:
            other = data.read_strong_binder()
            assert other is not None
            self.outcomes.append(Slow().relay(as_interface(Slow, other), 0))

    client = relays(world, Once()).context_manager
    own = Slow()
    for number in range(3):
        request = Parcel()
        request.write_strong_binder(own)
        client.call(1, request, oneway=True)
        eventually(lambda: len(Once.outcomes) == number + 1, PATIENCE)  # noqa: B023
    assert Once.outcomes == ["gave up"] * 3
    own.go_on.set()


def test_a_timed_call_of_a_handler_can_be_called_back(world: World) -> None:
    """It is made by another thread, which is then the one that is called back."""

    class Asking(Slow):
        def relay(self, other: Slow, size: int) -> str:
            return str(other.call_back(Slow(), size, timeout=PATIENCE))  # type: ignore[call-arg]

    relay = as_interface(Slow, relays(world, Asking()).context_manager, timeout=PATIENCE)
    assert relay.relay(Slow(), 4) == "5"


def test_a_handler_that_is_interrupted_takes_its_call_along(world: World) -> None:
    """The main thread serves; the thread that makes its call must not wait on alone."""

    class Interrupted(Exception):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    def interrupt_when_it_waits() -> None:
        eventually(lambda: own.calls == 1, PATIENCE)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    class Once(Service):
        @transaction(1)
        def ask(self, data: Parcel, _reply: Parcel) -> None:
            other = data.read_strong_binder()
            assert other is not None
            threading.Thread(target=interrupt_when_it_waits).start()
            as_interface(Slow, other, timeout=10 * PATIENCE).wait(0)

    own, outcomes = Slow(), []
    server = world.stack.enter_context(world.binder.process().device("asked"))
    server.become_context_manager(Once())
    client = world.device(name="asked")
    client.start_thread_pool()

    def ask() -> None:
        request = Parcel()
        request.write_strong_binder(own)
        try:
            client.context_manager.call(1, request)
        except BinderError as error:
            outcomes.append(error)
        server.stop()

    before = signal.signal(signal.SIGUSR1, interrupt)
    asking = threading.Thread(target=ask)
    try:
        asking.start()
        server.join_thread_pool()
        asking.join(PATIENCE)
        assert [type(outcome) for outcome in outcomes] == [RemoteException]
        eventually(lambda: len(HELPERS._idle) == HELPERS._count, PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
        own.go_on.set()


def test_one_way_calls_wait_for_nobody(world: World) -> None:
    slow = as_interface(Slow, world.device().context_manager, timeout=PATIENCE)
    for number in range(3):
        slow.note(number)
    eventually(lambda: world.service.notes == [0, 1, 2], PATIENCE)


def test_a_closed_device_ends_a_timed_call_at_once(world: World) -> None:
    device = world.device()
    slow = as_interface(Slow, device.context_manager, timeout=PATIENCE)
    closer = threading.Thread(
        target=lambda: (eventually(lambda: world.service.calls == 1, PATIENCE), device.close())
    )
    closer.start()
    start = time.monotonic()
    with pytest.raises(OSError, match="closed"):
        slow.wait(0)
    closer.join(PATIENCE)
    assert time.monotonic() - start < PATIENCE / 2


def test_no_alarm_outlives_its_call(world: World) -> None:
    before = len(deadlines._clock.alarms)
    device = world.device()
    proxy = device.context_manager
    proxy.ping(timeout=PATIENCE)
    proxy.call(4, Parcel(), oneway=True, timeout=PATIENCE)
    with pytest.raises(ParcelError):
        proxy.call(1, closed_parcel(), timeout=PATIENCE)
    device.close()
    with pytest.raises(OSError, match="closed"):
        proxy.ping(timeout=PATIENCE)
    assert len(deadlines._clock.alarms) == before


def closed_parcel() -> Parcel:
    parcel = Parcel()
    parcel.close()
    return parcel


def test_after_a_fork_times_are_kept_as_well(world: World) -> None:
    slow = as_interface(Slow, world.device().context_manager, timeout=SHORT)
    with pytest.raises(CallTimeout):
        slow.wait(0)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        rang = threading.Event()
        deadlines.Alarm(SHORT, rang.set)
        os.write(writing, b"rang" if rang.wait(PATIENCE) else b"no")
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 10) == b"rang"
    os.close(reading)
    os.waitpid(child, 0)


def test_the_thread_that_watches_the_clock_comes_and_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "IDLE_SECONDS", 0.001)

    def is_there() -> bool:
        return any(thread.name == "binderclient-clock" for thread in threading.enumerate())

    slow = as_interface(Slow, world.device().context_manager)
    for _ in range(10):  # each keeps a thread of the service's
        with pytest.raises(CallTimeout):
            slow.wait(0, timeout=0.002)  # type: ignore[call-arg]
        slow.echo("x", timeout=PATIENCE)  # type: ignore[call-arg]
    world.service.go_on.set()
    eventually(lambda: not is_there(), PATIENCE)


# The service manager


class DeafManager(ServiceManagerService):
    """A service manager that does not answer."""

    def __init__(self, go_on: threading.Event) -> None:
        super().__init__()
        self.go_on = go_on

    def on_transact(self, code: int, data: Parcel, reply: Parcel, flags: int) -> Any:  # noqa: ANN401
        assert self.go_on.wait(PATIENCE)
        return super().on_transact(code, data, reply, flags)


@pytest.fixture
def deaf(world: World) -> Device:
    """A device whose service manager answers nobody until the end."""
    server = world.stack.enter_context(world.binder.process().device("managed"))
    server.become_context_manager(DeafManager(world.service.go_on))
    server.start_thread_pool()
    return world.device(name="managed")


def test_a_manager_that_does_not_answer(deaf: Device) -> None:
    manager = ServiceManager(deaf)
    with pytest.raises(CallTimeout, match=r"IServiceManager\.checkService\(\) did not answer"):
        manager.get("x", timeout=SHORT)
    with pytest.raises(CallTimeout, match=r"addService\(\)"):
        manager.add("x", Slow(), timeout=SHORT)
    with pytest.raises(CallTimeout, match=r"listServices\(\)"):
        manager.list(timeout=SHORT)
    with pytest.raises(CallTimeout, match=r"isDeclared\(\)"):
        manager.is_declared("x", timeout=SHORT)
    with pytest.raises(CallTimeout, match=r"registerForNotifications\(\)"):
        manager.wait("x", SHORT)
    with pytest.raises(CallTimeout, match=r"checkService\(\)"):
        manager.named("x").call(1, timeout=SHORT)


def test_the_name_of_a_service_is_told(world: World) -> None:
    server = world.stack.enter_context(world.binder.process().device("managed"))
    server.become_context_manager(ServiceManagerService())
    server.start_thread_pool()
    offering = world.stack.enter_context(world.binder.process().device("managed"))
    ServiceManager(offering).add("slow.one", world.service)
    offering.start_thread_pool()
    named = ServiceManager(world.device(name="managed")).named("slow.one")
    with pytest.raises(CallTimeout, match=r"org\.example\.ISlow, code 1, of 'slow.one' did not"):
        named.call(WAIT, requests(0), timeout=SHORT)


# Event loops


@pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: flavour.name)
class TestLoops:
    def test_a_late_call(self, world: World, flavour: Trio | Asyncio) -> None:
        async def main() -> None:
            async with flavour.open_device(world.process.path(), max_calls=1) as device:
                manager = device.context_manager
                slow = as_interface(Slow, manager)
                for _ in range(3):  # with the one thread for calls that there is
                    with pytest.raises(CallTimeout, match=r"ISlow\.wait\(\) did not answer"):
                        await slow.wait(0, timeout=SHORT)  # type: ignore[call-arg,misc]
                    assert await slow.echo("next") == "next"  # type: ignore[misc]
                with pytest.raises(ValueError, match="more than 0"):
                    await manager.call(WAIT, requests(0), timeout=0)

        flavour.run(main)

    def test_a_call_that_waits_for_its_turn_is_late_as_well(
        self, world: World, flavour: Trio | Asyncio
    ) -> None:
        async def main() -> None:
            async with flavour.open_device(world.process.path(), max_calls=1) as device:
                slow: Any = as_interface(Slow, device.context_manager)
                async with flavour.tasks() as start:
                    start(lambda: slow.wait(0))
                    while not world.service.calls:
                        await flavour.sleep(0.001)
                    with pytest.raises(CallTimeout, match=r"not called within .*max_calls") as e:
                        await slow.wait(1, timeout=SHORT)
                    assert not e.value.sent
                    world.service.go_on.set()
                assert world.service.calls == 1

        flavour.run(main)

    def test_in_a_handler(self, world: World, flavour: Trio | Asyncio) -> None:
        class Middle(Service):
            @transaction(1)
            async def ask(self, data: Parcel, reply: Parcel) -> None:
                other = data.read_strong_binder()
                assert other is not None
                slow: Any = as_interface(Slow, other)
                with pytest.raises(CallTimeout):
                    await slow.wait(0, timeout=SHORT)
                reply.write_string16(await slow.echo("gave up"))

        own = Slow()

        async def main() -> None:
            server = world.binder.process()
            async with flavour.open_device(server.path("asked"), max_threads=0) as device:
                device.become_context_manager(Middle())
                device.start_serving()

                def ask() -> None:
                    caller = world.device(name="asked")
                    caller.start_thread_pool()
                    for _ in range(3):
                        request = Parcel()
                        request.write_strong_binder(own)
                        with caller.context_manager.call(1, request, timeout=PATIENCE) as reply:
                            assert reply.read_string16() == "gave up"

                await flavour.in_thread(ask)
                own.go_on.set()

        flavour.run(main)

    def test_a_manager_that_does_not_answer(
        self, world: World, deaf: Device, flavour: Trio | Asyncio
    ) -> None:
        async def main() -> None:
            async with flavour.open_device(world.process.path("managed")) as device:
                manager = AsyncServiceManager(device)
                with pytest.raises(CallTimeout, match=r"checkService\(\) did not answer"):
                    await manager.get("x", timeout=SHORT)
                with pytest.raises(CallTimeout, match=r"registerForNotifications\(\)"):
                    await manager.wait("x", SHORT)
                with pytest.raises(CallTimeout, match=r"checkService\(\)"):
                    await manager.named("x").call(1, timeout=SHORT)

        assert not deaf.gone
        flavour.run(main)

    def test_waiting_for_a_service_ends(self, world: World, flavour: Trio | Asyncio) -> None:
        server = world.stack.enter_context(world.binder.process().device("managed"))
        server.become_context_manager(ServiceManagerService())
        server.start_thread_pool()

        async def main() -> None:
            async with flavour.open_device(world.process.path("managed")) as device:
                for android in (13, 9):
                    manager = AsyncServiceManager(device, android)
                    with pytest.raises(ServiceNotFound):
                        await manager.wait("nobody", SHORT)

        flavour.run(main)


# With a daemon as well


def test_behind_a_daemon(bench: Bench) -> None:
    bench.peer("--threads", "2")
    with Device(bench.device) as device:
        peer = device.context_manager
        for _ in range(3):
            request = Parcel.for_interface(p.DESCRIPTOR)
            request.write_int32(700)
            start = time.monotonic()
            with pytest.raises(CallTimeout):
                peer.call(p.SLEEP, request, timeout=SHORT)
            assert time.monotonic() - start < 0.6
            peer.ping(timeout=PATIENCE)
