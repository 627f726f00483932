# SPDX-License-Identifier: Apache-2.0
"""What trio's and asyncio's devices promise alike: tasks, cancellation, deaths, files, names."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from binderclient import (
    DeadObject,
    DeviceError,
    MisuseError,
    Parcel,
    ReceivedFile,
    RemoteException,
    Service,
    android,
    as_interface,
    caller,
    interface,
    transaction,
)
from binderclient.servicemanager import ServiceManagerService, ServiceNotFound
from binderclient.servicemanager.async_client import AsyncServiceManager
from client import peer as p
from client.flavours import FLAVOURS, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from binderclient.asynchronous import AsyncDevice
    from binderclient.ibinder import IBinder
    from binderclient.testing import Binder
    from client.conftest import Bench
    from client.flavours import Flavour

pytestmark = [
    pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: flavour.name),
]


def request(*numbers: int, binder: IBinder | None = None) -> Parcel:
    parcel = Parcel.for_interface(p.DESCRIPTOR)
    if binder is not None:
        parcel.write_strong_binder(binder)
    for number in numbers:
        parcel.write_int32(number)
    return parcel


# Calls, with and without a daemon


def test_calls_of_many_tasks_are_in_the_air_at_a_time(bench: Bench, flavour: Flavour) -> None:
    bench.peer("--threads", "5")

    async def main() -> None:
        async with flavour.open_device(bench.device) as device:
            peer = device.context_manager

            async def nap() -> None:
                (await peer.call(p.SLEEP, request(400))).close()

            start_time = time.monotonic()
            async with flavour.tasks() as start:
                for _ in range(6):
                    start(nap)
            assert time.monotonic() - start_time < 2

    flavour.run(main)


def test_replies_do_not_pile_up_while_the_loop_is_busy(binder: Binder, flavour: Flavour) -> None:
    sent = [0]
    all_sent = threading.Event()

    class Large(Service):
        @transaction(1)
        def large(self, _data: Parcel, reply: Parcel) -> None:
            reply.write_bytes(bytes(60_000))
            sent[0] += 1
            if sent[0] == 40:
                all_sent.set()

    async def main() -> None:
        read: list[int] = []

        async def call() -> None:
            with await device.context_manager.call(1, timeout=PATIENCE) as reply:
                read.append(len(reply.read_blob() or b""))

        async with flavour.open_device(binder.path(), max_calls=4) as device:
            async with flavour.tasks() as start:
                for _ in range(40):  # more than the receive area has room for
                    start(call)
                while not sent[0]:
                    await flavour.sleep(0.001)
                assert not all_sent.wait(0.2), "as long as the loop takes no replies"
            assert read == [60_000] * 40

    with binder.process().device() as server:
        server.become_context_manager(Large())
        server.start_thread_pool()
        flavour.run(main)


def test_a_cancelled_call_frees_its_thread(bench: Bench, flavour: Flavour) -> None:
    bench.peer("--threads", "2")

    async def main() -> None:
        async with flavour.open_device(bench.device, max_calls=1) as device:
            peer = device.context_manager
            start = time.monotonic()
            for _ in range(2):
                assert not await flavour.returns_within(
                    0.05, lambda: peer.call(p.SLEEP, request(1500))
                )
            await peer.interface()  # there is one thread for calls, and it waits no more
            assert time.monotonic() - start < 1.4

    flavour.run(main)


def test_a_call_that_is_cancelled_before_it_starts_has_not_happened(
    bench: Bench, flavour: Flavour
) -> None:
    bench.peer()

    async def main() -> None:
        async with flavour.open_device(bench.device) as device:
            peer = device.context_manager
            await flavour.call_cancelled(lambda: peer.call(p.NOTE, request(1), oneway=True))
            with await peer.call(p.JOURNAL, request()) as reply:
                assert reply.read_string16_array() == []

    flavour.run(main)


def test_the_death_of_a_server(bench: Bench, flavour: Flavour) -> None:
    peer_process = bench.peer()

    async def main() -> None:
        async with flavour.open_device(bench.device) as device:
            device.start_serving()
            peer = device.context_manager
            assert not await flavour.returns_within(0.05, peer.wait_dead)
            async with flavour.tasks() as start:
                start(peer.wait_dead)
                await flavour.sleep(0.01)
                await flavour.in_thread(peer_process.kill)
            await peer.wait_dead()
            with pytest.raises(DeadObject):
                await peer.ping()

    flavour.run(main)


def test_files_there_and_back(bench: Bench, flavour: Flavour) -> None:
    bench.peer()

    async def main() -> None:
        async with flavour.open_device(bench.device) as device:
            parcel = request(2)
            with (
                os.fdopen(os.memfd_create("a"), "w+b") as a,
                os.fdopen(os.memfd_create("b"), "w+b") as b,
            ):
                parcel.write_file(a)
                parcel.write_file(b)
                reply = await device.context_manager.call(p.SWAP, parcel)
                with reply, reply.read_file() as c, reply.read_file() as d:
                    assert inode(c) == inode(b)
                    assert inode(d) == inode(a)

    flavour.run(main)


def inode(file: Any) -> int:  # noqa: ANN401
    return os.fstat(file.fileno()).st_ino


class Mirror(Service):
    """Calls back into the peer, from inside of its handler."""

    def __init__(self, peer: Any) -> None:  # noqa: ANN401
        self._peer = peer

    @transaction(1)
    async def reflect(self, data: Parcel, reply: Parcel) -> None:
        depth = data.read_int32()
        if depth <= 0:
            reply.write_int32(0)
            return
        with await self._peer.call(p.CALL_BACK, request(depth, binder=self)) as answer:
            reply.write_int32(answer.read_int32() + 1)


def test_handlers_call_back_into_their_caller(bench: Bench, flavour: Flavour) -> None:
    bench.peer()  # one thread: it can be called back only where it waits

    async def main() -> None:
        async with flavour.open_device(bench.device) as device:
            peer = device.context_manager
            with await peer.call(p.CALL_BACK, request(6, binder=Mirror(peer))) as reply:
                assert reply.read_int32() == 11

    flavour.run(main)


# Services, in one process


@interface("org.example.IBusy")
class Busy(Service):
    """Handlers that take their time, one that raises, and one that uses a file."""

    accepts_descriptors = True
    running: ClassVar[int] = 0

    def __init__(self, flavour: Flavour) -> None:
        self._flavour = flavour
        self.most = self.cancelled = 0
        self.go_on = flavour.event()
        self.callers: set[int] = set()

    async def wait(self, number: int) -> int:
        self.callers.add(caller().sender_pid)
        Busy.running += 1
        self.most = max(self.most, Busy.running)
        try:
            await self.go_on.wait()
        except self._flavour.cancelled:
            self.cancelled += 1
            raise
        finally:
            Busy.running -= 1
        return number

    async def fail(self) -> None:
        await self._flavour.sleep(0)
        raise LookupError("nothing here")

    async def size(self, file: ReceivedFile) -> int:
        with file:
            return os.fstat(file.fileno()).st_size

    async def impatient(self, other: Busy) -> bool:
        """Ask somebody who takes longer than this waits; say whether that was in time."""

        async def ask() -> None:
            await other.wait(1)
            await self._flavour.sleep(0.001)

        return await self._flavour.returns_within(0.05, ask)


class Ends:
    """Paths of two processes on one device."""

    def __init__(self, binder: Binder) -> None:
        self.server, self.client = binder.process(uid=10), binder.process(uid=20)

    def call(self, *methods: str, **arguments: Any) -> list[Any]:  # noqa: ANN401
        """Call methods at a time, blocking, as another program would."""
        from concurrent.futures import ThreadPoolExecutor

        with self.client.device() as device, ThreadPoolExecutor(len(methods)) as threads:
            device.start_thread_pool()
            busy = as_interface(Busy, device.context_manager)
            futures = [threads.submit(getattr(busy, method), **arguments) for method in methods]
            return [future.exception(PATIENCE) or future.result() for future in futures]


@pytest.fixture
def ends(binder: Binder) -> Ends:
    return Ends(binder)


def test_handlers_run_as_tasks_at_a_time(ends: Ends, flavour: Flavour) -> None:
    async def main() -> None:
        busy = Busy(flavour)
        async with flavour.open_device(ends.server.path()) as device:
            device.become_context_manager(busy)
            device.start_serving()
            results: list[Any] = []

            async def call() -> None:
                results.extend(await flavour.in_thread(lambda: ends.call(*["wait"] * 5, number=7)))

            async with flavour.tasks() as start:
                start(call)
                while busy.most < 5:
                    await flavour.sleep(0.001)
                busy.go_on.set()
            assert results == [7] * 5
            assert busy.callers == {ends.client.pid}

    flavour.run(main)


def test_errors_of_handlers_come_back_and_the_service_goes_on(ends: Ends, flavour: Flavour) -> None:
    async def main() -> None:
        async with flavour.open_device(ends.server.path(), max_threads=0) as device:
            device.become_context_manager(Busy(flavour))
            device.start_serving()
            for _ in range(3):
                [error] = await flavour.in_thread(lambda: ends.call("fail"))
                assert isinstance(error, RemoteException)
                assert error.exception_code == android.EX_ILLEGAL_STATE
                assert error.message == "LookupError: nothing here"

    flavour.run(main)


def test_a_handler_gets_files(ends: Ends, flavour: Flavour) -> None:
    async def main() -> None:
        async with flavour.open_device(ends.server.path()) as device:
            device.become_context_manager(Busy(flavour))
            device.start_serving()
            before = len(os.listdir("/proc/self/fd"))
            with os.fdopen(os.memfd_create("x"), "w+b") as file:
                file.write(b"12345")
                file.flush()
                results = await flavour.in_thread(lambda: ends.call("size", file=file))
            assert results == [5]
            assert len(os.listdir("/proc/self/fd")) == before

    flavour.run(main)


def test_a_call_of_a_handler_is_finished_before_it_is_cancelled(
    ends: Ends, flavour: Flavour
) -> None:
    async def main() -> None:
        other = Busy(flavour)
        async with (
            flavour.open_device(ends.server.path()) as device,
            flavour.open_device(ends.client.path("other")) as others,
        ):
            del others
            device.become_context_manager(Busy(flavour))
            device.start_serving()

            async def let_go() -> None:
                while not other.most:
                    await flavour.sleep(0.001)
                await flavour.sleep(0.1)  # longer than it waits
                other.go_on.set()

            class Waiting(Service):
                """Blocks in the caller's process, until it is let go."""

                descriptor = Busy.descriptor

                def on_transact(
                    self, _code: int, _data: Parcel, reply: Parcel, _flags: int
                ) -> None:
                    other.most = 1
                    deadline = time.monotonic() + PATIENCE
                    while not other.go_on.is_set() and time.monotonic() < deadline:
                        time.sleep(0.001)
                    reply.write_no_exception()
                    reply.write_int32(1)

            async with flavour.tasks() as start:
                start(let_go)
                results = await flavour.in_thread(
                    lambda: ends.call("impatient", other=Interfaced(Waiting()))
                )
            assert results == [False]
            assert other.go_on.is_set()

    flavour.run(main)


