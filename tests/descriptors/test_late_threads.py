# SPDX-License-Identifier: Apache-2.0
"""Whose thread keeps the helper waiting has none stopped for a while; nobody else is concerned."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing
from errno import EPERM, ESRCH
from typing import TYPE_CHECKING

import pytest

from binderd.injector import helper, messages
from binderd.injector.architecture import own_architecture
from binderd.injector.helper import Helper
from binderd.injector.injection import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = 0
HOSTILE = 1000
OTHER = 1001
NOBODY = -1  # as who is charged for what nobody is charged for
TID = 7


class World:
    """A helper, and what it is told; each thread is slow to take hold of, and has gone then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.helper = Helper(theirs, own_architecture())
        self.theirs = theirs
        self.seized: list[int] = []  # users
        self.takes = 0.0  # seconds
        self._number = 0
        monkeypatch.setattr(Job, "__init__", _bare_job)
        monkeypatch.setattr(Job, "seize", lambda job: self._seize(job))
        monkeypatch.setattr(Job, "close", lambda _job: [])

    def _seize(self, job: Job) -> None:
        self.seized.append(job.owner)
        time.sleep(self.takes)
        raise OSError(ESRCH, "gone")

    def begin(self, owner: int) -> int:
        """Have a job for a thread of a user; return the errno that it ends with."""
        self._number += 1
        for message, _ in messages.of_job(self._number, TID, (), (), (0, 0), 0, owner):
            self.helper._take(message, [])
        kind, number, error = messages.report.unpack_from(self.ours.recv(4096))
        assert (kind, number) == (messages.FAILED, self._number)
        return int(error)


def _bare_job(job: Job, number: int, tid: int, *rest: object) -> None:
    job.number, job.tid, job.owner = number, tid, int(str(rest[-1]))
    job.count = job._closes_count = 0
    job.files, job.closes = [], []


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(monkeypatch)
    with closing(world.ours), closing(world.theirs):
        yield world

        os.close(world.helper._signals)


def test_who_was_late_is_not_waited_for_again(world: World) -> None:
    world.takes = helper._HELD_SECONDS * 1.2
    assert world.begin(HOSTILE) == ESRCH
    assert [world.begin(HOSTILE) for _ in range(20)] == [EPERM] * 20
    assert world.seized == [HOSTILE]
    world.takes = 0.0
    assert world.begin(OTHER) == ESRCH
    assert world.seized == [HOSTILE, OTHER]


def test_it_is_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.takes = helper._HELD_SECONDS * 1.2
    monkeypatch.setattr(helper, "_LATE_SECONDS", 0.0)
    assert [world.begin(HOSTILE), world.begin(HOSTILE)] == [ESRCH, ESRCH]


def test_who_is_quick_is_not_late(world: World) -> None:
    assert [world.begin(HOSTILE) for _ in range(20)] == [ESRCH] * 20


@pytest.mark.parametrize("user", [ROOT, NOBODY])
def test_some_are_no_user_among_others(world: World, user: int) -> None:
    world.takes = helper._HELD_SECONDS * 1.2
    assert [world.begin(user), world.begin(user)] == [ESRCH, ESRCH]


def test_few_are_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "_LATE_MAX", 2)
    world.takes = helper._HELD_SECONDS * 1.2
    for user in (1, 2, 3):
        assert world.begin(user) == ESRCH
    assert len(world.helper._late) == 2
    assert world.begin(3) == EPERM
