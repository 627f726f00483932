# SPDX-License-Identifier: Apache-2.0
"""More jobs than the helper's socket takes at once: they wait, and none is lost or mixed up.

The daemon has no right to a larger socket than others (net.core.wmem_max).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binderd.closer import Closer
from binderd.descriptors.deliveries import Deliveries
from binderd.descriptors.injector import _Job
from binderd.descriptors.outbox import Outbox
from binderd.engine.kinds import OUTBOX
from binderd.engine.limits import Limits
from binderd.engine.user import Users
from binderd.injector import messages
from binderd.memory.thread_watch import ThreadWatch
from channel.helpers import SECONDS_MAX, needs_fuse
from descriptors.programs import Running, at_rest, build, daemon_at, descriptors, helper_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderd.descriptors.outbox import Charge

CLOSES = 16384
FILES = 1024
ROOM = (4096, 256)
OWNER = 1000
AT_ONCE = 32
USUAL_ROOM = 212992  # net.core.wmem_max, unless somebody has changed it


class Pair:
    """Both ends; the other one is read by ``take``."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.outbox = Outbox(self.ours, Closer())
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, USUAL_ROOM)

    def send_job(
        self, number: int, files: list[int], closes: list[int], charge: Charge | None = None
    ) -> bool:
        parts = messages.of_job(number, 7, files, closes, ROOM, AT_ONCE, OWNER)
        return all(
            self.outbox.send(number, message, part, charge=charge) for message, part in parts
        )

    def take(self) -> list[tuple[bytes, list[int]]]:
        """Read what is there."""
        found = []
        while select.select([self.theirs], [], [], 0)[0]:
            octets, fds, flags, _ = socket.recv_fds(self.theirs, 1 << 20, messages.FILES_MAX)
            assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
            found.append((octets, fds))
        return found

    def take_all(self) -> list[tuple[bytes, list[int]]]:
        """Read until nothing waits."""
        found = self.take()
        while not self.outbox.is_empty:
            assert self.outbox.go_on()
            found += self.take()
        return found


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.outbox.close()
    pair.ours.close()
    pair.theirs.close()


def number_of(message: bytes) -> tuple[int, int]:
    return messages.head.unpack_from(message)


def test_as_many_closes_as_there_may_be(pair: Pair) -> None:
    jobs = 20
    for number in range(jobs):
        assert pair.send_job(number, [], [CLOSES * number + index for index in range(CLOSES)])
    assert not pair.outbox.is_empty, "all of it fits: this tests nothing"
    closes: dict[int, list[int]] = {}
    for message, _ in pair.take_all():
        kind, number = number_of(message)
        if kind == messages.BEGIN:
            _, files, count, *room = messages.job.unpack_from(message, messages.head.size)
            assert (files, count, tuple(room)) == (0, CLOSES, (*ROOM, AT_ONCE, OWNER))
            start = messages.head.size + messages.job.size
            closes[number] = list(messages.unpack_numbers(message, start))
        else:
            closes[number] += messages.unpack_numbers(message, messages.head.size)
    assert closes == {
        number: list(range(CLOSES * number, CLOSES * (number + 1))) for number in range(jobs)
    }


def test_few_files_are_on_their_way_at_once(pair: Pair) -> None:
    """They count as root's: in what the helper has not taken are no more than in one message."""
    for number in range(3):
        assert pair.send_job(number, [0] * FILES, [])
    came = 0
    while not pair.outbox.is_empty:
        files = [fd for _, fds in pair.take() for fd in fds]
        came += len(files)
        assert 0 < len(files) <= messages.FILES_MAX
        for fd in files:
            os.close(fd)
        assert pair.outbox.go_on()
    for fd in [fd for _, fds in pair.take() for fd in fds]:
        os.close(fd)
        came += 1
    assert came == 3 * FILES


@pytest.mark.parametrize("room", [0, 1 << 20], ids=["the smallest socket", "a large one"])
def test_as_many_files_as_there_may_be(pair: Pair, room: int) -> None:
    """They arrive although whoever sent them has closed them meanwhile."""
    pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    own = len(os.listdir("/proc/self/fd"))
    with tempfile.TemporaryFile() as file:
        files = [os.dup(file.fileno()) for _ in range(FILES)]
        assert pair.send_job(1, files, [1, 2])
        for fd in files:
            os.close(fd)
        came = 0
        for _, fds in pair.take_all():
            for fd in fds:
                assert os.path.sameopenfile(fd, file.fileno())
                os.close(fd)
            came += len(fds)
        assert came == FILES
    wait_for_descriptors(own)


