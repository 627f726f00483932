# SPDX-License-Identifier: Apache-2.0
"""Clients as the engine sees them: memory per thread, and the end of threads."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING

import pytest

from binderd.engine.ports import NoAnswer
from binderd.memory.client import FileClient, FileOpener
from binderd.memory.shrinker import Shrinker
from binderd.memory.thread_watch import ThreadWatch
from channel.helpers import FakeEngine, FakeProcess, NoDelivery
from channel.rawclient import PAGE, anonymous, poke, unmap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class Worker:
    """A thread that waits until it may end."""

    def __init__(self) -> None:
        self._may_end = threading.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=[started])
        self._thread.start()
        started.wait()
        self.tid = self._thread.native_id or 0

    def _run(self, started: threading.Event) -> None:
        started.set()
        self._may_end.wait()

    def end(self) -> None:
        self._may_end.set()
        self._thread.join()


class Backing:
    """Stands for the kernel's table of backing files."""

    device = (0, 1)

    def __init__(self) -> None:
        self.open: list[int] = []

    def register(self, fd: int) -> int:
        os.fstat(fd)
        self.open.append(len(self.open) + 1)
        return self.open[-1]

    def unregister(self, backing_id: int) -> None:
        self.open.remove(backing_id)


@pytest.fixture
def watch() -> Iterator[ThreadWatch]:
    watch = ThreadWatch()
    yield watch
    watch.close()


@pytest.fixture
def backing() -> Backing:
    return Backing()


@pytest.fixture
def opener(watch: ThreadWatch, backing: Backing) -> FileOpener:
    shrinker = Shrinker(lambda: None, lambda process: None)
    opener = FileOpener(backing, shrinker, watch, NoDelivery(), "")
    watch_once(opener)
    return opener


def watch_once(opener: FileOpener) -> None:
    """Where threads have no pidfds (before Linux 6.9) a timer's descriptor is there from now on."""
    client = open_client(opener)
    client.memory(threading.get_native_id())
    client.close()


def open_client(opener: FileOpener) -> FileClient:
    client = opener.open(threading.get_native_id(), 5)
    client.adopt(FakeEngine(), FakeProcess(client))
    return client


def is_readable(watch: ThreadWatch, seconds: float = 0.0) -> bool:
    return bool(select.select([watch], [], [], seconds)[0])


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_thread_that_ends_is_seen(opener: FileOpener, watch: ThreadWatch) -> None:
    client = open_client(opener)
    workers = [Worker(), Worker()]
    for worker in workers:
        client.memory(worker.tid)
    assert (len(watch), is_readable(watch), opener.reap()) == (2, False, [])
    workers[0].end()
    assert is_readable(watch, 1)
    assert opener.reap() == [(client.pages.open_file, workers[0].tid)]
    assert (len(watch), is_readable(watch), opener.reap()) == (1, False, [])
    client.close()
    assert len(watch) == 0
    workers[1].end()
    assert not is_readable(watch)


def test_threads_of_a_process_share_one_address_space(opener: FileOpener) -> None:
    client = open_client(opener)
    worker = Worker()
    address = anonymous(PAGE)
    poke(address, b"text")
    before = descriptors()
    memories = [client.memory(tid) for tid in (threading.get_native_id(), worker.tid)]
    assert descriptors() == before + 2, "two watched threads"
    assert [memory.read(address, 4) for memory in memories] == [b"text", b"text"]
    worker.end()
    assert is_readable(opener.watch, 1)
    opener.reap()
    assert descriptors() == before + 1
    assert memories[0].read(address, 4) == b"text"
    client.close()
    unmap(address, PAGE)


def test_a_thread_that_comes_back_leaves_nothing_behind(
    opener: FileOpener, watch: ThreadWatch
) -> None:
    client = open_client(opener)
    client.memory(threading.get_native_id())
    before = descriptors()
    for _ in range(3):
        client.memory(threading.get_native_id())
    assert (descriptors(), len(watch)) == (before, 1)
    client.close()


def test_close_gives_everything_back(opener: FileOpener, backing: Backing) -> None:
    before = descriptors()
    client = open_client(opener)
    client.memory(threading.get_native_id())
    assert (len(backing.open), len(list(opener.arenas()))) == (1, 1)
    client.close()
    client.close()
    assert (backing.open, list(opener.arenas()), descriptors()) == ([], [], before)


def test_a_failed_registration_leaves_nothing_behind(
    opener: FileOpener, monkeypatch: pytest.MonkeyPatch, backing: Backing
) -> None:
    def refuse(fd: int) -> int:
        raise PermissionError(1, "no passthrough")

    monkeypatch.setattr(backing, "register", refuse, raising=True)
    before = descriptors()
    with pytest.raises(PermissionError):
        opener.open(threading.get_native_id(), 5)
    assert descriptors() == before


def test_where_nothing_is_registered_clients_have_pages_of_their_own(
    opener: FileOpener, monkeypatch: pytest.MonkeyPatch, backing: Backing
) -> None:
    def refuse(fd: int) -> int:
        raise PermissionError(1, "no right to it")

    monkeypatch.setattr(backing, "register", refuse, raising=True)
    before = descriptors()
    assert not opener.can_back()
    opener.lack_passthrough()
    client = opener.open(threading.get_native_id(), 5, is_private=True)
    assert (client.backing_id, client.has_mmap) == (0, False)
    client.close()
    assert descriptors() == before


