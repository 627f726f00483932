# SPDX-License-Identifier: Apache-2.0
"""Short runs on real devices, and what is said where there can be none.

What a run proves rests on its checks, so each kind of mistake is made on purpose, by a worker that
was built for that, and must be found.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from binderclient import commandline
from binderclient.stress import command
from binderclient.stress import latency as stress_latency
from binderclient.stress.command import worker_program
from binderclient.stress.errors import StressError
from channel.helpers import running
from preload import toolbox
from support.fuse_daemon import missing_capability

if TYPE_CHECKING:
    from support.device_world import Driver
    from support.fuse_daemon import FuseDaemon

COMMAND: Final = (sys.executable, "-m", "binderclient", "stress")
PATIENCE: Final = 10 * toolbox.PATIENCE
SMALL: Final = ("--clients=4", "--servers=2", "--duration=1")
FEW_CALLS: Final = 2000  # on an emulated processor


def stress(*words: object, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **environment},
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == status, (done.stdout, done.stderr)
    return done


def facts(*words: object, status: int = 0, **environment: str) -> dict[str, Any]:
    done = stress("--json", *words, status=status, **environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def failed(found: dict[str, Any]) -> list[str]:
    return [check["what"] for check in found["checks"] if not check["held"]]


# Runs that go well


def test_with_accidents(driver: Driver, worker: Path, tmp_path: Path) -> None:
    """Kills, stops and freezes on every kind of device; nothing is lost, nothing is left."""
    assert worker.exists()
    picture = tmp_path / "latency.svg"
    found = facts(
        *("--device", driver.new_device("binder"), *SMALL, "--duration=8", "--seed=3"),
        *("--kill=2", "--stop=2", "--freeze=4", "--payload=0:64K"),
        *("--oneway=40", "--nested=10", "--files=10", "--histogram", picture),
    )
    assert found["passed"], failed(found)
    assert found["accidents"]["killed"] > 4
    assert found["accidents"]["stopped"] > 0
    assert found["accidents"]["frozen"] > 0
    totals = found["totals"]
    for name in ("calls", "oneways", "nesteds", "files", "told"):
        assert totals[name] > 0, name
    # Whether a killed process has a call under way is chance where there are few calls.
    assert totals["dead"] > 0 or totals["calls"] < FEW_CALLS
    # Who is killed between counting a call and noting how long it took has no more than one.
    unnoted = found["calls"] - found["latencies"]["all"]["calls"]
    assert 0 <= unnoted <= found["accidents"]["killed"]
    assert picture.read_text().startswith("<svg")
    if driver.is_kernel:
        assert found["daemon"] is None
    else:
        assert found["daemon"]["cpu_seconds"] > 0
        assert b"binderd" in Path(f"/proc/{found['daemon']['pid']}/cmdline").read_bytes()
    asked = any("nothing is left in the driver" in check["what"] for check in found["checks"])
    assert asked is (driver.name != "cuse")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="lanes are offered on x86-64")
def test_in_lanes_that_the_workers_know_nothing_of(fuse: FuseDaemon, worker: Path) -> None:
    """The same with the library of ``binderctl run``."""
    assert worker.exists()
    found = facts(
        *("--device", fuse.new_device("binder"), *SMALL, "--duration=6", "--seed=5"),
        *("--kill=2", "--stop=2", "--freeze=2", "--nested=10", "--files=10"),
        LD_PRELOAD=str(toolbox.built_library()),
        BINDERCLIENT_LANES="5",
    )
    assert found["passed"], failed(found)
    assert found["accidents"]["killed"] > 0


def test_without_room_it_waits_and_sends_again(fuse: FuseDaemon, worker: Path) -> None:
    assert worker.exists()
    found = facts(
        *("--device", fuse.new_device("x"), "--clients=12", "--servers=1", "--threads=2"),
        *("--payload=512K", "--oneway=70", "--nested=0", "--files=0", "--duration=2"),
    )
    assert found["passed"], failed(found)
    assert found["totals"]["no_room"] > 0
    assert found["totals"]["oneways"] > 0


def test_a_device_of_its_own(fuse: FuseDaemon, worker: Path) -> None:
    assert worker.exists()
    folder = fuse.control.parent
    devices = set(os.listdir(folder))
    done = stress("--device", folder, "--clients=2", "--servers=1", "--transactions=200")
    assert "stress is it" in done.stderr
    assert set(os.listdir(folder)) == devices


def test_with_a_service_manager(fuse: FuseDaemon, worker: Path) -> None:
    """Where somebody else is context manager it is asked, in Android's words."""
    assert worker.exists()
    device = fuse.new_device("x")
    words = (sys.executable, "-m", "binderclient.servicemanager", "--device", str(device))
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as manager:
        try:
            assert manager.stderr is not None
            assert "ready" in manager.stderr.readline()
            done = stress("--device", device, *SMALL, "--kill=3")
            assert "has a service manager" in done.stderr
        finally:
            manager.terminate()
        assert manager.wait(PATIENCE) == 0


def test_idle_processes_and_a_rate(fuse: FuseDaemon, worker: Path) -> None:
    assert worker.exists()
    found = facts("--device", fuse.new_device("x"), *SMALL, "--idle=50", "--rate=100")
    assert found["passed"], failed(found)
    assert 30 < found["calls"] < 150


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_early(fuse: FuseDaemon, worker: Path, number: signal.Signals) -> None:
    assert worker.exists()
    words = [*COMMAND, "--device", str(fuse.new_device("x")), "--duration=1h", *SMALL[:2]]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if "calls/s" in line:
                break
        run.send_signal(number)
        text, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, (text, said)
    assert f"{number.name}: ending" in said
    assert "FAILED" not in text


