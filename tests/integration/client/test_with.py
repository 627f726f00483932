# SPDX-License-Identifier: Apache-2.0
"""``binderctl with``: devices of its own for one program, seen by nobody else, gone with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from channel.helpers import needs_fuse
from support.patience import patience

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = needs_fuse

CTL: Final = (sys.executable, "-m", "binderclient")
SECONDS_MAX: Final = patience(60.0)
MARK: Final = "BINDERCTL_WITH_TEST"  # in the environment of all that a test has started


def words(*arguments: str) -> list[str]:
    return [*CTL, "with", *arguments]


def run(*arguments: str, mark: str = "") -> tuple[int, str, str]:
    """Run it to its end; return exit status, output, errors."""
    done = subprocess.run(
        words(*arguments),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
        env={**os.environ, MARK: mark},
    )
    return done.returncode, done.stdout, done.stderr


def shell(script: str, *options: str, mark: str = "") -> tuple[int, str, str]:
    return run(*options, "--", "sh", "-c", script, mark=mark)


def marked(mark: str) -> set[int]:
    """Return the processes that belong to a test."""
    found, text = set(), f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if text in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def await_none(mark: str) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while marked(mark):
        assert time.monotonic() < deadline, marked(mark)
        time.sleep(0.05)


@pytest.fixture
def mark(request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"{request.node.name}-{os.getpid()}"
    yield name
    for pid in marked(name):
        os.kill(pid, signal.SIGKILL)


def test_a_program_finds_devices_and_a_service_manager() -> None:
    ctl = " ".join(CTL)
    script = f"ls /dev/binderfs/; ls -l /dev/vndbinder; {ctl} --device /dev/binder list"
    status, out, errors = shell(script)
    assert (status, errors) == (0, "")
    assert {"binder", "hwbinder", "vndbinder", "binder-control"} <= set(out.split())
    assert "-> /dev/binderfs/vndbinder" in out
    assert out.endswith("manager\n")


def test_two_programs_inside_talk_to_each_other() -> None:
    root = Path(__file__).parents[3]
    script = f"""
    {sys.executable} {root}/client/examples/echo_service.py &
    {sys.executable} -m binderclient wait org.example.echo > /dev/null
    exec {sys.executable} {root}/client/examples/echo_client.py hello"""
    status, out, errors = shell(script)
    assert (status, out.splitlines()[-1], errors) == (0, "hello", "")


def test_the_exit_status_is_the_programs() -> None:
    assert shell("exit 7", "--no-manager") == (7, "", "")
    assert shell("kill -KILL $$", "--no-manager") == (128 + signal.SIGKILL, "", "")


def test_a_program_that_is_of_no_kind(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("echo a shell would take this\n")
    program.chmod(0o755)
    status, out, errors = run("--no-manager", "--", str(program))
    assert (status, out) == (126, "")
    assert errors.endswith("program: Exec format error\n")


def test_standard_input_and_output_are_the_programs() -> None:
    done = subprocess.run(
        words("--no-manager", "--", "tr", "a-z", "A-Z"),
        input="shout",
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("SHOUT", "")


def test_dev_is_what_it_was_but_for_the_devices() -> None:
    listed = "cd /dev && for f in *; do stat -c '%n %F %t:%T' \"$f\"; done"
    _, inside, _ = shell(listed, "--no-manager", "--device", "mine")
    outside = subprocess.run(["sh", "-c", listed], capture_output=True, text=True, check=True)
    names = ("binder", "hwbinder", "vndbinder", "binderfs")

    def others(text: str, *more: str) -> list[str]:
        return [line for line in text.splitlines() if line.split()[0] not in (*names, *more)]

    assert others(inside, "mine") == others(outside.stdout)
    assert "mine symbolic link" in inside
    assert "hwbinder " not in inside
    assert shell("echo x > /dev/null; head -c 4 /dev/zero | wc -c", "--no-manager")[1] == "4\n"


TERMINAL: Final = "import os; os.write(os.openpty()[0], b'x'); print('made')"


def test_terminals_can_be_made() -> None:
    assert run("--no-manager", "--", sys.executable, "-c", TERMINAL) == (0, "made\n", "")


def test_it_needs_no_place_for_files(tmp_path: Path) -> None:
    """Nothing is left where temporary files are, below /dev as well, nor needed there."""
    outcome = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _NOWHERE_TO_WRITE, "sh", *words("--", "echo", "fine")],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "fine\n", "")


_NOWHERE_TO_WRITE: Final = """\
for place in "$TMPDIR" /tmp /var/tmp /dev/shm; do mount --bind -o ro "$place" "$place" || exit; done
cd /proc && exec "$@"
"""


def test_why_there_is_no_daemon_is_one_line() -> None:
    """Without /dev/fuse, and without rights, of which it has more to say before."""
    alone = "mount -t tmpfs -o mode=755 tmpfs /dev && mknod -m 666 /dev/null c 1 3 && exec"
    drop = f"setpriv --reuid={USER} --regid={USER} --clear-groups"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{alone} {drop} "$@"', "sh", *words("--", "true")],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
        cwd="/",
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "binderclient: binderd: there is no /dev/fuse" in line


def test_nothing_stays_below_dev() -> None:
    before = set(os.listdir("/dev/shm"))
    done = subprocess.run(
        words("--no-manager", "--", "true"),
        timeout=SECONDS_MAX,
        check=False,
        env={**os.environ, "TMPDIR": "/dev/shm"},
    )
    assert done.returncode == 0
    assert not [name for name in set(os.listdir("/dev/shm")) - before if "binderctl" in name]


def test_a_program_of_the_directory_that_we_are_in(tmp_path: Path) -> None:
    program = tmp_path / "ls"  # found on PATH as well
    program.write_text("#!/bin/sh\necho mine\n")
    program.chmod(0o755)
    (tmp_path / "trio.py").write_text("raise SystemExit('the servers have imported it')")
    ctl = [sys.executable, "-P", *CTL[1:], "with", "--"]
    done = subprocess.run(
        [*ctl, "./ls"],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "mine\n", "")


def test_the_program_has_our_files() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"through")
    os.close(writing)
    done = subprocess.run(
        words("--no-manager", "--", "cat", f"/dev/fd/{reading}"),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
        pass_fds=(reading,),
    )
    os.close(reading)
    assert (done.returncode, done.stdout, done.stderr) == (0, "through", "")


def test_what_is_configured_is_another_daemon(tmp_path: Path) -> None:
    (tmp_path / "binderd.toml").write_text('transport = "cuse"\n')
    place = "mount -t tmpfs tmpfs /etc && mkdir /etc/binderd"  # in the namespace only
    script = f'{place} && mount --bind "$0" /etc/binderd && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(tmp_path), *words("--", "echo", "fine")],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def mounts_in_dev() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.split()[4].startswith("/dev")]


def test_nobody_else_sees_them(mark: str) -> None:
    before = mounts_in_dev()
    there = os.path.lexists("/dev/binderfs")
    with subprocess.Popen(
        words("--no-manager", "--", "sh", "-c", "echo up; read x"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, MARK: mark},
    ) as inside:
        assert inside.stdout is not None
        assert inside.stdout.readline() == b"up\n"
        assert mounts_in_dev() == before
        assert os.path.lexists("/dev/binderfs") == there
        inside.communicate(b"\n")
    assert inside.returncode == 0
    await_none(mark)


def test_several_at_once_and_one_inside_the_other() -> None:
    ctl = " ".join(CTL)
    script = f"{ctl} with -- {ctl} --timeout 20 list; {ctl} --timeout 20 list"
    running = [
        subprocess.Popen(words("--", "sh", "-c", script), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [each.communicate(timeout=SECONDS_MAX)[0] for each in running] == ["manager\n" * 2] * 2
    assert [each.returncode for each in running] == [0, 0]


def test_what_is_left_running_is_ended(mark: str) -> None:
    script = "sleep 1000 & setsid sleep 1000 & trap '' TERM; (setsid sh -c 'sleep 1000; :' &) ; :"
    status, _, errors = shell(script, "--no-manager", mark=mark)
    assert (status, errors) == (0, "")
    assert marked(mark) == set()


def start(mark: str, script: str, options: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start it; return once the script has said something."""
    started = subprocess.Popen(
        words(*options, "--", "sh", "-c", script),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: mark},
        process_group=0,
    )
    assert started.stdout is not None
    assert started.stdout.readline()
    return started


