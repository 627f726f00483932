# SPDX-License-Identifier: Apache-2.0
"""10,000 transactions with files among eight processes that are killed at random."""

from __future__ import annotations

import mmap
import struct
import time
from contextlib import ExitStack
from random import Random
from typing import TYPE_CHECKING

from channel.helpers import needs_fuse
from descriptors.programs import PATIENCE, Running, at_rest, build, daemon_at
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_fuse
TRANSACTIONS = 10_000
SERVERS = 4
CLIENTS = 4
SECONDS_MAX = 300.0
COUNTERS = struct.Struct("=qqq")  # delivered, failed, wanted


class Crowd:
    """The eight processes; who is killed is replaced."""

    def __init__(self, program: Path, devices: list[Path], counters: Path) -> None:
        self._program, self._devices, self._counters = program, devices, counters
        self.members: list[Running] = []
        for index in range(SERVERS + CLIENTS):
            self.members.append(self._start(index))

    def _start(self, index: int) -> Running:
        if index < SERVERS:
            member = Running(self._program, "serve", self._devices[index])
        else:
            member = Running(self._program, "churn", self._counters, *self._devices)
        member.expect("ready")
        return member

    def replace(self, index: int) -> None:
        member = self.members[index]
        assert member.process.poll() is None, f"it has failed: {member.errors()}"
        member.kill()
        self.members[index] = self._start(index)

    def kill(self) -> None:
        for member in self.members:
            member.kill()


def wait_for_descriptors(member: Running, count: int) -> None:
    """Wait until a process has no others than it began with: it may have some still in hand."""
    what = f"they never are {count}"
    eventually(lambda: len(member.descriptors()) == count, what, seconds=PATIENCE)


def test_nothing_is_lost(tmp_path: Path) -> None:
    program = build(tmp_path)
    counters = tmp_path / "counters"
    counters.write_bytes(COUNTERS.pack(0, 0, TRANSACTIONS))
    names = [f"churn{number}" for number in range(SERVERS)]
    options = [word for name in names for word in ("--device", name)]
    random = Random(4)
    with (
        daemon_at(tmp_path / "m", *options) as daemon,
        counters.open("r+b") as file,
        mmap.mmap(file.fileno(), COUNTERS.size) as shared,
        ExitStack() as cleaning,
    ):
        before = at_rest(daemon)
        crowd = Crowd(program, [daemon.directory / name for name in names], counters)
        cleaning.callback(crowd.kill)
        started, kills, delivered = time.monotonic(), 0, 0
        while delivered < TRANSACTIONS:
            time.sleep(random.uniform(0.0, 0.05))
            crowd.replace(random.randrange(SERVERS + CLIENTS))
            kills += 1
            delivered, failed, _ = COUNTERS.unpack_from(shared)
            assert time.monotonic() - started < SECONDS_MAX, f"only {delivered}, {failed} failed"
        seconds = time.monotonic() - started
        print(f"{delivered} with files in {seconds:.1f} s, {failed} calls failed, {kills} kills")
        for member in crowd.members[SERVERS:]:
            member.expect("done")
        daemon.wait_for_counts(files=0, installations=0, transactions=0)
        for member in crowd.members[:SERVERS]:
            wait_for_descriptors(member, 4)  # three standard ones, the device
        for member in crowd.members[SERVERS:]:
            wait_for_descriptors(member, 4 + SERVERS)  # and the counters
        cleaning.close()
        daemon.wait_for_counts(opens=0, processes=0, nodes=0, refs=0, buffers=0, threads=0)
        assert at_rest(daemon) == before
    assert kills > 50