class Interfaced:
    """An object of this process that has an interface's name only."""

    def __init__(self, binder: Service) -> None:
        self.binder = binder


def test_leaving_the_block_cancels_handlers_and_answers_their_callers(
    ends: Ends, flavour: Flavour
) -> None:
    async def main() -> None:
        busy = Busy(flavour)
        outcomes: list[Any] = []

        async def call() -> None:
            outcomes.extend(await flavour.in_thread(lambda: ends.call(*["wait"] * 3, number=7)))

        async with flavour.tasks() as start, flavour.open_device(ends.server.path()) as device:
            device.become_context_manager(busy)
            device.start_serving()
            start(call)
            while busy.most < 3:
                await flavour.sleep(0.001)
        assert busy.cancelled == 3
        for outcome in outcomes:
            assert isinstance(outcome, DeadObject | RemoteException)
            assert getattr(outcome, "status", 0) in (0, android.STATUS_DEAD_OBJECT)

    flavour.run(main)


def test_a_call_that_comes_when_the_device_closes_is_answered(ends: Ends, flavour: Flavour) -> None:
    """Its task is cancelled before it has begun; the thread that brought it must not wait."""

    async def main() -> None:
        outcomes: list[Any] = []

        async def call() -> None:
            outcomes.extend(await flavour.in_thread(lambda: ends.call("wait", number=7)))

        async with flavour.tasks() as start, flavour.open_device(ends.server.path()) as device:
            device.become_context_manager(Busy(flavour))
            start_task = device.loop.start_task

            def start_and_cancel(function: Any, ended: Any) -> None:  # noqa: ANN401
                start_task(function, ended)
                device.loop.cancel_tasks()

            device.loop.start_task = start_and_cancel  # type: ignore[method-assign]
            device.start_serving()
            start(call)
            while not outcomes:
                await flavour.sleep(0.001)
        [outcome] = outcomes
        assert isinstance(outcome, RemoteException)
        assert outcome.status == android.STATUS_DEAD_OBJECT

    flavour.run(main)