def test_signals_are_passed_on(mark: str) -> None:
    started = start(mark, "trap 'echo heard; exit 5' TERM; echo up; while :; do sleep 0.1; done")
    started.send_signal(signal.SIGTERM)
    assert started.communicate(timeout=SECONDS_MAX)[0] == "heard\n"
    assert started.returncode == 5
    await_none(mark)


LEAVES_ONE: Final = "(trap '' TERM; exec sleep 1000) & echo up"


def test_a_signal_at_the_end_leaves_nothing_either(mark: str) -> None:
    started = start(mark, LEAVES_ONE)
    deadline = time.monotonic() + SECONDS_MAX
    while marked(mark) - {started.pid} and started.poll() is None:
        assert time.monotonic() < deadline
        started.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    assert started.communicate(timeout=SECONDS_MAX)[1] == ""
    assert started.returncode in {0, 128 + signal.SIGTERM}  # the program may have got one
    assert marked(mark) == set()


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_before_there_is_a_program(mark: str, number: signal.Signals) -> None:
    with subprocess.Popen(
        words("--", "sleep", "1000"),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: mark},
    ) as started:
        deadline = time.monotonic() + SECONDS_MAX
        while not children(started.pid):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        started.send_signal(number)
        assert started.communicate(timeout=SECONDS_MAX)[1] == ""
    assert started.returncode == 128 + number
    assert marked(mark) == set()