def wait_for_descriptors(count: int) -> None:
    """Duplicates are closed in a thread."""
    deadline = time.monotonic() + SECONDS_MAX
    while (found := len(os.listdir("/proc/self/fd"))) != count:
        assert time.monotonic() < deadline, f"{found} descriptors instead of {count}"
        time.sleep(0.01)


def test_a_job_that_nobody_wants_any_more_is_dropped(pair: Pair) -> None:
    pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)
    own = len(os.listdir("/proc/self/fd"))
    assert pair.send_job(1, [], list(range(CLOSES)))
    for number in (2, 3):
        assert pair.send_job(number, [0] * FILES, [])
    pair.outbox.drop(2)
    numbers = set()
    for message, fds in pair.take_all():
        numbers.add(number_of(message)[1])
        for fd in fds:
            os.close(fd)
    assert numbers == {1, 3}
    wait_for_descriptors(own)


def test_there_is_an_end(pair: Pair) -> None:
    """Nobody who does not listen makes us keep everything; a word that must be said is kept."""
    jobs = 0
    while pair.send_job(jobs, [], list(range(CLOSES))):
        jobs += 1
        assert jobs < 100
    assert pair.outbox.send(jobs, messages.head.pack(messages.CANCEL, jobs), must=True)
    assert number_of(pair.take_all()[-1][0]) == (messages.CANCEL, jobs)


def test_what_one_user_has_waiting_leaves_room_for_others(pair: Pair) -> None:
    users = Users(Limits().replaced({OUTBOX.name: 400_000}))
    root, his, hers = (partial(users.charge, number, OUTBOX) for number in (0, 1001, 1002))
    closes = list(range(CLOSES))
    while pair.send_job(1, [], closes, root):
        if not pair.outbox.is_empty:
            break
    waiting = users.find(0).of(OUTBOX).count
    assert 0 < waiting < 100_000
    pair.outbox.drop(1)
    assert len(users) == 0
    pair.outbox.send(9, bytes(12), must=True)
    while pair.send_job(2, [], [1] * messages.NUMBERS_MAX, his):
        pass
    assert 90_000 < users.find(1001).of(OUTBOX).count <= 100_000
    assert pair.send_job(3, [0], [1], hers)
    for _, fds in pair.take_all():
        for fd in fds:
            os.close(fd)
    assert len(users) == 0


def test_nobody_at_the_other_end(pair: Pair) -> None:
    assert pair.send_job(1, [], list(range(CLOSES * 8)))
    assert not pair.outbox.is_empty
    pair.theirs.close()
    assert not pair.outbox.go_on()
    assert not pair.outbox.send(2, bytes(12), must=True) or not pair.outbox.is_empty


class Payment:
    """What a job costs, until it is over."""

    number = AT_ONCE
    ends = 0

    def end(self) -> None:
        self.ends += 1


class Deaf:
    """Wants to know nothing."""

    def stopped(self, number: int) -> None: ...

    def installed(self, number: int, numbers: object) -> None: ...


def wait_for_count(pid: int, count: int) -> None:
    """Wait until a process has so many descriptors."""
    deadline = time.monotonic() + SECONDS_MAX
    while len(descriptors(pid)) != count:
        assert time.monotonic() < deadline, descriptors(pid)
        time.sleep(0.01)


def wait_for_helper(pid: int, count: int) -> None:
    """Wait until a helper is at work, with so many descriptors."""
    deadline = time.monotonic() + SECONDS_MAX
    comm = Path(f"/proc/{pid}/comm")
    while comm.read_text() != "binderd-inject\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    wait_for_count(pid, count)


@pytest.fixture
def delivery() -> Iterator[Deliveries]:
    watch = ThreadWatch()
    delivery = Deliveries(lambda _: None, lambda: None, watch, 1)
    delivery.reports = Deaf()
    yield delivery
    delivery.close()
    watch.close()


def test_half_a_job_is_given_up(delivery: Deliveries) -> None:
    """The rest of it will not come: the helper keeps none of its files."""
    process, own = delivery.helper, 4  # three standard ones, its signals
    helper = process.pid
    wait_for_helper(helper, own)
    begin = messages.head.pack(messages.BEGIN, 1)
    begin += messages.job.pack(1, 2, 0, *ROOM, AT_ONCE, OWNER)
    assert process.send(1, begin, [0])
    wait_for_helper(helper, own + 1)
    payment = Payment()
    delivery.injector._jobs[1] = _Job(payment)
    delivery.injector.cancel(1)
    wait_for_helper(helper, own)
    assert select.select([process.fileno()], [], [], SECONDS_MAX)[0]
    process.receive()
    assert payment.ends == 1


