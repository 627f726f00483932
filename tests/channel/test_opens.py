# SPDX-License-Identifier: Apache-2.0
"""Opens that look no name up: of a file that is mounted somewhere else, and through /proc."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
from collections import Counter
from errno import EINVAL, ESTALE
from typing import TYPE_CHECKING

import pytest

from binderd.fuse.entrance import LATE_NS
from binderd.fuse.pages import QUIET_NS
from binderwire import fuse_abi as abi
from channel.helpers import Daemon, client, needs_fuse, request, run_client, running
from channel.session_world import World, open_request
from channel.test_device import CALLER, SERVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=["auto", "off"])
def daemon(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("opens") / "mount"
    with running(place, "--transport", "fuse", "--passthrough", request.param) as daemon:
        yield daemon
        daemon.end_clean(opens=0, processes=0, threads=0, pages=0, nodes=0, buffers=0)


@pytest.fixture
def bound(daemon: Daemon, tmp_path: Path) -> Iterator[Path]:
    """A folder in which the file ``binder`` is the device, mounted alone."""
    file = tmp_path / "binder"
    file.touch()
    subprocess.run(["mount", "--bind", daemon.directory / "binder", file], check=True)
    yield tmp_path
    subprocess.run(["umount", file], check=True)


@needs_fuse
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_bound_file_is_opened_often_and_closed_in_any_order(
    daemon: Daemon, bound: Path, order: tuple[int, ...]
) -> None:
    first = os.open(bound / "binder", os.O_RDWR)
    fds = [
        first,
        os.open(bound / "binder", os.O_RDWR),
        os.open(f"/proc/self/fd/{first}", os.O_RDWR),
    ]
    try:
        daemon.wait_for_counts(opens=3, processes=3)
        for left, index in zip((2, 1, 0), order, strict=True):
            os.close(fds[index])
            fds[index] = -1
            daemon.wait_for_counts(opens=left, processes=left)
    finally:
        for fd in fds:
            if fd >= 0:
                os.close(fd)


@needs_fuse
def test_opens_of_a_bound_file_have_pages_of_their_own(daemon: Daemon, bound: Path) -> None:
    start = "from extension_client import *\n"
    server_code = (start + SERVER).replace("Device(DIR", "mapped(DIR").replace("size=1", "1")
    code = (start + CALLER).replace("Device(DIR", "mapped(DIR")
    code += (
        "two = mapped(f'/proc/self/fd/{one.fd}')\n"
        "say(word(abi.BR_REPLY) in call(one, b'from one'))\n"
        "os.close(one.fd)\n"
        "say(word(abi.BR_REPLY) in call(two, b'from two, later'))\n"
    )
    with client(bound, server_code) as server:
        assert server.line() == "up"
        assert run_client(bound, code) == ["True", "True"]
        assert server.line() == f"8 0 {b'from one'}"
        assert server.line() == f"15 0 {b'from two,'}"


@needs_fuse
def test_a_device_without_a_name_is_opened_again_while_it_is_open(daemon: Daemon) -> None:
    code = (
        "device = Device(DIR + '/vndbinder', size=0)\n"
        "os.unlink(DIR + '/vndbinder')\n"
        "say(outcome(os.open, DIR + '/vndbinder', os.O_RDWR))\n"
        "say(Device(f'/proc/self/fd/{device.fd}', size=0).version())\n"
    )
    assert run_client(daemon.directory, code) == ["ENOENT", "8"]


# Opened at the same moment, and kept until all are.
CROWD = """
go, end, said = os.pipe(), os.pipe(), os.pipe()
for _ in range({count}):
    if not os.fork():
        os.close(go[1]), os.close(end[1])
        os.read(go[0], 1)
        os.write(said[1], outcome(os.open, DIR + '/binder', os.O_RDWR)[:1].encode())
        os.read(end[0], 1)
        os._exit(0)
os.close(go[1])
outcomes = b''
while len(outcomes) < {count}:
    outcomes += os.read(said[0], {count})
say(outcomes.decode())
os.close(end[1])
for _ in range({count}):
    os.wait()
"""


class Requests(threading.Thread):
    """Counts what a daemon logs of its requests, by name."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        self._daemon = daemon
        self._counts: Counter[str] = Counter()
        self.start()

    def run(self) -> None:
        assert self._daemon.process.stderr is not None
        for line in self._daemon.process.stderr:
            words = line.decode().split()
            if words[1:2] == ["rx"]:
                self._counts[words[3]] += 1

    def until_its_end(self) -> Counter[str]:
        assert self._daemon.end() == 0
        self.join()
        return self._counts


@needs_fuse
@pytest.mark.parametrize("passthrough", ["auto", "off"])
def test_many_who_open_at_once_look_the_name_up_a_few_times_each(
    tmp_path: Path, passthrough: str
) -> None:
    """If all were let in at once it would be more than 40,000 times in all."""
    words = ["--transport", "fuse", "--passthrough", passthrough, "--log-level", "debug"]
    count = 200
    with running(tmp_path / "mount", *words) as daemon:
        requests = Requests(daemon)
        try:
            said = run_client(daemon.directory, CROWD.format(count=count))
        finally:
            counted = requests.until_its_end()
    assert said == ["o" * count]
    assert counted["OPEN"] <= 2 * count
    assert counted["LOOKUP"] <= 12 * count


# The same, from frame to frame


@pytest.fixture
def world() -> World:
    return World()