def test_ctrl_c_is_the_programs(mark: str) -> None:
    started = start(mark, "trap 'echo heard; exit 6' INT; echo up; while :; do sleep 0.1; done")
    os.killpg(started.pid, signal.SIGINT)
    assert started.communicate(timeout=SECONDS_MAX)[0] == "heard\n"
    assert started.returncode == 6
    await_none(mark)


def test_when_it_is_killed_nothing_stays(mark: str) -> None:
    started = start(mark, "echo up; exec sleep 1000")
    started.kill()
    started.communicate()
    await_none(mark)


def test_managers_that_were_asked_for() -> None:
    ctl = " ".join(CTL)
    hidl = f"{ctl} --device /dev/hwbinder --android hidl list"
    assert shell(hidl, "--manager", "hwbinder=hidl") == (0, "", "")  # none, and no error
    status, _, errors = shell(f"{ctl} list", "--no-manager")
    assert status == 1
    assert "no service manager is running" in errors


def test_a_daemon_that_dies_is_told() -> None:
    script = "kill -KILL $(pgrep -P $PPID -f '[m] binderd '); sleep 0.2; exit 4"
    status, _, errors = shell(script, "--no-manager")
    assert status == 4
    assert errors.endswith("binderd has ended: binderd was killed by signal 9\n")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 2, "which program?"),
        (["--"], 2, "which program?"),
        (["--nonsense"], 2, "unrecognized arguments: --nonsense"),
        (["--", "/dev/null/none"], 127, "no such program"),
        (["--", "/etc/passwd"], 126, "not an executable file"),
        (["--device", "a/b", "--", "true"], 2, "is no name of a device"),
        (["--device", "a", "--manager", "b", "--", "true"], 2, "there is no device"),
        (["--manager", "binder=7", "--", "true"], 2, "'7' is no Android"),
        (["--manager", "binder", "--no-manager", "--", "true"], 2, "exclude each other"),
        (["--device", "binder-control", "--", "true"], 2, "binder-control is what binderfs"),
        (["--device", "features", "--", "true"], 2, "features is what binderfs"),
        (["--device", "binderfs", "--", "true"], 2, "binderfs is what binderfs"),
        (["--device", "null", "--", "true"], 2, "/dev/null is there for something else"),
        (["--device", "pts", "--", "true"], 2, "/dev/pts is there for something else"),
        (["--manager", "null", "--", "true"], 2, "/dev/null is there for something else"),
        (["--device", "x", "--device", "x", "--", "true"], 2, "a name is there twice"),
        (["--device", "a\nb", "--", "true"], 2, "is no name of a device"),
        (["--device", "", "--", "true"], 2, "is no name of a device"),
        (["--device", "x" * 256, "--", "true"], 2, "is no name of a device"),
    ],
)
def test_what_cannot_be(arguments: list[str], status: int, says: str) -> None:
    found, out, errors = run(*arguments)
    assert (found, out) == (status, "")
    line = errors.splitlines()[-1]
    assert says in line
    assert line.startswith("python -m binderclient")
    assert "Traceback" not in errors


