# SPDX-License-Identifier: Apache-2.0
"""``Device``: calls, objects, threads, signals, deaths; ``tests/integration/client`` has more."""

from __future__ import annotations

import errno
import gc
import os
import signal
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from binderclient import android
from binderclient.blocking import Device
from binderclient.errors import (
    DeadObject,
    DeviceError,
    FailedTransaction,
    MisuseError,
    ParcelError,
    RemoteException,
)
from binderclient.objects import Proxy, Service, transaction
from binderclient.parcel import Parcel
from client import peer as p
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.conftest import Bench

PATIENCE = 10.0


def request(*numbers: int, blob: bytes | None = None) -> Parcel:
    parcel = Parcel.for_interface(p.DESCRIPTOR)
    for number in numbers:
        parcel.write_int32(number)
    if blob is not None:
        parcel.write_bytes(blob)
    return parcel


def with_binder(binder: Service | Proxy, *numbers: int) -> Parcel:
    parcel = Parcel.for_interface(p.DESCRIPTOR)
    parcel.write_strong_binder(binder)
    for number in numbers:
        parcel.write_int32(number)
    return parcel


def echo(proxy: Proxy, data: bytes) -> bytes | None:
    with proxy.call(p.ECHO, request(blob=data)) as reply:
        return reply.read_bytes()


@contextmanager
def connected(bench: Bench, *arguments: str) -> Iterator[tuple[Device, Proxy]]:
    bench.peer(*arguments)
    with Device(bench.device) as device:
        yield device, device.context_manager


@contextmanager
def alarm(seconds: float, handler: object) -> Iterator[None]:
    """Interrupt the main thread once."""
    previous = signal.signal(signal.SIGALRM, handler)  # type: ignore[arg-type]
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# Calls


@pytest.mark.parametrize("size", [0, 1, 3, 4096, 70_000, 500_000])
def test_payloads_of_all_sizes(bench: Bench, size: int) -> None:
    with connected(bench) as (_device, peer):
        data = os.urandom(size)
        for _ in range(3):  # buffers must come back: three times the largest is more than there is
            assert echo(peer, data) == data


def test_who_calls_is_known(bench: Bench) -> None:
    with connected(bench) as (_device, peer), peer.call(p.WHO, request()) as reply:
        assert (reply.read_int32_array() or [])[:2] == [os.getpid(), os.geteuid()]