def test_clients_of_one_inode_show_one_file_until_the_last_is_gone(
    opener: FileOpener, backing: Backing
) -> None:
    tid = threading.get_native_id()
    first = opener.open(tid, 5)
    second = opener.open(tid, 5, is_private=True)
    assert second.backing_id == first.backing_id
    first.close()
    assert len(backing.open) == 1
    second.close()
    assert backing.open == []
    others = [opener.open(tid, nodeid, is_private=True) for nodeid in (6, 6, 7)]
    assert {other.backing_id for other in others} == {others[0].backing_id}
    for other in others:
        other.close()
    assert len(backing.open) == 1, "the zeros stay"


def test_a_thread_of_which_nothing_can_be_had(opener: FileOpener) -> None:
    client = open_client(opener)
    with pytest.raises(NoAnswer):
        client.memory((1 << 31) - 1)
    client.close()
    with pytest.raises(ProcessLookupError):
        opener.open((1 << 31) - 1, 5)


def before_thread_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernel be one before Linux 6.9."""
    real = os.pidfd_open

    def pidfd_open(pid: int, flags: int = 0) -> int:
        if flags:
            raise OSError(22, "before Linux 6.9")
        return real(pid)

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)


def test_without_thread_pidfds_threads_are_asked_about(
    opener: FileOpener, watch: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_thread_pidfds(monkeypatch)
    client, worker, other = open_client(opener), Worker(), Worker()
    for tid in (threading.get_native_id(), worker.tid, other.tid):
        client.memory(tid)
    assert (len(watch), watch.is_available) == (3, False)
    worker.end()
    assert is_readable(watch, 5)
    assert opener.reap() == [(client.pages.open_file, worker.tid)]
    assert is_readable(watch, 5), "the others are asked about still"
    assert opener.reap() == []
    client.close()
    assert len(watch) == 0
    other.end()
    assert not is_readable(watch, 2.5), "there is nobody to ask about"


def test_all_threads_are_asked_about_in_turn(
    opener: FileOpener, watch: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_thread_pidfds(monkeypatch)
    monkeypatch.setattr("binderd.memory.thread_watch._LOOKS_MAX", 2)
    client, workers = open_client(opener), [Worker() for _ in range(5)]
    for worker in workers:
        client.memory(worker.tid)
    for worker in workers:
        worker.end()
    gone: list[int] = []
    for _ in range(3):
        assert is_readable(watch, 5)
        gone += [tid for _, tid in opener.reap()]
    assert sorted(gone) == sorted(worker.tid for worker in workers)
    assert len(watch) == 0
    client.close()


def test_without_thread_pidfds_everything_is_given_back(
    opener: FileOpener, watch: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_thread_pidfds(monkeypatch)
    watch_once(opener)
    before = descriptors()
    for _ in range(3):
        client, worker = open_client(opener), Worker()
        client.memory(worker.tid)
        worker.end()
        client.memory(threading.get_native_id())
        client.close()
    assert descriptors() == before


def test_files_of_a_process_share_what_it_costs(opener: FileOpener, watch: ThreadWatch) -> None:
    worker = Worker()
    tids = [threading.get_native_id(), worker.tid]
    first = open_client(opener)
    for tid in tids:
        first.memory(tid)
    before = descriptors()
    others = [open_client(opener) for _ in range(20)]
    memories = [other.memory(tid) for other in others for tid in tids]
    assert descriptors() == before + len(others), "the pages of each"
    assert len(watch) == 2
    worker.end()
    assert is_readable(watch, 1)
    gone = [client.pages.open_file for client in (first, *others)]
    assert opener.reap() == [(process, worker.tid) for process in gone]
    first.close()
    assert len({memory.pid for memory in memories}) == 1
    assert len(watch) == 1, "the others are interested still"
    for other in others:
        other.close()
    assert len(watch) == 0


def test_everything_is_given_back(opener: FileOpener) -> None:
    before = descriptors()
    clients = [open_client(opener) for _ in range(5)]
    for client in clients:
        client.memory(threading.get_native_id())
    for client in clients:
        client.close()
    assert descriptors() == before


def test_no_descriptor_is_no_answer(
    opener: FileOpener, no_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    """And no answer lasts: once there are descriptors again all is well."""
    client = open_client(opener)
    address = anonymous(PAGE)
    poke(address, b"text")
    worker = Worker()
    with no_descriptors():
        with pytest.raises(NoAnswer):
            client.memory(worker.tid)
        with pytest.raises(OSError, match="Too many open files"):
            opener.open(threading.get_native_id(), 6)
        with pytest.raises(NoAnswer):
            client.user()
        assert client.pages.is_alive(), "that needs none"
    memory = client.memory(worker.tid)
    assert memory.read(address, 4) == b"text"
    assert memory.sees_area
    assert len(opener.watch) == 1
    worker.end()
    client.close()
    unmap(address, PAGE)
