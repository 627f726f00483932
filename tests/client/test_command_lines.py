# SPDX-License-Identifier: Apache-2.0
"""The command lines of the client's side, given what they cannot use: a line, and no traceback.

Status 2: the arguments are wrong. 1: it could not be done. 130: Ctrl-C. 141: nobody reads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

import pytest

from binderclient import commandline, tool
from binderclient.demo import __main__ as demo
from binderclient.errors import CallTimeout
from client.programs import EXAMPLES, compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    "echo_asyncio.py": [PYTHON, str(EXAMPLES / "echo_asyncio.py"), "{}"],
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
        ("echo_asyncio.py", ["a", "b"]),
        ("echo_asyncio.py", ["--dance"]),
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


def test_what_others_say_stays_on_its_line() -> None:
    assert tool.printable("a\n\033[2Jb\u202e\ud800 ü") == r"a\n\x1b[2Jb\u202e\ud800 ü"


class SlowManager:
    """Does not answer in time at first."""

    def __init__(self) -> None:
        self.left_unanswered = 2

    def wait(self, name: str, timeout: float) -> None:
        if self.left_unanswered:
            self.left_unanswered -= 1
            raise CallTimeout(timeout, "manager", 1)

    def get(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(interface=lambda: "org.example.IEcho", handle=3)


def test_wait_has_patience_with_a_slow_manager() -> None:
    """``binderctl --timeout 60 wait`` asks anew each second, and gave up at the first silence."""
    chosen = argparse.Namespace(name="org.example.echo", timeout=60.0)
    found = commandline._wait(SlowManager(), chosen)  # type: ignore[arg-type]
    assert found == {"name": chosen.name, "interface": "org.example.IEcho", "handle": 3}
    with pytest.raises(CallTimeout):
        commandline._wait(SlowManager(), argparse.Namespace(name="x", timeout=0.5))  # type: ignore[arg-type]