def test_every_object_answers_ping_and_says_its_interface(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        peer.ping()
        assert peer.interface() == p.DESCRIPTOR


def test_errors_of_handlers_come_back(bench: Bench) -> None:
    def ask(kind: str) -> Parcel:
        parcel = request()
        parcel.write_string16(kind)
        parcel.write_int32(77)
        return peer.call(p.RAISE, parcel)

    with connected(bench) as (_device, peer):
        with ask("RemoteException") as reply, pytest.raises(RemoteException) as specific:
            reply.read_exception()
        assert (specific.value.message, specific.value.service_specific) == ("specific", 77)
        with ask("PermissionError") as reply, pytest.raises(RemoteException, match="EX_SECURITY"):
            reply.read_exception()
        unknown = pytest.raises(RemoteException, match="EX_ILLEGAL_STATE: KeyError: 'why'")
        with ask("KeyError") as reply, unknown:
            reply.read_exception()
        with pytest.raises(RemoteException) as code:
            peer.call(999, request())
        assert code.value.status == android.STATUS_UNKNOWN_TRANSACTION
        with pytest.raises(RemoteException) as token:
            peer.call(p.ECHO, Parcel())
        assert token.value.status == android.STATUS_BAD_VALUE


def test_one_way_calls_arrive_in_order_and_without_a_sender(bench: Bench) -> None:
    with connected(bench, "--threads", "3") as (_device, peer):
        for number in range(50):
            peer.call(p.NOTE, request(number), oneway=True)

        def journal() -> list[str | None]:
            with peer.call(p.JOURNAL, request()) as reply:
                return reply.read_string16_array() or []

        eventually(lambda: len(journal()) == 50)
        assert journal() == [f"note {number} 0" for number in range(50)]


def test_a_request_that_is_too_large_is_refused(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        with pytest.raises(FailedTransaction):
            peer.call(p.ECHO, request(blob=bytes(2 << 20)))
        assert echo(peer, b"still there") == b"still there"


def test_without_a_context_manager_handle_0_is_dead(bench: Bench) -> None:
    with Device(bench.device) as device, pytest.raises(DeadObject):
        device.context_manager.ping()


def test_there_is_one_context_manager(bench: Bench) -> None:
    with connected(bench) as (device, _peer), pytest.raises(DeviceError, match="manager already"):
        device.become_context_manager(Service())


def test_the_context_manager_cannot_call_itself_through_handle_0(bench: Bench) -> None:
    with Device(bench.device) as device:
        device.become_context_manager(Service())
        with pytest.raises(MisuseError):
            _ = device.context_manager
        # but a second open file of the same process is a party of its own ...
        with Device(bench.device) as second, pytest.raises(FailedTransaction):
            second.context_manager.ping()  # ... except for handle 0 (behaviours E2)


# Objects


class Mirror(Service):
    """Calls the peer again until the depth is used up."""

    def __init__(self, peer: Proxy | None = None) -> None:
        self._peer = peer
        self.threads: list[int] = []

    @transaction(1)
    def reflect(self, data: Parcel, reply: Parcel) -> None:
        self.threads.append(threading.get_native_id())
        depth = data.read_int32()
        if depth <= 0 or self._peer is None:
            reply.write_int32(0)
            return
        with self._peer.call(p.CALL_BACK, with_binder(self, depth)) as answer:
            reply.write_int32(answer.read_int32() + 1)


def test_calls_come_back_to_the_thread_that_waits(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        mirror = Mirror(peer)
        with peer.call(p.CALL_BACK, with_binder(mirror, 6)) as reply:
            assert reply.read_int32() == 12 - 1
        assert set(mirror.threads) == {threading.get_native_id()}


def test_an_object_lives_as_long_as_somebody_holds_it(bench: Bench) -> None:
    with connected(bench) as (device, peer):
        device.start_thread_pool()
        mirror = Mirror()
        gone = weakref.ref(mirror)
        peer.call(p.HOLD, with_binder(mirror)).close()
        del mirror
        gc.collect()
        assert gone() is not None
        with peer.call(p.DROP, request()) as reply:
            assert reply.read_int32() == 1
        peer.ping()  # the peer's references go with what it writes next
        eventually(lambda: gc.collect() is not None and gone() is None)


def test_an_object_that_is_only_looked_at_is_let_go(bench: Bench) -> None:
    with connected(bench) as (device, peer):
        device.start_thread_pool()
        mirror = Mirror()
        gone = weakref.ref(mirror)
        peer.call(p.CALL_BACK, with_binder(mirror, 0)).close()
        del mirror
        peer.ping()
        eventually(lambda: gc.collect() is not None and gone() is None)


def test_an_object_that_comes_home_is_itself(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        mirror = Mirror()
        peer.call(p.HOLD, with_binder(mirror)).close()
        with peer.call(p.RETURN, request()) as reply:
            assert reply.read_strong_binder() is mirror


def test_a_proxy_can_be_passed_on(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        with peer.call(p.GIVE, request()) as reply:
            gift = reply.read_strong_binder()
        assert isinstance(gift, Proxy)
        peer.call(p.HOLD, with_binder(gift)).close()
        with peer.call(p.RETURN, request()) as reply:
            assert reply.read_strong_binder() is gift


def test_the_same_object_is_the_same_proxy(bench: Bench) -> None:
    with connected(bench) as (device, peer):
        with peer.call(p.GIVE, request()) as reply:
            gift = reply.read_strong_binder()
            reply.position = 0
            assert reply.read_strong_binder() is gift
        assert device.context_manager is peer
        assert isinstance(gift, Proxy)
        with gift.call(1) as reply:
            assert reply.read_int32() == bench.peers[0].own_pid


def test_a_proxy_of_another_device_cannot_be_sent(bench: Bench) -> None:
    with connected(bench) as (_device, peer), Device(bench.device) as other:
        with pytest.raises(ParcelError, match="another device"):
            peer.call(p.HOLD, with_binder(other.context_manager))
        peer.ping()


def test_a_file_travels(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        read_end, write_end = os.pipe()
        with request() as parcel:
            parcel.write_file(write_end)
            os.close(write_end)
            peer.call(p.SEND_FD, parcel).close()
        assert os.read(read_end, 100) == b"written by the peer"
        assert os.read(read_end, 100) == b""  # the peer has closed its own
        os.close(read_end)


# Received pages


def test_a_reply_is_a_view_until_it_is_closed(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        reply = peer.call(p.ECHO, request(blob=b"x" * 1000))
        blob = reply.read_blob()
        assert blob is not None
        assert bytes(blob[:3]) == b"xxx"
        reply.close()
        with pytest.raises(ValueError, match="released"):
            bytes(blob)


def test_forgotten_replies_do_not_fill_the_receive_area(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        for _ in range(40):
            assert len(peer.call(p.ECHO, request(blob=bytes(100_000)))) > 100_000


def test_closing_the_device_closes_its_parcels(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        reply = peer.call(p.ECHO, request(blob=b"abc"))
    assert reply.closed
    with pytest.raises(DeviceError, match="closed"):
        peer.ping()


# Threads


def test_many_threads_call_at_a_time(bench: Bench) -> None:
    failures: list[str] = []

    def work(number: int) -> None:
        data = bytes([number]) * 3000
        failures.extend("mixed up" for _ in range(100) if echo(peer, data) != data)

    with connected(bench, "--threads", "4") as (_device, peer):
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert failures == []


def test_a_busy_server_is_made_to_use_more_threads(bench: Bench) -> None:
    seen: set[int] = set()

    def nap() -> None:
        with peer.call(p.SLEEP, request(500)) as reply:
            seen.add(reply.read_int32())

    with connected(bench, "--threads", "3") as (_device, peer):
        start = time.monotonic()
        threads = [threading.Thread(target=nap) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(seen) > 1
        assert time.monotonic() - start < 1.9


def test_a_thread_that_ends_leaves_the_driver(bench: Bench) -> None:
    with connected(bench) as (_device, peer):
        before = bench.counts()["threads"]
        for _ in range(5):
            thread = threading.Thread(target=peer.ping)
            thread.start()
            thread.join(PATIENCE)
        eventually(lambda: bench.counts()["threads"] <= before)


def test_signals_do_not_disturb_a_call(bench: Bench) -> None:
    hits: list[int] = []
    with connected(bench) as (_device, peer), alarm(0.05, lambda *_: hits.append(1)):
        with peer.call(p.SLEEP, request(200)) as reply:
            assert reply.read_int32() > 0
        assert hits == [1]


def test_an_exception_out_of_a_signal_handler_gives_the_call_up(bench: Bench) -> None:
    class Enough(Exception):
        pass

    def give_up(*_: object) -> None:
        raise Enough

    with connected(bench) as (_device, peer):
        start = time.monotonic()
        with alarm(0.05, give_up), pytest.raises(Enough):
            peer.call(p.SLEEP, request(2000))
        assert time.monotonic() - start < 1.5
        assert echo(peer, b"next") == b"next"  # although the driver had a call of this thread


def test_a_call_in_a_signal_handler_of_a_waiting_thread_is_misuse(bench: Bench) -> None:
    def call_too(*_: object) -> None:
        with pytest.raises(MisuseError):
            peer.ping()
        hits.append(1)

    hits: list[int] = []
    with connected(bench) as (_device, peer), alarm(0.05, call_too):
        peer.call(p.SLEEP, request(150)).close()
    assert hits == [1]


def test_closing_ends_calls_of_other_threads(bench: Bench) -> None:
    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            peer.call(p.SLEEP, request(3000))
        except DeviceError as error:
            outcome.append(error)

    with connected(bench) as (_device, peer):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
    thread.join(2.5)
    assert not thread.is_alive()
    assert len(outcome) == 1


def test_stop_ends_join_from_a_signal_handler(bench: Bench) -> None:
    with Device(bench.device) as device:
        device.become_context_manager(Service())
        with alarm(0.1, lambda *_: device.stop()):
            start = time.monotonic()
            device.join_thread_pool()
        assert time.monotonic() - start < 3


# Deaths


def test_a_killed_server_is_dead_to_its_callers(bench: Bench) -> None:
    told: list[Proxy] = []
    arrived = threading.Event()

    def died(proxy: Proxy) -> None:
        told.append(proxy)
        arrived.set()

    with connected(bench) as (device, peer):
        device.start_thread_pool()
        peer.link_to_death(died)
        with pytest.raises(DeadObject):
            peer.call(p.DIE, request())
        assert arrived.wait(PATIENCE)
        assert told == [peer]
        assert peer.dead
        with pytest.raises(DeadObject):
            peer.link_to_death(died)
        with pytest.raises(DeadObject):
            peer.ping()
        bench.peer()  # the next context manager is another object
        assert device.context_manager is not peer
        device.context_manager.ping()


def test_the_death_of_a_manager_that_was_looked_for_too_early_is_told(bench: Bench) -> None:
    told = threading.Event()
    with Device(bench.device) as device:
        device.start_thread_pool()
        early = device.context_manager  # of nobody: the driver ignores its references
        with pytest.raises(DeadObject):
            early.ping()
        bench.peer()
        device.context_manager.ping()
        device.context_manager.link_to_death(lambda _proxy: told.set())
        bench.peers[0].kill()
        assert told.wait(PATIENCE)


def test_an_unlinked_death_is_not_told(bench: Bench) -> None:
    told: list[Proxy] = []
    other = threading.Event()
    with connected(bench) as (device, peer):
        device.start_thread_pool()
        peer.link_to_death(told.append)
        peer.link_to_death(lambda _proxy: other.set())
        assert peer.unlink_to_death(told.append)
        assert not peer.unlink_to_death(told.append)
        bench.peers[0].kill()
        assert other.wait(PATIENCE)
        assert told == []


def test_links_can_be_made_and_undone_again_and_again(bench: Bench) -> None:
    told = threading.Event()

    def died(_proxy: Proxy) -> None:
        told.set()

    with connected(bench) as (device, peer):
        device.start_thread_pool()
        for _ in range(50):
            peer.link_to_death(died)
            assert peer.unlink_to_death(died)
        peer.link_to_death(died)
        bench.peers[0].kill()
        assert told.wait(PATIENCE)


def test_a_client_that_dies_lets_go_of_objects(bench: Bench) -> None:
    with connected(bench) as (device, peer):
        device.start_thread_pool()
        mirror = Mirror()
        gone = weakref.ref(mirror)
        peer.call(p.HOLD, with_binder(mirror)).close()
        del mirror
        bench.peers[0].kill()
        eventually(lambda: gc.collect() is not None and gone() is None)


# Opening, forking, losing the driver


def test_what_a_thread_has_lent_its_finalizers_leave_alone(bench: Bench) -> None:
    bench.peer()
    with Device(bench.device) as device:
        session = device.session
        assert session.lend() is None  # it has nothing yet
        reply = device.context_manager.call(p.ECHO, request(blob=bytes(100_000)))
        lent = session.lend()
        assert lent is session._local.thread
        reply.close()  # what is so large is given back at once, but not now
        assert lent.state.data_to_write()
        with pytest.raises(MisuseError, match="a finalizer"):
            device.flush()
        session.take_back()
        device.flush()
        assert not lent.state.data_to_write()


def test_a_missing_device_says_what_to_do(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(DeviceError, match="is binderd running") as caught:
        Device(os.fspath(tmp_path) + "/binder")
    assert caught.value.errno == errno.ENOENT


def test_a_file_that_is_no_device_says_so(tmp_path: os.PathLike[str]) -> None:
    path = os.fspath(tmp_path) + "/file"
    with open(path, "w", encoding="ascii"):
        pass
    with pytest.raises(DeviceError, match="no binder device"):
        Device(path)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_no_part_in_the_device(bench: Bench) -> None:
    with connected(bench) as (device, peer):
        reply = peer.call(p.ECHO, request(blob=b"abc"))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                peer.ping()
            except DeviceError as error:
                status = 0 if "before a fork" in str(error) else 2
            device.close()
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert reply.read_bytes() == b"abc"
        reply.close()
        assert echo(peer, b"parent") == b"parent"