@pytest.mark.parametrize("fate", ["it never began", "the helper has gone", "there is no helper"])
def test_a_job_that_comes_to_nothing_is_paid_for_no_longer(delivery: Deliveries, fate: str) -> None:
    payment = Payment()
    process = delivery.helper
    helper = process.pid
    if fate == "the helper has gone":
        os.kill(helper, signal.SIGSTOP)
    elif fate == "there is no helper":
        process.close()
    delivery.injector.injects = fate != "it never began"
    begun = delivery.injector.install(1, os.getpid(), [0], ROOM, payment, None, OWNER)
    assert begun == (fate == "the helper has gone")
    assert payment.ends == (not begun)
    if begun:
        os.kill(helper, signal.SIGKILL)
        assert select.select([process.fileno()], [], [], SECONDS_MAX)[0]
        process.receive()
    assert payment.ends == 1


def test_a_helper_is_told_of_so_many_descriptors_at_most(delivery: Deliveries) -> None:
    injector, tid = delivery.injector, os.getpid()
    assert not injector.close_descriptors(1, tid, [0] * (CLOSES + 1), None, OWNER)
    assert not injector._jobs


class Told:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.words: list[tuple[object, ...]] = []

    def stopped(self, number: int) -> None:
        self.words.append(("stopped", number))

    def installed(self, number: int, numbers: object) -> None:
        self.words.append(("installed", number, numbers))


def test_the_states_of_a_job(delivery: Deliveries) -> None:
    """Whoever has cancelled a job hears no more of it, and it is paid for until it is over."""
    told = delivery.reports = Told()
    os.kill(delivery.helper.pid, signal.SIGSTOP)
    payments = [Payment(), Payment(), Payment()]
    for number, payment in enumerate(payments):
        args = (number, os.getpid(), [0], ROOM, payment, None, OWNER)
        assert delivery.injector.install(*args)
    delivery.received(messages.report.pack(messages.SEIZED, 0, 0))
    assert told.words == [("stopped", 0)]
    delivery.injector.cancel(1)
    delivery.received(messages.report.pack(messages.SEIZED, 1, 0))
    delivery.received(messages.report.pack(messages.FAILED, 1, 125))
    assert told.words == [("stopped", 0)]
    delivery.received(messages.report.pack(messages.DONE, 0, 0) + messages.pack_numbers([7]))
    assert told.words[1:] == [("installed", 0, (7,))]
    assert [payment.ends for payment in payments] == [1, 1, 0]
    os.kill(delivery.helper.pid, signal.SIGKILL)
    assert select.select([delivery.helper.fileno()], [], [], SECONDS_MAX)[0]
    delivery.helper.receive()
    assert told.words[2:] == [("installed", 2, None)]
    assert [payment.ends for payment in payments] == [1, 1, 1]


def helper_socket(daemon: int) -> socket.socket:
    """Return the daemon's end of the socket to its helper, shared with it."""
    pidfd = os.pidfd_open(daemon)
    libc = ctypes.CDLL(None)
    try:
        for number in os.listdir(f"/proc/{daemon}/fd"):
            if os.readlink(f"/proc/{daemon}/fd/{number}").startswith("socket:"):
                found = socket.socket(fileno=libc.pidfd_getfd(pidfd, int(number), 0))
                if found.type == socket.SOCK_SEQPACKET:
                    return found
                found.close()
    finally:
        os.close(pidfd)
    raise AssertionError("the daemon has no socket to a helper")


@needs_fuse
def test_a_helper_that_is_slow_to_listen(tmp_path: Path) -> None:
    program = build(tmp_path)
    names = [f"d{number}" for number in range(7)]  # within one user's share of files
    options = [word for name in names for word in ("--device", name)]
    with daemon_at(tmp_path / "m", *options) as daemon, ExitStack() as cleaning:
        before = at_rest(daemon)
        with helper_socket(daemon.process.pid) as channel:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)
        for name in names:
            server = Running(program, "serve", daemon.directory / name)
            cleaning.callback(server.kill)
            server.expect("ready")
        helper = helper_of(daemon)
        quiet = len(descriptors(daemon.process.pid))
        os.kill(helper, signal.SIGSTOP)
        try:
            callers = [Running(program, "call", daemon.directory / name, 1, 290) for name in names]
            daemon.wait_for_counts(installations=len(names))
        finally:
            os.kill(helper, signal.SIGCONT)
        assert [caller.errors() for caller in callers] == [""] * len(names)
        for name in names:
            # More files of a user may be on their way than being closed (LIMITS.md, closes).
            wait_for_count(daemon.process.pid, quiet)
            assert not Running(program, "call", daemon.directory / name, 1, 290).errors()
        assert helper_of(daemon) == helper
        cleaning.close()
        assert at_rest(daemon) == before
