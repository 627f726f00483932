# SPDX-License-Identifier: Apache-2.0
"""On the host: what the machine promises to those who run commands in it, above all when they fail.

One machine serves the tests that leave it alive.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vm import kernel
from vm.errors import CommandTimeoutError, MachineError
from vm.machine import REPOSITORY, Buffer, Machine
from vm.qemu import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60.0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    results = tmp_path_factory.mktemp("results")
    with Machine(Settings(results=str(results))) as started:
        yield started


def run(machine: Machine, command: str, timeout: float = PATIENCE) -> tuple[int, bytes, bytes]:
    output, errors = Buffer(), Buffer()
    status = machine.run(command, timeout=timeout, output=output, errors=errors)
    return status, output.read_all(), errors.read_all()


def command_line(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vm", *arguments],
        env={**os.environ, "PYTHONPATH": "tests", **environment},
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_output_errors_and_status_come_back(machine: Machine) -> None:
    assert run(machine, "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")


def test_a_signal_is_reported_as_a_shell_does(machine: Machine) -> None:
    assert run(machine, "kill -TERM $$")[0] == 128 + signal.SIGTERM


def test_an_unknown_command_says_so(machine: Machine) -> None:
    status, _, errors = run(machine, "no-such-command")
    assert (status, b"command not found" in errors) == (127, True)


def test_standard_input_is_empty_and_the_folder_is_the_repository(machine: Machine) -> None:
    assert run(machine, "cat; pwd") == (0, f"{REPOSITORY}\n".encode(), b"")


def test_much_output_arrives_whole(machine: Machine) -> None:
    status, output, _ = run(machine, "yes binder | head -c 5000000")
    assert (status, output) == (0, (b"binder\n" * 714286)[:5000000])


def test_output_arrives_while_the_command_runs(machine: Machine) -> None:
    command = machine.start("echo first; read line; echo $line")
    assert command.output.readline(PATIENCE) == b"first\n"
    command.write(b"second\n")
    assert command.output.readline(PATIENCE) == b"second\n"
    assert command.wait(PATIENCE) == 0


def test_commands_run_at_the_same_time(machine: Machine) -> None:
    workers = [machine.start(f"read line; echo $line {number}") for number in range(8)]
    for worker in reversed(workers):
        worker.write(b"worker\n")
    lines = [worker.output.readline(PATIENCE) for worker in workers]
    assert lines == [f"worker {number}\n".encode() for number in range(8)]


def test_a_long_lived_worker_takes_more_input_than_a_pipe_holds(machine: Machine) -> None:
    worker = machine.start("cat")
    payload = os.urandom(3 << 20)
    worker.write(payload)
    worker.end_input()
    assert worker.output.read(len(payload), PATIENCE) == payload
    assert worker.wait(PATIENCE) == 0


def test_what_the_command_left_behind_does_not_hold_it_up(machine: Machine) -> None:
    assert run(machine, "sleep 1000 & echo done") == (0, b"done\n", b"")


def test_a_command_that_takes_too_long_is_killed_and_the_machine_lives_on(
    machine: Machine,
) -> None:
    with pytest.raises(CommandTimeoutError, match="no end after 1 s"):
        run(machine, "sleep 1001; echo never", timeout=1)
    assert run(machine, "pgrep -f 'sleep 100[1]'")[0] == 1


def test_writes_are_lost_but_for_the_folder_of_results(machine: Machine) -> None:
    results = Path(machine.settings.results)
    lost = REPOSITORY / "lost"
    status, _, errors = run(machine, f"echo 1 >{lost} && cat {lost} && echo 2 >{results}/kept")
    assert (status, errors) == (0, b"")
    assert (lost.exists(), (results / "kept").read_text()) == (False, "2\n")


def test_a_machine_that_dies_says_what_its_kernel_said() -> None:
    with (
        Machine() as machine,
        pytest.raises(MachineError, match=r"died(.|\n)*sysrq triggered crash"),
    ):
        machine.run("sleep 1; echo c >/proc/sysrq-trigger; sleep 1000", timeout=PATIENCE)


def test_a_closed_machine_refuses_politely() -> None:
    with Machine() as machine:
        pass
    with pytest.raises(MachineError, match="switched off"):
        machine.run("true")


def test_the_command_line_brings_back_the_status() -> None:
    result = command_line("run", "echo out; exit 7")
    assert (result.returncode, result.stdout) == (7, "out\n")


def test_the_command_line_reports_a_timeout() -> None:
    result = command_line("run", "echo started; sleep 1000", VM_TIMEOUT="2")
    assert (result.returncode, result.stdout) == (124, "started\n")
    assert "vm: no end after 2 s (VM_TIMEOUT): killed" in result.stderr


def test_the_command_line_explains_itself_without_a_command() -> None:
    result = command_line("usage")
    assert result.returncode == 0
    assert "make vm CMD=" in result.stdout


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"VM_BOOT_TIMEOUT": "0.5"}, "not ready after 0.5 s"),
        ({"VM_MEMORY": "9999999G"}, "QEMU said last"),
        ({"VM_MEMORY": "nonsense"}, "VM_MEMORY must be a size such as"),
        ({"VM_CPUS": "two"}, "VM_CPUS must be a number of processors"),
        ({"VM_CPUS": "2"}, "panics with more than one emulated processor"),
        ({"VM_MEMORY": "64M"}, "is VM_MEMORY=64M too little"),
        ({"VM_TIMEOUT": "soon"}, "VM_TIMEOUT must be a number of seconds"),
        ({"KERNEL": "old"}, "KERNEL must be a version such as 6.1"),
        ({"VM_TIMEOUT": "nan"}, "VM_TIMEOUT must be a number of seconds"),
    ],
)
def test_a_machine_that_does_not_start_says_why(environment: dict[str, str], reason: str) -> None:
    result = command_line("run", "true", **environment)
    assert result.returncode == 125
    assert reason in result.stderr


def test_missing_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "search_path", lambda: str(tmp_path))
    with pytest.raises(MachineError, match=r"not installed: qemu-system-x86_64(.|\n)*make vm"):
        kernel.obtain()


def test_a_kernel_that_cannot_be_fetched_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("KERNEL", "2.4")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MachineError, match=r"no package of a kernel 2\.4"):
        kernel.obtain()
    assert [path.name for path in (tmp_path / "binderd-vm").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("version", "name", "fits"),
    [
        ("6.1", "linux-image-6.1.0-56-amd64", True),
        ("6.1", "linux-image-6.12.117+deb12-amd64", False),
        ("6.12", "kernel-6.12.117+deb12-amd64", True),
        ("6.12.117", "kernel-6.12.117+deb12-amd64", True),
        ("7", "linux-image-7.3.4+deb13-amd64", True),
        ("7", "linux-image-6.17.8+deb13-amd64", False),
    ],
)
def test_a_version_is_not_the_beginning_of_another_number(
    monkeypatch: pytest.MonkeyPatch, version: str, name: str, *, fits: bool
) -> None:
    monkeypatch.setenv("KERNEL", version)
    assert kernel._fits(name) == fits


def test_of_several_kernels_the_one_that_is_asked_for_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for release in ("6.1.0-1-amd64", "6.12.1-amd64", "7.0.1-amd64"):
        folder = tmp_path / "binderd-vm" / f"kernel-{release}"
        (folder / "boot").mkdir(parents=True)
        (folder / "boot" / f"vmlinuz-{release}").touch()
        modules = folder / "lib" / "modules" / release
        modules.mkdir(parents=True)
        (modules / "modules.dep").touch()
    for version, release in (("6.1", "6.1.0-1-amd64"), ("", "6.12.1-amd64"), ("7", "7.0.1-amd64")):
        monkeypatch.setenv("KERNEL", version)
        assert kernel.obtain().release == release


def test_nothing_outlives_its_caller() -> None:
    code = (
        "from vm.machine import Machine; m = Machine();"
        " print(m._qemu.pid, flush=True); m.run('sleep 1000')"
    )
    environment = {**os.environ, "PYTHONPATH": "tests"}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE
    ) as caller:
        assert caller.stdout
        qemu = Path("/proc") / caller.stdout.readline().decode().strip()
        caller.kill()
    deadline = time.monotonic() + PATIENCE
    while qemu.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not qemu.exists()
