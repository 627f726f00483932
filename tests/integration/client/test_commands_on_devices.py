# SPDX-License-Identifier: Apache-2.0
"""The command lines of the client's side on real devices: permissions, outputs, waiting, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from client.drivers import MountedDaemon, missing_capability
from client.managers import ManagerProcess
from client.programs import EXAMPLES
from client.test_command_lines import BINDERCTL, PATIENCE, PYTHON, outcome
from support.waiting import eventually

if TYPE_CHECKING:
    from client.conftest import Bench


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_no_permission(bench: Bench) -> None:
    bench.device.chmod(0o600)
    # In the process itself, as somebody else may not be able to reach this checkout.
    code = "import os, sys; from binderclient.commandline import main; os.setuid(65534); "
    code += "sys.exit(main(['--device', '/proc/self/fd/{}', 'list']))"
    opened = os.open(bench.device, os.O_PATH)
    try:
        os.set_inheritable(opened, True)
        done = subprocess.run(
            [PYTHON, "-c", code.format(opened)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            pass_fds=[opened],
        )
    finally:
        os.close(opened)
    assert done.returncode == 1
    assert "(Permission denied)" in done.stderr
    assert "ls -l" in done.stderr


# Output that nobody takes


UNTAKEN: Final = (
    ("> /dev/full", 1, "cannot write to standard output: [Errno 28]"),
    (">&-", 1, "cannot write to standard output: it is closed"),
    (">&3", 141, ""),  # a pipe whose reader has gone
)


def test_closed_outputs(bench: Bench, tmp_path: Path) -> None:
    manager = ManagerProcess(bench.device, tmp_path)
    try:
        for words in ("--json list", "--help", "--json call x"):
            for redirection, status, text in UNTAKEN:
                command = f"{PYTHON} -m binderclient --device {bench.device} {words} {redirection}"
                script = f"exec 3> >(true); wait $!; {command}"
                found, _, said = outcome(["bash", "-c", script])
                assert found == status, (words, redirection, said)
                assert text in said
                assert said.count("\n") == (1 if text else 0), said
    finally:
        manager.end()


def test_a_manager_without_services_lists_itself(bench: Bench, tmp_path: Path) -> None:
    manager = ManagerProcess(bench.device, tmp_path)
    try:
        assert outcome([*BINDERCTL, "--device", bench.device, "list"]) == (0, "manager\n", "")
        listed = outcome([*BINDERCTL, "list", "--json", "--device", bench.device])
        assert listed == (0, '["manager"]\n', "")
    finally:
        manager.end()


# Waiting


def test_waiting_has_an_end_and_is_seen(bench: Bench, tmp_path: Path) -> None:
    manager = ManagerProcess(bench.device, tmp_path)
    ours, theirs = pty.openpty()
    try:
        command = [*BINDERCTL, "--device", str(bench.device), "wait", "late", "--timeout"]
        with subprocess.Popen([*command, "1.5"], stderr=theirs) as waiting:
            os.close(theirs)
            assert waiting.wait(PATIENCE) == 1
        said = os.read(ours, 4096).decode()
        assert "waiting for at most 1.5 s for late: 1 s" in said
        assert "no service is called 'late' after 1.5 s" in said
        # Not on a terminal: silent, and as JSON if that is wanted.
        status, out, said = outcome([*command, "0.2", "--json"])
        assert (status, said) == (1, "")
        assert "no service is called 'late' after 0.2 s" in json.loads(out)["error"]
    finally:
        os.close(ours)
        manager.end()


def test_an_example_says_that_it_waits(bench: Bench, tmp_path: Path) -> None:
    manager = ManagerProcess(bench.device, tmp_path)
    command = [PYTHON, str(EXAMPLES / "echo_client.py"), "hello", str(bench.device)]
    try:
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr is not None
            assert "waiting 10 s for org.example.echo" in waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            _, said = waiting.communicate(timeout=PATIENCE)
        assert (waiting.returncode, said) == (130, "")
    finally:
        manager.end()


def started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def blocked_in_ioctl(pid: int) -> bool:
    """Does the first thread of a process wait in an ioctl or another call to a device?"""
    try:
        return Path(f"/proc/{pid}/wchan").read_text() in {"fuse_get_req", "request_wait_answer"}
    except OSError:
        return False


@pytest.fixture
def stopped_manager(bench: Bench, tmp_path: Path) -> ManagerProcess:
    """Callers of it wait for ever."""
    manager = ManagerProcess(bench.device, tmp_path)
    manager.popen.send_signal(signal.SIGSTOP)
    return manager


def ended(manager: ManagerProcess) -> None:
    manager.popen.send_signal(signal.SIGCONT)
    manager.end()


def test_ctrl_c(bench: Bench, stopped_manager: ManagerProcess) -> None:
    try:
        with started(*BINDERCTL, "--device", str(bench.device), "list") as asking:
            eventually(lambda: blocked_in_ioctl(asking.pid), seconds=PATIENCE)
            asking.send_signal(signal.SIGINT)
            out, said = asking.communicate(timeout=PATIENCE)
        assert (asking.returncode, out, said) == (130, "", "")
    finally:
        ended(stopped_manager)


def test_no_answer(bench: Bench, stopped_manager: ManagerProcess) -> None:
    try:
        command = [*BINDERCTL, "--device", bench.device, "--timeout", "0.5"]
        for words in (["list"], ["call", "x", "1"]):
            status, out, said = outcome([*command, *words])
            assert (status, out) == (1, "")
            assert "no answer within 0.5 s" in said
        status, out, said = outcome([*command, "check", "x", "--json"])
        assert (status, said) == (1, "")
        assert "no answer within 0.5 s" in json.loads(out)["error"]
    finally:
        ended(stopped_manager)


@pytest.fixture
def own_daemon(tmp_path: Path) -> MountedDaemon:
    missing = missing_capability()
    if missing is not None:
        pytest.skip(missing)
    place = tmp_path / "daemon"
    place.mkdir()
    return MountedDaemon(place, devices_count=1)


def test_a_daemon_that_is_stopped(own_daemon: MountedDaemon) -> None:
    own_daemon.process.send_signal(signal.SIGSTOP)
    try:
        device = own_daemon.new_device()
        status, _, said = outcome([*BINDERCTL, "--device", device, "--timeout", "0.5", "list"])
        assert status == 1
        assert "no answer within 0.5 s: is its daemon" in said
    finally:
        own_daemon.process.send_signal(signal.SIGCONT)
        own_daemon.stop()


def test_a_daemon_that_dies_meanwhile(own_daemon: MountedDaemon, tmp_path: Path) -> None:
    device = own_daemon.new_device()
    manager = ManagerProcess(device, tmp_path)
    try:
        with started(*BINDERCTL, "--device", str(device), "wait", "x") as waiting:
            waits = lambda: len(os.listdir(f"/proc/{waiting.pid}/task")) > 2  # noqa: E731
            eventually(waits, seconds=PATIENCE)
            own_daemon.process.kill()
            own_daemon.process.wait()
            out, said = waiting.communicate(timeout=PATIENCE)
        assert (waiting.returncode, out) == (1, "")
        assert "Traceback" not in said
        assert said.endswith("\n")
        assert manager.popen.stderr is not None
        manager.popen.stderr.readline()  # that it is ready
        assert "gone; waiting for it to come back" in manager.popen.stderr.readline()
        manager.end()
        status, _, said = outcome([*BINDERCTL, "--device", device, "list"])
        assert status == 1
        assert "start binderd again" in said
    finally:
        manager.popen.kill()
        manager.popen.communicate()
        subprocess.run(["umount", "-l", own_daemon.mount], check=False)
