# SPDX-License-Identifier: Apache-2.0
"""Threads of unmodified programs in lanes: nothing is different, but faster."""

from __future__ import annotations

import platform
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from binderwire.binder_abi import BINDER_WRITE_READ
from binderwire.extension_abi import BINDERD_ENTER, BINDERD_LANE
from preload import toolbox
from preload.conftest import Stage
from preload.test_programs import ioctls

if TYPE_CHECKING:
    from pathlib import Path

    from support.fuse_daemon import FuseDaemon

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="lanes are offered on x86-64"
)


@pytest.fixture(params=["0", "1"])
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Without lanes, and with them from the first request on."""
    monkeypatch.setenv("BINDERCLIENT_LANES", request.param)
    return int(request.param)


def test_who_calls_often_gets_one(fuse_stage: Stage, spied: Path) -> None:
    fuse_stage.start("echo_server")
    spied.unlink(missing_ok=True)
    thread = int(fuse_stage.run("busy", 1, 100).splitlines()[0].split()[1])
    rows = [(word, rc) for tid, word, rc, _ in ioctls(spied) if tid == thread]
    assert rows.count((BINDERD_LANE, 0)) == 1
    seen = Counter(word for word, _ in rows)
    assert seen[BINDER_WRITE_READ] == 19  # then the rest goes through it
    assert 0 < seen[BINDERD_ENTER] <= 400


def test_what_memory_there_is(fuse_stage: Stage, lanes: int) -> None:
    """What has gone is refused as ever, and by whom it is refused without lanes."""
    fuse_stage.start("echo_server")
    fault = "-1 Bad address"
    found = fuse_stage.run("often", "memory").splitlines()
    assert found == [fault, fault, "1", fault, fault, fault, "1", f"lanes {lanes}"]


def test_children(fuse_stage: Stage, lanes: int) -> None:
    """Those that the C library knows of, and others."""
    fuse_stage.start("echo_server")
    assert fuse_stage.run("often", "children").splitlines() == ["7 1", "7 1", f"lanes {lanes}"]


@pytest.mark.usefixtures("lanes")
def test_a_thread_takes_its_lane_with_it(fuse_stage: Stage) -> None:
    fuse_stage.start("echo_server")
    assert fuse_stage.run("often", "threads").splitlines() == ["lanes 0"]


def test_many_files(fuse_stage: Stage, fuse_driver: FuseDaemon, lanes: int) -> None:
    """One has its lane for good, and the last of the others that have the same number in turn."""
    fuse_stage.start("echo_server")
    other = Stage("fuse", fuse_driver, fuse_stage.programs)
    other.start("echo_server")
    found = fuse_stage.run("often", "files", other.path).splitlines()
    other.close()
    assert found == ["80", f"lanes {2 * lanes}"]


@pytest.mark.usefixtures("lanes")
def test_files_that_may_have_one_inode_get_none(bare_stage: Stage) -> None:
    """The library would not know which is which."""
    bare_stage.start("echo_server")
    assert bare_stage.run("often", "files", bare_stage.path).splitlines() == ["80", "lanes 0"]


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("case", ["limits", "filter"])
def test_where_one_would_be_the_end_there_is_none(fuse_stage: Stage, case: str) -> None:
    """No file may be as large, or a filter ends who makes one."""
    fuse_stage.start("echo_server")
    assert fuse_stage.run("often", case).splitlines() == ["1", "lanes 0"]


def test_signals(fuse_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end waits as with the driver, and their handlers may call it."""
    monkeypatch.setenv("BINDERCLIENT_LANES", "1")
    fuse_stage.start("echo_server")
    interrupted = [
        f"-1 Interrupted system call, read 0, handled {count}"
        for count in (
            1,  # while it sleeps
            2,  # while it looks
            3,  # not by the ignored signal before
            4,  # the handler has asked something
            5,  # and left
        )
    ]
    found = fuse_stage.run("often", "signals").splitlines()
    assert found == [*interrupted, "1", "lanes 0"]  # a jump out of a handler is the end of it


def test_who_makes_a_lane_keeps_it(
    fuse_stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of one thread would take each other's place."""
    monkeypatch.setenv("BINDERCLIENT_LANES", "1")
    source = toolbox.HERE.parent / "channel" / "lane_cases.c"
    flags = ("-D_GNU_SOURCE", f"-I{toolbox.INCLUDES}")
    fuse_stage.programs = {"cases": toolbox.compiled(source, tmp_path, *flags)}
    fuse_stage.start("cases", "serve", says="up")
    found = fuse_stage.run("cases", "sizes").splitlines()
    assert found[:4] == ["a lane", "0 same 0", "1 same 0", "16 same 0"]
