# SPDX-License-Identifier: Apache-2.0
"""Where payloads lie until the driver has taken them, and the threads that make others' calls."""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from binderclient import Parcel
from binderclient.connection import Connection
from binderclient.objects import Proxy
from binderclient.sending import SendArea
from binderclient.threads import BinderThread
from binderclient.workers import Workers
from binderwire.binder_abi import COMMANDS, TF_ONE_WAY
from binderwire.commands import read_stream
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20.0


def test_what_is_put_into_an_area_lies_in_one_page() -> None:
    area = SendArea()
    addresses = []
    for number in range(1, 40):
        addresses.append(area.put(bytearray([number]) * number))
        assert ctypes.string_at(addresses[-1], number) == bytes([number]) * number
    assert len({address // mmap.PAGESIZE for address in addresses}) == 1
    assert [address % 8 for address in addresses] == [0] * len(addresses)
    assert ctypes.string_at(addresses[0], 1) == b"\1"
    area.clear()
    assert area.put(bytearray(b"again")) == addresses[0]


def test_an_area_is_full_at_the_end_of_its_page() -> None:
    area = SendArea()
    assert area.put(bytearray(mmap.PAGESIZE + 1)) == 0
    start = area.put(bytearray(mmap.PAGESIZE - 8))
    assert area.put(bytearray(9)) == 0
    assert area.put(bytearray(8)) == start + mmap.PAGESIZE - 8
    assert area.put(bytearray(1)) == 0


class NoDriver:
    """What stands for one: no thread has a lane there."""

    def lane(self) -> None:
        """Return None."""


class Sender:
    """A thread without a driver, and what it would write."""

    def __init__(self) -> None:
        connection: Connection[Any] = Connection(Proxy)  # type: ignore[arg-type]
        self.thread = BinderThread(NoDriver(), connection, threading.RLock())  # type: ignore[arg-type]
        self.thread._tid = 0  # so that it leaves nothing at its end

    def send(self, content: bytes) -> None:
        parcel = Parcel(content)
        self.thread.call(parcel, None, 1, 1, TF_ONE_WAY)  # type: ignore[arg-type]

    def addresses(self) -> list[int]:
        stream = bytes(self.thread.state.data_to_write())
        return [item.fields.buffer for item in read_stream(COMMANDS, stream)]

    def contents(self) -> list[bytes]:
        stream = bytes(self.thread.state.data_to_write())
        found = [item.fields for item in read_stream(COMMANDS, stream)]
        return [ctypes.string_at(each.buffer, each.data_size) for each in found]


@pytest.mark.parametrize("size", [8, 3000, 5000, 100_000])
def test_what_the_driver_has_not_taken_stays_as_it_is(size: int) -> None:
    sender = Sender()
    payloads = [bytes([number]) * size for number in (1, 2, 3)]
    for payload in payloads:
        sender.send(payload)
    assert sender.contents() == payloads
    taken = len(sender.thread.state.data_to_write()) // 3
    sender.thread.state.written(taken)
    sender.send(b"more")
    assert sender.contents() == [*payloads[1:], b"more"]


def test_the_next_payload_lies_where_the_last_one_lay() -> None:
    sender = Sender()
    seen = set()
    for number in range(5):
        sender.send(bytes([number]) * 64)
        seen.update(sender.addresses())
        sender.thread.state.written(len(sender.thread.state.data_to_write()))
    assert len(seen) == 1


def test_what_is_sent_while_a_payload_is_put_does_not_take_its_place() -> None:
    class Interrupted(SendArea):
        def put(self, data: bytearray) -> int:
            address = super().put(data)
            sender.send(b"of a finalizer")
            return address

    sender = Sender()
    sender.thread._area = Interrupted()
    sender.send(b"of the program")
    assert sorted(sender.contents()) == [b"of a finalizer", b"of the program"]


@pytest.fixture
def workers() -> Iterator[Workers]:
    found = Workers(2)
    yield found
    found.close()
    eventually(lambda: found._count == 0)


def test_the_thread_that_was_busy_last_has_the_next_job(workers: Workers) -> None:
    threads: list[int] = []
    meeting = threading.Barrier(3)

    def meet() -> None:
        meeting.wait(PATIENCE)

    for _ in range(2):
        workers.put(meet)
    meeting.wait(PATIENCE)
    for _ in range(5):
        eventually(lambda: len(workers._idle) == 2)
        workers.put(lambda: threads.append(threading.get_ident()))
    eventually(lambda: len(threads) == 5)
    assert len(set(threads)) == 1


def test_jobs_beyond_the_limit_wait_for_a_thread(workers: Workers) -> None:
    blocked = threading.Event()
    done: list[int] = []
    for number in range(5):
        workers.put(lambda number=number: (blocked.wait(PATIENCE), done.append(number)))  # type: ignore[misc]
    assert workers._count == 2
    blocked.set()
    eventually(lambda: sorted(done) == [0, 1, 2, 3, 4])


def test_threads_that_are_closed_end_after_the_jobs_that_wait() -> None:
    workers = Workers(1)
    blocked = threading.Event()
    done: list[int] = []
    workers.put(lambda: blocked.wait(PATIENCE))  # type: ignore[arg-type, return-value]
    workers.put(lambda: done.append(1))
    workers.close()
    blocked.set()
    eventually(lambda: workers._count == 0)
    assert done == [1]


def test_a_thread_that_was_taken_waits_for_who_has_taken_it(workers: Workers) -> None:
    done: list[str] = []
    workers.put(lambda: "lent")
    eventually(lambda: len(workers._idle) == 1)
    worker = workers.take()
    assert worker is not None
    assert worker.lent == "lent"
    assert workers.take() is None
    workers.put(lambda: done.append("another"))  # for which there is a second one
    eventually(lambda: done == ["another"])
    workers.put_to(worker, lambda: done.append("taken"))
    eventually(lambda: done == ["another", "taken"])
    eventually(lambda: len(workers._idle) == 2)
    assert worker.lent is None


def test_a_thread_that_is_given_back_does_what_waits(workers: Workers) -> None:
    blocked = threading.Event()
    done: list[str] = []
    workers.put(lambda: None)
    eventually(lambda: len(workers._idle) == 1)
    worker = workers.take()
    assert worker is not None
    workers.put(lambda: blocked.wait(PATIENCE))
    workers.put(lambda: done.append("waited"))
    workers.give_back(worker)
    eventually(lambda: done == ["waited"])
    blocked.set()


def test_a_thread_that_is_given_back_too_late_ends() -> None:
    workers = Workers(1)
    workers.put(lambda: None)
    eventually(lambda: len(workers._idle) == 1)
    worker = workers.take()
    assert worker is not None
    workers.close()
    assert workers._count == 1
    workers.give_back(worker)
    eventually(lambda: workers._count == 0)


def test_a_thread_is_not_idle_while_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binderclient.workers.IDLE_SECONDS", 0.01)
    workers = Workers(1)
    workers.put(lambda: None)
    worker = None
    while worker is None:  # it may have ended already
        workers.put(lambda: None)
        worker = workers.take()
    time.sleep(0.05)  # there is nothing to wait for: it is to go on as it is
    assert workers._count == 1
    workers.give_back(worker)
    eventually(lambda: workers._count == 0)