# Mistakes that must be found

FOUND: Final = [
    ("corrupt-call", "no damaged payloads, files or answers"),
    ("corrupt-reply", "no damaged payloads, files or answers"),
    ("stale-reply", "no messages that were meant for somebody else"),
    ("lose", "no calls lost"),
    ("lose-all", "every call arrives, once"),
    ("double", "no calls that came twice"),
    ("reorder", "no one-way calls out of order"),
    ("deaf", "every death is told to all who asked, once"),
    ("keep-file", "no server has a file left that was sent to it"),
]


@pytest.mark.parametrize(("fault", "check"), FOUND)
def test_mistakes_are_found(fuse: FuseDaemon, faulty_worker: Path, fault: str, check: str) -> None:
    words = ["--worker", faulty_worker, "--device", fuse.new_device("x"), *SMALL, "--files=5"]
    words += ["--patience=1"]
    words += ["--kill=3"] if fault == "deaf" else []
    found = facts(*words, status=1, STRESS_FAULT=fault)
    assert check in failed(found), failed(found)


def test_the_same_worker_without_a_mistake(fuse: FuseDaemon, faulty_worker: Path) -> None:
    found = facts("--worker", faulty_worker, "--device", fuse.new_device("x"), *SMALL)
    assert found["passed"], failed(found)


def test_a_worker_that_ends_by_itself(fuse: FuseDaemon, faulty_worker: Path) -> None:
    words = ("--worker", faulty_worker, "--device", fuse.new_device("x"), *SMALL)
    found = facts(*words, status=1, STRESS_FAULT="crash")
    assert "no process ends by itself" in failed(found)


def test_a_daemon_that_dies(worker: Path, tmp_path: Path) -> None:
    """The report says so; the processes end, and nothing waits for what cannot come."""
    assert worker.exists()
    if (reason := missing_capability()) is not None:
        pytest.skip(reason)
    place = tmp_path / "mount"
    words = [*COMMAND, "--device", str(place / "binder"), "--duration=1h", "--json", *SMALL[:2]]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    try:
        with running(place) as daemon, subprocess.Popen(words, text=True, **pipes) as run:
            assert run.stderr is not None
            for line in run.stderr:
                if "calls/s" in line:
                    break
            daemon.end(signal.SIGKILL)
            text, said = run.communicate(timeout=PATIENCE)
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", place], check=False)
    assert "Traceback" not in said, said
    assert run.returncode == 1
    found = json.loads(text)
    assert "no process ends by itself" in failed(found)
    assert "no system calls that failed" in failed(found)
    assert "nothing is left in the driver" in failed(found)


# Where there can be no run


class Refusals:
    """Runs that cannot take place: one line says why, and the status is 1."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> str:
        assert commandline.main(["stress", *SMALL, *map(str, words)]) == 1
        text, said = self._capsys.readouterr()
        assert text == ""
        assert said.count("\n") == 1, said
        return said


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], worker: Path) -> Refusals:
    assert worker.exists()
    return Refusals(capsys)


def test_devices_that_are_none(tmp_path: Path, refused: Refusals) -> None:
    file, fifo, sock = tmp_path / "file", tmp_path / "fifo", tmp_path / "socket"
    file.write_text("text")
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(sock))
        for path in (fifo, sock):
            assert "another kind of file" in refused("--device", path)
    assert "no binder device" in refused("--device", file)
    assert "no binder device" in refused("--device", "/dev/null")
    assert "no such device" in refused("--device", tmp_path / "none")
    assert "no such device" in refused("--device", file / "below")
    assert "no such device" in refused("--device", "/" + "x" * 5000)
    assert "without binder-control" in refused("--device", tmp_path)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "symbolic links" in refused("--device", loop)


def test_a_device_that_may_not_be_opened(fuse: FuseDaemon, worker: Path) -> None:
    assert worker.exists()
    device = fuse.new_device("x")
    device.chmod(0o600)
    for folder in fuse.control.parents[1:-2]:  # pytest's own are for root alone
        folder.chmod(0o711)
    words = ["setpriv", "--reuid=65534", "--clear-groups", *COMMAND]
    for path, text in ((device, "be root"), (fuse.control.parent, "only root may add devices")):
        done = subprocess.run(
            [*words, "--device", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert text in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


def test_a_context_manager_that_is_none(
    fuse: FuseDaemon, refused: Refusals, tmp_path: Path
) -> None:
    """An echo server answers, but not as a service manager does."""
    device = fuse.new_device("x")
    server = toolbox.compiled(toolbox.EXAMPLES / "echo_server.c", tmp_path)
    running = toolbox.Background(server, device)
    try:
        assert "is no service manager" in refused("--device", device)
    finally:
        running.kill()


def test_a_picture_that_cannot_be_written(fuse: FuseDaemon, refused: Refusals) -> None:
    text = refused("--device", fuse.new_device("x"), "--histogram", "/nowhere/x.svg")
    assert "cannot be written: No such file or directory" in text


def test_no_worker(tmp_path: Path) -> None:
    with pytest.raises(StressError, match="make stress-worker"):
        worker_program(str(tmp_path / "none"))


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    with pytest.raises(StressError, match="pip install"):
        stress_latency.check_library()
    assert command.PROGRAM == "binderd-stress-worker"
