# SPDX-License-Identifier: Apache-2.0
"""Starting and ending where something is missing: it works, or one sentence says why not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest
import trio

from binderclient.demo.processes import Child
from binderd.channel.mounts import mount_at
from binderd.preflight import DESCRIPTORS_MIN
from channel.helpers import Daemon, needs_fuse
from channel.namespaces import binderd, line_with, run, started

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = needs_fuse

PATIENCE: Final = 60.0
# Fewer, and the interpreter itself cannot start.
DESCRIPTORS_OF_PYTHON: Final = 5


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "m"


def in_shell(before: str, words: Sequence[object]) -> list[str]:
    """Return a command line: a program after shell commands, in a mount namespace of its own."""
    return ["unshare", "--mount", "sh", "-ec", f'{before}; exec "$@"', "sh", *map(str, words)]


def comes_and_goes(words: Sequence[str]) -> None:
    with started(words) as daemon:
        line_with(daemon, "ready:")
        daemon.terminate()
        _, text = daemon.communicate(timeout=PATIENCE)
        assert daemon.returncode == 0, text
        assert "Traceback" not in text


@pytest.mark.parametrize("count", [*range(DESCRIPTORS_OF_PYTHON, 40, 7), 40, DESCRIPTORS_MIN - 1])
def test_too_few_descriptors(place: Path, count: int) -> None:
    words = binderd("--mount", place)
    demo = [sys.executable, "-m", "binderclient.demo", "--serve", "--mount", place]
    for program in (words, demo):
        status, text = run(in_shell(f"ulimit -n {count}", program))
        assert (status, text.count("\n")) == (1, 1), text
        assert f"the limit of open files is {count}" in text
        assert "ulimit -n" in text
    assert not place.exists()


def test_just_enough_descriptors(place: Path) -> None:
    comes_and_goes(in_shell(f"ulimit -n {DESCRIPTORS_MIN}", binderd("--mount", place)))


def test_a_full_table_of_descriptors_leaves_nothing_behind(place: Path) -> None:
    with started(in_shell(f"ulimit -n {DESCRIPTORS_MIN}", binderd("--mount", place))) as daemon:
        line_with(daemon, "ready:")
        files: list[int] = []
        device = f"/proc/{daemon.pid}/root{place}/binder"  # its mount namespace is its own
        try:
            for _ in range(DESCRIPTORS_MIN):
                with suppress(OSError):
                    files.append(os.open(device, os.O_RDWR))
            assert len(files) < DESCRIPTORS_MIN
            daemon.terminate()
            _, text = daemon.communicate(timeout=PATIENCE)
        finally:
            for fd in files:
                with suppress(OSError):  # its flush finds nobody; it is closed all the same
                    os.close(fd)
    assert daemon.returncode == 0, text
    assert "Traceback" not in text
    assert "by hand" not in text
    assert not place.exists()


@pytest.mark.parametrize(
    "before",
    [
        "mount -t tmpfs -o ro x /run",
        "umount -l /sys",
        "mount -t proc -o hidepid=2 x /proc",
        "mount -t proc -o subset=pid x /proc",
        "export NOTIFY_SOCKET=/nonexistent/socket",
        f"export NOTIFY_SOCKET=/{'x' * 300}",
        "exec <&- >&-",
    ],
)
def test_it_works_without(place: Path, before: str) -> None:
    comes_and_goes(in_shell(before, binderd("--mount", place)))


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_nobody_hears_it(place: Path, stderr: str) -> None:
    """It serves all the same, and nothing else gets what it says."""
    script = f'exec "$@" {stderr}'
    command = ["sh", "-c", script, "sh", *map(str, binderd("--mount", place))]
    daemon = subprocess.Popen(command)
    try:
        signal_when_mounted(daemon, place)
        assert daemon.wait(PATIENCE) == 0
        refused = ["sh", "-c", script, "sh", *map(str, binderd("--mount", "/etc"))]
        assert subprocess.run(refused, timeout=PATIENCE, check=False).returncode == 1
    finally:
        daemon.kill()
        daemon.wait(PATIENCE)


def signal_when_mounted(daemon: subprocess.Popen[bytes], place: Path) -> None:
    while daemon.poll() is None:
        entry = mount_at(str(place))
        if entry is not None and os.path.exists(place / "binder"):
            assert os.readlink(f"/proc/{daemon.pid}/fd/2") in {"/dev/null", "/dev/full"}
            daemon.send_signal(signal.SIGUSR1)
            daemon.terminate()
            return
        os.sched_yield()
    pytest.fail(f"it has ended with status {daemon.returncode}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_at_any_moment(place: Path, number: int) -> None:
    """Early it dies of the signal, with nothing done; later it ends. Nothing is ever left."""
    for milliseconds in range(0, 301, 30):
        daemon = Daemon(place)
        try:
            loaded(daemon)
            assert daemon.process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                daemon.process.wait(milliseconds / 1000 + 0.001)
            daemon.process.send_signal(number)
            assert daemon.process.wait(PATIENCE) in {0, -number}
            assert daemon.process.stderr is not None
            text = daemon.process.stderr.read().decode()
            assert "Traceback" not in text
        finally:
            daemon.clean_up()
        assert mount_at(str(place)) is None
        assert not place.exists()


def loaded(daemon: Daemon) -> None:
    """Wait until our own code handles signals: before, SIGINT is the interpreter's business."""
    while True:
        assert daemon.process.poll() is None
        with open(f"/proc/{daemon.process.pid}/maps", encoding="utf-8") as maps:
            is_ours = "resource.cpython" in maps.read()  # the last that is loaded before
        with open(f"/proc/{daemon.process.pid}/status", encoding="utf-8") as status:
            caught = next(int(line.split()[1], 16) for line in status if line[:6] == "SigCgt")
        if is_ours and (not caught >> signal.SIGINT - 1 & 1 or caught >> signal.SIGTERM - 1 & 1):
            return
        os.sched_yield()


async def test_a_child_whose_output_outlives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own children keep the pipe open: who listens is not to fail when we close our end."""
    (tmp_path / "keeper.py").write_text(
        textwrap.dedent("""\
            import os, sys
            gate = open(os.environ["GATE"])
            if os.fork() == 0:
                os.setsid()
                gate.read()  # until the test ends
                os._exit(0)
            print("up", file=sys.stderr, flush=True)
            sys.stdin.read()
            """)
    )
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    held = os.open(gate, os.O_RDWR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("GATE", str(gate))
    said: list[str] = []
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            child = Child(["keeper"], listen_to="stderr")
            up, is_over = trio.Event(), trio.Event()

            async def listen() -> None:
                async for line in child.lines():
                    said.append(line)
                    up.set()
                is_over.set()

            nursery.start_soon(listen)
            await up.wait()
            await child.aclose()
            await is_over.wait()
    os.close(held)
    assert said == ["up"]
