# SPDX-License-Identifier: Apache-2.0
"""Descriptors for programs that know nothing of us, under everything that may disturb it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from binderd.linux import ptrace
from channel.helpers import Daemon, needs_fuse
from descriptors.programs import PATIENCE, Running, at_rest, build, daemon_at, helper_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_fuse
CALLS = 20
WALL = 0x40000000


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("mount") / "m"
    with daemon_at(directory, "--device", "one", "--device", "two") as daemon:
        yield daemon


@contextmanager
def serving(program: Path, device: Path, *options: str) -> Iterator[Running]:
    server = Running(program, "serve", device, *options)
    try:
        server.expect("ready")
        yield server
    finally:
        server.kill()


def call(
    program: Path, device: Path, count: int = CALLS, files: int = 1
) -> subprocess.CompletedProcess[str]:
    command = [str(program), "call", str(device), str(count), str(files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


OPTIONS = {
    "alone": ["patient"],
    "other threads": ["threads", "patient"],
    "signals": ["signals"],
    "signals and other threads": ["threads", "signals"],
    "a filter that kills": ["seccomp", "patient"],
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_static_program_gets_files(daemon: Daemon, program: Path, options: list[str]) -> None:
    before = at_rest(daemon)
    with serving(program, daemon.directory / "one", *options) as server:
        own = server.descriptors()
        for files in (0, 1, 2, 7):
            outcome = call(program, daemon.directory / "one", files=files)
            assert outcome.returncode == 0, outcome.stderr
        server.expect_descriptors(own)
        assert server.process.poll() is None
    assert at_rest(daemon) == before


def test_more_files_than_a_message_takes(daemon: Daemon, program: Path) -> None:
    with serving(program, daemon.directory / "one", "patient") as server:
        own = server.descriptors()
        outcome = call(program, daemon.directory / "one", 2, 290)
        assert outcome.returncode == 0, outcome.stderr
        server.expect_descriptors(own)


@contextmanager
def traced(pid: int) -> Iterator[None]:
    """Trace a process, as a debugger does; whoever traces must let go."""
    ptrace.seize(pid, 0)
    try:
        yield
    finally:
        ptrace.interrupt(pid)
        os.waitpid(pid, WALL)
        ptrace.detach(pid)


def test_a_program_that_is_being_traced_gets_none(daemon: Daemon, program: Path) -> None:
    device = daemon.directory / "one"
    with serving(program, device) as server:
        with traced(server.pid):
            assert call(program, device, 3, 0).returncode == 0
            assert "no reply" in call(program, device, 3, 1).stderr
            assert call(program, device, 3, 0).returncode == 0
        assert call(program, device, 3, 1).returncode == 0


def test_where_clients_may_not_be_stopped(program: Path, tmp_path: Path) -> None:
    with (
        daemon_at(tmp_path / "m", "--device", "one", "--descriptors", "attach-only") as daemon,
        serving(program, daemon.directory / "one", "patient") as server,
    ):
        own = server.descriptors()
        assert "no reply" in call(program, daemon.directory / "one", 1, 1).stderr
        assert call(program, daemon.directory / "one", 1, 0).returncode == 0
        server.expect_descriptors(own)


def test_others_go_on_while_an_installation_takes_its_time(daemon: Daemon, program: Path) -> None:
    before = at_rest(daemon)
    one, two = daemon.directory / "one", daemon.directory / "two"
    helper = helper_of(daemon)
    with serving(program, one), serving(program, two, "patient") as server:
        own = server.descriptors()
        os.kill(helper, signal.SIGSTOP)
        try:
            slow = Running(program, "call", two, 1, 1)
            daemon.wait_for_counts(installations=1)
            assert call(program, one, 200, 0).returncode == 0
            assert slow.process.poll() is None
        finally:
            os.kill(helper, signal.SIGCONT)
        assert slow.errors() == ""
        assert slow.process.returncode == 0
        server.expect_descriptors(own)
    assert at_rest(daemon) == before


@pytest.mark.parametrize("victim", ["server", "client"])
def test_a_kill_during_an_installation(daemon: Daemon, program: Path, victim: str) -> None:
    before = at_rest(daemon)
    device = daemon.directory / "one"
    helper = helper_of(daemon)
    with serving(program, device) as server:
        own = server.descriptors()
        os.kill(helper, signal.SIGSTOP)
        try:
            client = Running(program, "call", device, 1, 1)
            daemon.wait_for_counts(installations=1)
            (server if victim == "server" else client).process.kill()
        finally:
            os.kill(helper, signal.SIGCONT)
        if victim == "server":
            assert "no reply" in client.errors()
        else:
            client.kill()
            assert call(program, device).returncode == 0
            server.expect_descriptors(own)
    assert at_rest(daemon) == before


def test_kills_at_any_moment(daemon: Daemon, program: Path) -> None:
    before = at_rest(daemon)
    device = daemon.directory / "one"
    for turn in range(30):
        with serving(program, device, "threads") as server:
            client = Running(program, "call", device, 10000, 2)
            time.sleep(0.005 + 0.0007 * turn)  # any moment will do
            server.process.kill()
            assert "no reply" in client.errors()
    assert at_rest(daemon) == before


def test_job_control_does_not_disturb(daemon: Daemon, program: Path) -> None:
    device = daemon.directory / "one"
    with serving(program, device) as server:
        own = server.descriptors()
        client = Running(program, "call", device, 300, 1)
        for _ in range(40):
            os.kill(server.pid, signal.SIGSTOP)
            time.sleep(0.003)
            os.kill(server.pid, signal.SIGCONT)
            time.sleep(0.003)
        assert client.errors() == ""
        assert client.process.returncode == 0
        server.expect_descriptors(own)


def test_a_stopped_program_stays_stopped(daemon: Daemon, program: Path) -> None:
    """A SIGSTOP that comes while we have a thread in hand has its effect afterwards."""
    device = daemon.directory / "one"
    with serving(program, device) as server:
        client = Running(program, "call", device, 100000, 1)
        try:
            for _ in range(20):
                time.sleep(0.004)
                os.kill(server.pid, signal.SIGSTOP)
                wait_for_state(server.pid, "T")
                os.kill(server.pid, signal.SIGCONT)
        finally:
            client.kill()
        assert server.process.poll() is None


def wait_for_state(pid: int, wanted: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(") ", 1)[1][0] != wanted:
        assert time.monotonic() < deadline, f"{pid} never gets into state {wanted}"
        time.sleep(0.001)


def test_a_helper_that_dies_is_replaced(daemon: Daemon, program: Path) -> None:
    device = daemon.directory / "one"
    with serving(program, device) as server:
        own = server.descriptors()
        helper = helper_of(daemon)
        os.kill(helper, signal.SIGSTOP)
        client = Running(program, "call", device, 1, 1)
        daemon.wait_for_counts(installations=1)
        os.kill(helper, signal.SIGKILL)
        assert "no reply" in client.errors()
        daemon.expect("the helper process has ended (signal 9)")
        deadline = time.monotonic() + PATIENCE
        while call(program, device, 1, 1).returncode:
            assert time.monotonic() < deadline, "no new helper"
        daemon.expect("a new helper process was started")
        assert helper_of(daemon) != helper
        server.expect_descriptors(own)
