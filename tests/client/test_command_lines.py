# SPDX-License-Identifier: Apache-2.0
"""The command lines of the client's side, given what they cannot use: a line, and no traceback.

Status 2: the arguments are wrong. 1: it could not be done. 130: Ctrl-C. 141: nobody reads.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from binderclient import commandline, tool
from binderclient.demo import __main__ as demo
from client.drivers import MountedDaemon, missing_capability
from client.test_examples import EXAMPLES, compiled
from client.test_servicemanager import ManagerProcess
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client.conftest import Bench

PATIENCE: Final = 20.0
PYTHON: Final = sys.executable
BINDERCTL: Final = [PYTHON, "-m", "binderclient"]
MANAGER: Final = [PYTHON, "-m", "binderclient.servicemanager"]
LONG: Final = "x" * 100_000
NOT_DEVICES: Final = ("/dev/null", "directory", "file", "fifo", "missing")
PROGRAMS: Final = {
    "binderctl": [*BINDERCTL, "--device", "{}", "list"],
    "manager": [*MANAGER, "--device", "{}"],
    "echo_client.py": [PYTHON, str(EXAMPLES / "echo_client.py"), "text", "{}"],
    "echo_service.py": [PYTHON, str(EXAMPLES / "echo_service.py"), "{}"],
    "echo_trio.py": [PYTHON, str(EXAMPLES / "echo_trio.py"), "{}"],
    "file_service.py": [PYTHON, str(EXAMPLES / "file_service.py"), __file__, "{}"],
    "echo_client": ["echo_client", "{}", "text"],
    "echo_server": ["echo_server", "{}"],
    "service_manager": ["service_manager", "{}"],
    "service_client": ["service_client", "{}", "call", "tea", "milk"],
}


def outcome(command: Sequence[object]) -> tuple[int, str, str]:
    """Run a program to its end; returns status, standard output and standard error."""
    words = [os.fsencode(str(word)) for word in command]
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


# Wrong arguments


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--android", "17"], "'17' is no Android: 8 to 16, an API level from 26 to 36"),
        (["--android", LONG], "is no Android"),
        (["--android", ""], "'' is no Android"),
        (["--declare", "a.IFoo"], "'a.IFoo' is not like package.IInterface/instance"),
        (["--declare", "a.IFoo/x,apex="], "'apex=' is neither apex=NAME nor address=IP:PORT"),
        (["--declare", "a.IFoo/x,address=h:70000"], "70000 is no port"),
        (["--declare", "a.IFoo/x,address=" + "9" * 5000], "is not like IP:PORT"),
    ],
)
def test_the_manager_refuses(words: list[str], text: str) -> None:
    status, out, error = outcome([*MANAGER, *words])
    assert (status, out) == (2, "")
    assert text in error
    assert len(error) < 1000


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        ([LONG], "invalid choice: 'xxx"),
        (["--devic", "/dev/null", "list"], "invalid choice: '/dev/null'"),
        (["--device", "", "list"], "'' cannot be the name of a file"),
        (["--device", "a\0b", "list"], r"'a\x00b' cannot be the name of a file"),
        (["list", "more"], "unrecognized arguments: more"),
        (["list", "--android", "7"], "'7' is no Android"),
        (["check"], "required: NAME"),
        (["check", ""], "'' is no service name"),
        (["ping", "a b"], "'a b' is no service name"),
        (["ping", "\udcff"], r"'\udcff' is no service name"),
        (["check", "a\0"], r"'a\x00' is no service name"),
        (["check", LONG], "is no service name"),
        (["wait", "x", "--timeout", "nan"], "'nan' is no number of seconds"),
        (["wait", "x", "--timeout", "-1"], "'-1' is no number of seconds"),
        (["wait", "x", "--timeout", "0"], "'0' is no number of seconds"),
        (["--timeout", "soon", "list"], "'soon' is no number of seconds"),
        (["call", "x"], "required: CODE\n"),
        (["call"], "required: NAME, CODE\n"),
        (["call", "x", "y"], "CODE: 'y' is no whole number from 0 to 4294967295"),
        (["call", "x", "-1"], "'-1' is no whole number"),
        (["call", "x", "4294967296"], "'4294967296' is no whole number"),
        (["call", "x", "9" * 5000], "is no whole number"),
        (["call", "x", "1", "i33", "5"], "'i33' is no type: i32, i64"),
        (["call", "x", "1", "i32"], "i32 needs a value"),
        (["call", "x", "1", "i32", "2147483648"], "from -2147483648 to 2147483647"),
        (["call", "x", "1", "i32", "1.5"], "'1.5' is no whole number"),
        (["call", "x", "1", "i64", "-9223372036854775809"], "is no whole number"),
        (["call", "x", "1", "f", "1e39"], "f: '1e39': is too large for 32 bits"),
        (["call", "x", "1", "d", "x"], "could not convert string to float"),
        (["call", "x", "1", "d", "-1e5"], "put '--' before the first type"),
        (["call", "x", "1", "bool", "yes"], "is neither true nor false"),
        (["call", "x", "1", "s16", "\udcff"], "is not UTF-8"),
        (["call", "x", "1", "s8", "\udcff"], "is not UTF-8"),
        (["call", "x", "1", "hex", "0"], "hex: '0'"),
        (["run"], "which program?"),
        (["run", "--"], "which program?"),
        (["run", "--dance", "true"], "--dance"),
        (["run", "--library", "true"], "--library takes no program"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_binderctl_refuses(
    capsys: pytest.CaptureFixture[str], words: list[str], text: str, as_json: bool
) -> None:
    as_json = as_json and "run" not in words  # which prints none
    if as_json:
        words = ["--json", *words]
    with pytest.raises(SystemExit) as ended:
        commandline.main(words)
    assert ended.value.code == tool.USAGE
    said = capsys.readouterr()
    assert len(said.out + said.err) < 1000
    if as_json:
        assert text.rstrip() in json.loads(said.out)["error"]
        assert said.err == ""
    else:
        assert text in said.err
        assert said.out == ""


@pytest.mark.parametrize(
    ("main", "words", "text"),
    [
        (commandline.serve_manager, ["--device", ""], "'' cannot be the name"),
        (commandline.serve_manager, ["/dev/null"], "unrecognized arguments"),
        (demo.main, ["--seconds", "0"], "from 1 to 86400"),
        (demo.main, ["--seconds", "99999999999"], "from 1 to 86400"),
        (demo.main, ["--clients", "3"], "from 4 to 256"),
        (demo.main, ["--clients", "1000000"], "from 4 to 256"),
        (demo.main, ["--seed", "x"], "'x' is no whole number"),
        (demo.main, ["--mount", ""], "'' cannot be the name"),
        (demo.main, ["dance"], "unrecognized arguments: dance"),
    ],
)
def test_others_refuse(
    capsys: pytest.CaptureFixture[str],
    main: Callable[[Sequence[str]], int],
    words: list[str],
    text: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == tool.USAGE
    assert text in capsys.readouterr().err


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    for source in EXAMPLES.glob("*.c"):
        compiled(source.stem, folder)
    return folder


def example(programs: Path, name: str, *arguments: str) -> list[str]:
    python = [PYTHON, str(EXAMPLES / name)]
    return [*(python if name.endswith(".py") else [str(programs / name)]), *arguments]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("echo_client.py", []),
        ("echo_client.py", ["a", "b", "c"]),
        ("echo_client.py", ["--text"]),
        ("echo_service.py", ["a", "b"]),
        ("echo_trio.py", ["a", "b"]),
        ("echo_trio.py", ["--dance"]),
        ("file_service.py", []),
        ("echo_client", []),
        ("echo_client", ["--help", "x"]),
        ("echo_server", ["--help"]),
        ("echo_server", ["a", "b"]),
        ("service_manager", ["--help"]),
        ("service_manager", ["a", "b"]),
        ("service_client", []),
        ("service_client", ["device", "call", "tea"]),
        ("service_client", ["device", "dance", "tea"]),
        ("service_client", ["device", "serve", "tea", "milk"]),
    ],
)
def test_examples_refuse(programs: Path, name: str, arguments: list[str]) -> None:
    status, out, said = outcome(example(programs, name, *arguments))
    assert (status, out) == (tool.USAGE, "")
    assert said.startswith("usage: ")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: str(path.name))
def test_examples_explain_themselves(path: Path) -> None:
    status, out, _ = outcome([PYTHON, path, "--help"])
    assert (status, out[:7]) == (0, "usage: ")


# Devices that are none


@pytest.mark.parametrize(
    ("program", "kind"),
    [("binderctl", kind) for kind in NOT_DEVICES]
    + [(program, kind) for program in PROGRAMS for kind in ("/dev/null", "directory")][2:],
)
def test_what_is_no_device(programs: Path, tmp_path: Path, program: str, kind: str) -> None:
    path = tmp_path / kind
    if kind == "/dev/null":
        path = Path(kind)
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "file":
        path.write_bytes(bytes(1 << 20))
    command = [word.format(path) for word in PROGRAMS[program]]
    if "/" not in command[0]:
        command[0] = str(programs / command[0])
    status, out, said = outcome(command)
    assert (status, out) == (1, "")
    assert said.count("\n") == 1
    if command[0] == PYTHON:
        assert str(path) in said
        assert "device" in said or "Is a directory" in said


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


def test_what_others_say_stays_on_its_line() -> None:
    assert tool.printable("a\n\033[2Jb\u202e\ud800 ü") == r"a\n\x1b[2Jb\u202e\ud800 ü"


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
