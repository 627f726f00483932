# SPDX-License-Identifier: Apache-2.0
"""``binderd`` of an ordinary user: no root, no capability, no user namespace, but fusermount3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from channel.helpers import SECONDS_MAX, Daemon, running
from descriptors.programs import Running, build
from support import ordinary
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.ordinary import Stage

pytestmark = pytest.mark.skipif(ordinary.why_not() is not None, reason=str(ordinary.why_not()))

LONER: Final = 4711  # a user who has no process
CTL: Final = ("-m", "binderclient")
EXAMPLES: Final = Path(__file__).parents[2] / "client" / "examples"
HOLDER: Final = """\
from binderclient import Device
with Device({device!r}):
    print("open", flush=True)
    input()
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with ordinary.stage() as found:
        yield found


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="binderd-rootless-") as folder:
        Path(folder).chmod(0o755)
        yield build(Path(folder))


@pytest.fixture
def place(stage: Stage) -> Iterator[Path]:
    """A directory to mount on, which is not there yet, in one of the user's own."""
    with tempfile.TemporaryDirectory(prefix="binderd-rootless-") as folder:
        if stage.has_root:
            os.chown(folder, ordinary.USER, ordinary.USER)
        yield Path(folder, "b")
        while f" {folder}/b " in mounts(stage):
            output(stage, "fusermount3", "-u", "-z", f"{folder}/b")


@pytest.fixture
def daemon(stage: Stage, place: Path) -> Iterator[Daemon]:
    with running(place, "--device", "binder", confinement=stage.words()) as found:
        yield found


def done(
    stage: Stage, *command: str | Path, user: int = ordinary.USER
) -> subprocess.CompletedProcess[str]:
    words = [*stage.words(user), *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)


def output(stage: Stage, *command: str | Path) -> str:
    """Return what a command of the user's prints, which must succeed."""
    result = done(stage, *command)
    assert result.returncode == 0, result.stderr
    return result.stdout


def refused(stage: Stage, *arguments: str | Path) -> str:
    """Return the one line of a daemon that does not start."""
    result = done(stage, sys.executable, "-m", "binderd", *arguments)
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def mounts(stage: Stage) -> str:
    return output(stage, "cat", "/proc/self/mountinfo")