def opened_as(world: World) -> list[bool]:
    """Return of each open file whether its pages are its client's own."""
    return [opened.is_private for opened in world.opener.clients]


def test_a_path_is_opened_on_an_inode_of_its_own(world: World) -> None:
    world.open()
    world.open()
    assert opened_as(world) == [False, False]


def test_an_inode_that_nobody_looks_up_has_clients_with_pages_of_their_own(world: World) -> None:
    nodeid = world.lookup(tid=7)
    for tid in (8, 9, 7):
        assert world.answer(open_request(nodeid, tid=tid)) == (-ESTALE, b"")
        assert world.answer(open_request(nodeid, tid=tid))[0] == 0
    assert opened_as(world) == [True] * 3


def test_who_binds_a_file_and_opens_it_is_sent_to_look_once_more(world: World) -> None:
    nodeid = world.lookup()
    for _ in range(2):
        assert world.answer(open_request(nodeid)) == (-ESTALE, b"")
        assert world.answer(open_request(nodeid))[0] == 0
    assert opened_as(world) == [True] * 2


def test_what_another_thread_looks_up_meanwhile_does_not_matter(world: World) -> None:
    nodeid = world.lookup()
    assert world.answer(open_request(nodeid)) == (-ESTALE, b"")
    assert world.lookup(tid=8) == nodeid
    assert world.answer(open_request(nodeid))[0] == 0
    assert opened_as(world) == [True]


def test_a_path_leads_past_the_inode_that_a_bound_file_has_open(world: World) -> None:
    nodeid = world.lookup()
    assert world.answer(open_request(nodeid)) == (-ESTALE, b"")
    assert world.answer(open_request(nodeid))[0] == 0
    assert world.lookup(tid=8) == nodeid, "what is bound next has it, too"
    world.open()
    assert opened_as(world) == [True, False]


def test_a_path_that_leads_to_another_device_the_second_time(world: World) -> None:
    assert world.answer(open_request(world.lookup(b"binder"))) == (-ESTALE, b"")
    assert world.answer(open_request(world.lookup(b"hwbinder")))[0] == 0
    assert opened_as(world) == [False]


def test_what_lsattr_asks_for_is_no_open(world: World) -> None:
    assert world.answer(open_request(world.lookup(), abi.O_RDONLY)) == (-EINVAL, b"")
    assert not world.device.choice._retries


def test_an_inode_with_shared_pages_is_opened_again(world: World) -> None:
    world.open()
    nodeid = max(world.tree._nodes)
    for tid in (9, 8):
        assert world.answer(open_request(nodeid, tid=tid)) == (-ESTALE, b"")
        assert world.answer(open_request(nodeid, tid=tid))[0] == 0
    assert opened_as(world) == [False, True, True]


def test_threads_that_never_come_back_are_forgotten(world: World) -> None:
    for tid in range(1, 5000):
        world.clock += LATE_NS
        nodeid = world.lookup(tid=tid)
        assert world.answer(open_request(nodeid, tid=tid)) == (-ESTALE, b"")
    assert len(world.device.choice._retries) == 4096


@pytest.mark.parametrize("takes", [True, False])
def test_a_kernel_may_not_take_what_it_says(world: World, *, takes: bool) -> None:
    world.opener.has_backing = takes
    world.device.try_passthrough()
    nodeid = world.begin_open() if takes else world.lookup()
    assert world.answer(open_request(nodeid))[0] == 0
    assert opened_as(world) == [not takes]


def test_where_the_kernel_maps_nothing_all_have_pages_of_their_own(world: World) -> None:
    world.device.choice.can_share = False
    world.opener.has_backing = False
    assert world.answer(open_request(world.lookup()))[0] == 0
    assert opened_as(world) == [True]


def test_an_inode_without_pages_has_any_number_of_open_files(world: World) -> None:
    world.device.choice.can_share = False
    world.opener.has_backing = False
    nodeid = world.lookup()
    handles = []
    for turn in range(3):
        if turn:
            assert world.answer(open_request(nodeid)) == (-ESTALE, b"")
        error, body = world.answer(open_request(nodeid))
        handles.append(abi.fuse_open_out.read(body).fh)
        assert error == 0
    forgotten = request(abi.FUSE_FORGET, abi.fuse_forget_in.pack(1), nodeid=nodeid)
    assert world.send(forgotten) == []
    for handle in handles:
        assert world.tree.node(nodeid) is not None
        release = request(abi.FUSE_RELEASE, abi.fuse_release_in.pack(handle, 2, 0, 0))
        assert world.answer(release) == (0, b"")
    assert world.tree.node(nodeid) is None
    assert all(opened.is_closed for opened in world.opener.clients)


def test_without_pages_a_path_is_opened_in_one_go_if_nobody_else_opens_it(world: World) -> None:
    world.device.choice.can_share = False
    world.opener.has_backing = False
    inodes = []
    for tid in (7, 8):
        world.clock += QUIET_NS
        inodes.append(world.lookup(tid=tid))
        assert world.answer(open_request(inodes[-1], tid=tid))[0] == 0
    assert inodes[0] != inodes[1]
    world.clock += QUIET_NS - 1
    assert world.lookup(tid=9) == inodes[1]
    assert world.answer(open_request(inodes[1], tid=9)) == (-ESTALE, b"")
    own = world.lookup(tid=9)
    assert world.answer(open_request(own, tid=9))[0] == 0
    assert world.lookup(tid=7) == inodes[1] != own