# Without root

USER: Final = 65534
# Where /dev/fuse is root's alone, whoever runs this is root and lets others have one here.
_FUSE_FOR_ALL: Final = """\
place=$(mktemp -d) && mount -t tmpfs -o mode=755 tmpfs "$place" &&
mknod "$place/fuse" c 10 229 && chmod 666 "$place/fuse" && mount --bind "$place/fuse" /dev/fuse &&
umount -l "$place" && rmdir "$place" && exec "$@"
"""


def as_user() -> list[str]:
    """Return what runs a command as an ordinary user who may open /dev/fuse."""
    fuse = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _FUSE_FOR_ALL, "sh"]
    return [*fuse, "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]


def run_as_user(*arguments: str, mark: str = "") -> str:
    """Run it as that user to its end, which must be a good one; return the output."""
    done = subprocess.run(
        [*as_user(), *words(*arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
        env={**os.environ, MARK: mark},
        cwd="/",
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def has_user_namespaces() -> bool:
    command = [*as_user(), "unshare", "--user", "--map-root-user", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


ordinary_user = pytest.mark.skipif(
    not (os.geteuid() == 0 and has_user_namespaces()),
    reason="needs root, and ordinary users who may have user namespaces",
)


@ordinary_user
def test_an_ordinary_user_has_devices_as_well(mark: str) -> None:
    root = Path(__file__).parents[3]
    script = f"""
    id -u; grep CapEff /proc/self/status; ls -l /dev/vndbinder
    {sys.executable} {root}/client/examples/echo_service.py &
    {sys.executable} -m binderclient wait org.example.echo > /dev/null
    exec {sys.executable} {root}/client/examples/echo_client.py hello"""
    out = run_as_user("--", "sh", "-c", script, mark=mark)
    lines = out.splitlines()
    assert lines[0] == str(USER)
    assert int(lines[1].split()[1], 16) == 0, "the command has rights"
    assert lines[-1] == "hello"
    assert marked(mark) == set()


@ordinary_user
def test_an_ordinary_user_makes_terminals_as_well() -> None:
    out = run_as_user("--no-manager", "--", sys.executable, "-c", TERMINAL)
    assert out == "made\n"


@ordinary_user
def test_files_travel_between_them(mark: str) -> None:
    root = Path(__file__).parents[3]
    script = f"""
    {sys.executable} {root}/client/examples/file_service.py serve &
    {sys.executable} -m binderclient wait org.example.sorter > /dev/null
    exec {sys.executable} {root}/client/examples/file_service.py /etc/passwd"""
    out = run_as_user("--", "sh", "-c", script, mark=mark)
    assert min(Path("/etc/passwd").read_text().splitlines()) in out