def python(stage: Stage, *arguments: str | Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    words = [*stage.words(), sys.executable, *map(str, arguments)]
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


# Serving


def test_programs_that_know_the_abi_alone_send_files(
    stage: Stage, daemon: Daemon, place: Path, program: Path
) -> None:
    """C's view of it: open, mmap, ioctl; the receiver is stopped to get its files (ptrace)."""
    env, device = Path("/usr/bin/env"), place / "binder"
    server = Running(env, *stage.words(), program, "serve", device, "patient")
    try:
        server.expect("ready")
        before = server.descriptors()
        assert Running(env, *stage.words(), program, "call", device, 5, 2).errors() == ""
        server.expect_descriptors(before)
    finally:
        server.kill()
    daemon.wait_for_counts(processes=0, files=0, buffers=0, pages=0)


@pytest.mark.parametrize(
    "options", [(), ("--descriptors", "attach-only")], ids=["default", "socket"]
)
def test_files_by_the_socket(stage: Stage, place: Path, options: tuple[str, ...]) -> None:
    with running(place, *options, confinement=stage.words()):
        device = place / "binder"
        example = EXAMPLES / "file_service.py"
        manager = python(stage, "-m", "binderclient.servicemanager", "--device", device)
        try:
            words = (sys.executable, *CTL, "--device", device, "check", "manager")
            eventually(lambda: done(stage, *words).returncode == 0)
            with python(stage, example, "serve", device) as service:
                try:
                    said = output(stage, sys.executable, example, __file__, device)
                finally:
                    service.kill()
        finally:
            manager.kill()
            manager.communicate()
        lines = Path(__file__).read_text(encoding="utf-8").splitlines(keepends=True)
        assert said == f"{len(lines)} lines\n{''.join(sorted(lines))}"


def test_it_needs_no_capability(stage: Stage, daemon: Daemon) -> None:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="ascii")
    values = dict(line.split(":\t", 1) for line in status.splitlines())
    assert {values[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    own = os.readlink(f"/proc/{daemon.process.pid}/ns/user")
    assert own == os.readlink("/proc/self/ns/user")
    for line in mounts(stage).splitlines():
        if f" {daemon.directory} " in line:
            assert "allow_other" not in line
            assert {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))
            break
    else:
        pytest.fail("it is not mounted")


def test_a_service_manager_and_a_show(stage: Stage, place: Path) -> None:
    """Payloads up to 512 KiB, kills, deaths, and nothing left: the demo as that user."""
    words = ["--seconds", "2", "--clients", "5", "--mount", str(place), "--json"]
    told = json.loads(output(stage, sys.executable, "-m", "binderclient.demo", *words))
    assert told["passed"], told["checks"]
    assert not told["errors"]
    assert f" {place} " not in mounts(stage)


def test_it_is_the_users_own(stage: Stage, daemon: Daemon) -> None:
    """He may do there what root may in root's: add, rename and remove devices."""
    user = str(ordinary.USER if stage.has_root else os.getuid())
    for name in (".", "binder", "binder-control"):
        assert output(stage, "stat", "-c", "%u", daemon.directory / name) == f"{user}\n"
    script = (
        "import fcntl, os, sys\n"
        "from binderwire.binder_abi import BINDER_CTL_ADD\n"
        "folder = sys.argv[1]\n"
        "control = os.open(f'{folder}/binder-control', os.O_RDONLY)\n"
        "fcntl.ioctl(control, BINDER_CTL_ADD, bytearray(b'added'.ljust(264, b'\\0')))\n"
        "os.close(os.open(f'{folder}/added', os.O_RDWR))\n"
        "os.rename(f'{folder}/added', f'{folder}/moved')\n"
        "os.unlink(f'{folder}/moved')\n"
    )
    output(stage, sys.executable, "-c", script, daemon.directory)


def test_he_can_have_everything(stage: Stage, place: Path) -> None:
    """Nobody else can come, so there is nobody to share with; unless he wants that."""
    opener = (
        "import os, sys\n"
        "held = []\n"
        "while len(held) < 20:\n"
        "    try:\n"
        "        held.append(os.open(sys.argv[1], os.O_RDWR))\n"
        "    except OSError:\n"
        "        break\n"
        "print(len(held))\n"
    )
    settings = place.with_name("toml")
    for more, count in (("", 12), ("limits.open-files-per-user = 5\n", 5)):
        settings.write_text(f"limits.open-files = 12\n{more}", encoding="ascii")
        settings.chmod(0o644)
        with running(place, "--config", str(settings), confinement=stage.words()) as daemon:
            assert output(stage, sys.executable, "-c", opener, place / "binder") == f"{count}\n"
            assert daemon.end() == 0


def test_what_is_different_is_said(stage: Stage, place: Path) -> None:
    with running(place, confinement=stage.words()) as daemon:
        assert daemon.end() == 0
    said = daemon.said.decode()
    assert "programs of this user and group alone" in said
    assert "without features" not in said
    assert "Traceback" not in said


LOOK: Final = """\
import fcntl, json, os, sys
folder = sys.argv[1]
with open(f"{folder}/features/extended_error") as file:
    print(file.read(), end="")
print(*sorted(os.listdir(f"{folder}/features")))
print(*sorted(os.listdir(f"{folder}/binder_logs")))
held = os.open(f"{folder}/binder", os.O_RDWR)
mine = str(os.getpid())
print(os.listdir(f"{folder}/binder_logs/proc") == [mine])
for name in ("state", "stats", "transactions", f"proc/{mine}", "failed_transaction_log"):
    path = f"{folder}/binder_logs/{name}"
    file = os.open(path, os.O_RDONLY)
    status = os.fstat(file)
    text = os.read(file, 1 << 20).decode()
    assert os.pread(file, 9, 3).decode() == text[3:12]
    os.close(file)
    print(oct(status.st_mode), status.st_uid == os.getuid(), text.split("\\n")[0])
text = open(f"{folder}/binder_logs/state").read()
print(f"proc {mine}\\n" in text)
os.close(held)
def refused(step, *arguments):
    try:
        step(*arguments)
    except OSError as error:
        return os.strerror(error.errno)
print(refused(open, f"{folder}/binder_logs/none"), refused(os.listdir, f"{folder}/features/x"))
print(refused(open, f"{folder}/binder_logs/state", "w"), refused(open, f"{folder}/features/y", "w"))
print(refused(os.unlink, f"{folder}/binder_logs/state"), refused(os.chmod, path, 0o777))
print(refused(os.rename, f"{folder}/binder_logs/state", f"{folder}/x"))
"""


def test_features_and_logs(stage: Stage, daemon: Daemon) -> None:
    lines = output(stage, sys.executable, "-c", LOOK, daemon.directory).splitlines()
    assert lines[:4] == [
        "1",
        "extended_error freeze_notification oneway_spam_detection",
        "failed_transaction_log proc state stats transaction_log transactions",
        "True",
    ]
    for line, start in zip(
        lines[4:9],
        ("binder state:", "binder stats:", "binder transactions:", "binder proc state:", ""),
        strict=True,
    ):
        assert line == f"0o100444 True {start}"
    none, denied, read_only = (os.strerror(number) for number in (2, 13, 30))
    assert lines[9:] == [
        "True",
        f"{none} {none}",
        f"{denied} {denied}",
        f"{read_only} {read_only}",
        read_only,
    ]
    daemon.wait_for_counts(processes=0, users=0)  # nobody pays for anything


def test_others_are_kept_out_by_the_kernel(stage: Stage, daemon: Daemon) -> None:
    if not stage.has_root:
        pytest.skip("needs root, to be somebody else")
    folder = daemon.directory.parent
    folder.chmod(0o755)
    for words in (stage.words(ordinary.OTHER), stage.as_root()):
        command = [*words, "cat", str(daemon.directory / "binder")]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert "Permission denied" in result.stderr


# Ends


def test_sigterm_unmounts(stage: Stage, daemon: Daemon, place: Path) -> None:
    with python(stage, "-c", HOLDER.format(device=str(place / "binder"))) as client:
        assert read_line(client) == "open\n"
        assert daemon.end() == 0
        assert f" {place} " not in mounts(stage)
        assert not place.exists(), "it was made by the daemon"
        client.kill()


def test_fusermount_ends_it(stage: Stage, daemon: Daemon, place: Path) -> None:
    output(stage, "fusermount3", "-u", place)
    daemon.expect("was unmounted")
    assert daemon.process.wait(SECONDS_MAX) == 3


def test_the_next_start_clears_what_a_killed_one_left(stage: Stage, place: Path) -> None:
    with running(place, confinement=stage.words()) as killed:
        killed.end(signal.SIGKILL)
        assert f" {place} " in mounts(stage)
        assert "not connected" in done(stage, "ls", place).stderr
        with running(place, confinement=stage.words()) as next_one:
            assert mounts(stage).count(f" {place} ") == 1
            assert output(stage, "stat", "-c", "%F", place / "binder")
            assert next_one.end() == 0
    assert f" {place} " not in mounts(stage)


def test_fusermount_clears_what_a_killed_one_left(stage: Stage, place: Path) -> None:
    with running(place, confinement=stage.words()) as killed:
        killed.end(signal.SIGKILL)
        output(stage, "fusermount3", "-u", place)
    assert f" {place} " not in mounts(stage)


def test_a_place_that_is_served_is_left_alone(stage: Stage, daemon: Daemon, place: Path) -> None:
    assert "is a mount point already (fuse.binderd)" in refused(stage, "--mount", place)
    assert output(stage, "stat", "-c", "%F", place / "binder")


def test_of_two_that_start_at_once_one_serves(stage: Stage, place: Path) -> None:
    """Also where both find what a killed one has left."""
    with running(place, confinement=stage.words()) as killed:
        killed.end(signal.SIGKILL)
        words = [*stage.words(), sys.executable, "-m", "binderd", "--mount", str(place)]
        both = [subprocess.Popen(words, stderr=subprocess.DEVNULL) for _ in range(2)]
        try:
            deadline = time.monotonic() + SECONDS_MAX
            while [process.poll() for process in both].count(None) == 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert sorted((process.poll() for process in both), key=str) == [1, None]
            one = next(process for process in both if process.poll() is None)
            while done(stage, "stat", place / "binder").returncode:
                assert time.monotonic() < deadline
            assert mounts(stage).count(f" {place} ") == 1
            one.terminate()
            assert one.wait(SECONDS_MAX) == 0
        finally:
            for process in both:
                process.kill()
                process.wait()
    assert f" {place} " not in mounts(stage)


# What cannot be


def test_what_takes_root_is_refused_with_a_sentence(stage: Stage, place: Path) -> None:
    for transport in ("cuse", "both"):
        text = refused(stage, "--mount", place, "--transport", transport)
        assert text.startswith(f"binderd: --transport {transport} takes root")
    assert not place.exists()


def test_without_fusermount(stage: Stage, place: Path) -> None:
    text = refused_with(stage, {"PATH": "/nowhere"}, "--mount", place)
    assert "needs fusermount3 to mount" in text
    assert "fuse3" in text
    assert not place.exists()


def test_without_dev_fuse_for_everybody(stage: Stage, place: Path) -> None:
    if not stage.has_root:
        pytest.skip("needs root, to take it away")
    subprocess.run([*stage.as_root(), "chmod", "600", "/dev/fuse"], check=True)
    try:
        text = refused(stage, "--mount", place)
    finally:
        subprocess.run([*stage.as_root(), "chmod", "666", "/dev/fuse"], check=True)
    assert "no right to open /dev/fuse" in text
    assert "chmod 666 /dev/fuse" in text
    assert not place.exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_without_processes(stage: Stage, place: Path, processes: int) -> None:
    """RLIMIT_NPROC, which does not count for root: what cannot be started is one line."""
    if not stage.has_root:
        pytest.skip("needs root, to be somebody who has no other process")
    os.chown(place.parent, LONER, LONER)
    limited = ["prlimit", f"--nproc={processes}", sys.executable, "-m", "binderd", "--mount"]
    result = done(stage, *limited, place, user=LONER)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    assert "Resource temporarily unavailable" in result.stderr
    assert "processes and threads (ulimit -u" in result.stderr


def test_without_threads(stage: Stage) -> None:
    if not stage.has_root:
        pytest.skip("needs root, to be somebody who has no other process")
    code = "import trio; from binderd.channel.blocking import in_thread; trio.run(in_thread, print)"
    result = done(stage, "prlimit", "--nproc=1", sys.executable, "-c", code, user=LONER)
    assert result.stderr.splitlines()[-1] == "BlockingIOError: [Errno 11] " + os.strerror(11)


def refused_with(stage: Stage, environment: dict[str, str], *arguments: str | Path) -> str:
    settings = [f"{name}={value}" for name, value in environment.items()]
    result = done(stage, "env", *settings, sys.executable, "-m", "binderd", *arguments)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    return result.stderr


def test_where_programs_gain_no_rights(stage: Stage, place: Path) -> None:
    words = stage.words(no_new_privileges=True)
    command = [*words, sys.executable, "-m", "binderd", "--mount", str(place)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "only root can mount" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not place.exists()


def test_somebody_elses_directory(stage: Stage) -> None:
    assert "name another directory" in refused(stage, "--mount", "/binderd-rootless")


def test_check(stage: Stage) -> None:
    text = output(stage, sys.executable, "-m", "binderd", "--check", "--json")
    told = json.loads(text)
    works = {one["name"]: one["works"] for one in told["findings"]}
    assert told["serves"]
    for name in ("FUSE", "private pages", "process_vm_readv", "/proc/PID/mem", "ptrace"):
        assert works[name], name
    for name in ("root", "passthrough", "PTRACE_O_SUSPEND_SECCOMP"):
        assert not works[name], name
    assert not [name for name in works if name.startswith("CAP_")]
    assert "binderd-check" not in mounts(stage)