def test_an_exception_in_the_block_closes_the_device(binder: Binder, flavour: Flavour) -> None:
    devices: list[AsyncDevice] = []

    async def main() -> None:
        async with flavour.open_device(binder.path()) as device:
            devices.append(device)
            raise KeyError("why")

    with pytest.raises(KeyError):
        flavour.run(main)
    with pytest.raises(OSError, match="closed"):
        _ = devices[0].context_manager


def test_a_device_that_cannot_be_opened(tmp_path: Path, flavour: Flavour) -> None:
    async def main() -> None:
        async with flavour.open_device(tmp_path / "binder"):
            raise AssertionError

    with pytest.raises(DeviceError, match="no such device"):
        flavour.run(main)


def test_a_device_that_could_never_call(binder: Binder, flavour: Flavour) -> None:
    async def main() -> None:
        async with flavour.open_device(binder.path(), max_calls=0):
            raise AssertionError

    with pytest.raises(ValueError, match="max_calls must be 1 or more, not 0"):
        flavour.run(main)


@pytest.mark.parametrize("other", FLAVOURS, ids=lambda other: f"in-{other.name}")
def test_another_loop_is_refused(binder: Binder, flavour: Flavour, other: Flavour) -> None:
    async def use(device: AsyncDevice) -> None:
        with pytest.raises(MisuseError, match="belongs to another event loop"):
            await device.context_manager.ping(timeout=PATIENCE)
        with pytest.raises(MisuseError, match="belongs to another event loop"):
            await device.wait_gone()

    async def main() -> None:
        async with flavour.open_device(binder.path()) as device:
            device.become_context_manager(Service())
            device.start_serving()
            async with flavour.open_device(binder.path()) as client:
                await flavour.in_thread(lambda: other.run(lambda: use(client)))
                await client.context_manager.ping(timeout=PATIENCE)

    flavour.run(main)


def test_calls_after_the_end_are_refused(binder: Binder, flavour: Flavour) -> None:
    server = ExitStack()

    async def main() -> None:
        async with flavour.open_device(binder.path()) as device:
            proxy = device.context_manager
        with pytest.raises(DeviceError, match="closed"):
            await proxy.ping()

    with server:
        device = server.enter_context(binder.device())
        device.become_context_manager(Service())
        device.start_thread_pool()
        flavour.run(main)


# The service manager


@pytest.fixture
def managed(binder: Binder) -> Iterator[Binder]:
    with binder.device() as device:
        device.become_context_manager(ServiceManagerService())
        device.start_thread_pool()
        yield binder


def test_services_have_names(managed: Binder, flavour: Flavour) -> None:
    async def main() -> None:
        busy, told = Busy(flavour), []
        busy.go_on.set()
        server, client = managed.process(), managed.process()
        async with flavour.open_device(client.path()) as device:
            manager = AsyncServiceManager(device)
            with pytest.raises(ServiceNotFound):
                await manager.get("busy")
            callback = await manager.register_for_notifications(
                "busy", lambda name, _binder: told.append(name)
            )
            async with flavour.tasks() as start, flavour.open_device(server.path()) as offering:

                async def use() -> None:
                    echo: Any = as_interface(Busy, await manager.wait("busy", PATIENCE))
                    assert await echo.wait(3) == 3
                    assert "busy" in await manager.list()
                    named = manager.named("busy")
                    assert await (await named.proxy()).interface() == "org.example.IBusy"
                    over.set()

                over = flavour.event()
                start(use)
                await AsyncServiceManager(offering).add("busy", busy)
                await over.wait()
            await manager.unregister_for_notifications("busy", callback)
            assert told == ["busy"]

    flavour.run(main)
