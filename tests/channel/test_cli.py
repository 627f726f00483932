# SPDX-License-Identifier: Apache-2.0
"""The command line, sd_notify and the service unit."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from binderd import config
from binderd.config import DEFAULT_DEVICES, Settings, parse
from binderd.linux.sd_notify import notify
from binderd.log import BugReports

UNIT = Path(__file__).parents[2] / "systemd" / "binderd.service"


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for word in ("--mount", "--device", "--transport", "SIGUSR1", "SIGTERM", "CAP_SYS_PTRACE"):
        assert word in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "binderd", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("binderd ")


def test_defaults_and_choices() -> None:
    assert parse([]) == Settings("/dev/binderfs", DEFAULT_DEVICES, "info")
    chosen = parse(
        ["--mount", "/x", "--device", "a", "--device", "b", "--transport=fuse", "--log-level=debug"]
    )
    assert chosen == Settings("/x", ("a", "b"), "debug", transport="fuse")
    words = ["--transport=both", "--device-prefix=x/", "--mode=640", "--owner=root", "--group=7"]
    chosen = parse(words)
    assert (chosen.transport, chosen.device_prefix, chosen.access) == ("both", "x/", (0o640, 0, 7))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--transport", "usb"], "invalid choice"),
        (["--transport", "cuse", "--device", "a!b"], "no name for a file"),
        (["--transport", "both", "--device", "ä"], "plain ASCII"),
        (["--transport", "cuse", "--device-prefix", "../"], "no name for a file"),
        (["--transport", "cuse", "--device-prefix", "/x/"], "no name for a file"),
        (["--transport", "cuse", "--device-prefix", "x" * 260], "longer than 255"),
        (["--mode", "888"], "octal number"),
        (["--mode", "7777"], "octal number"),
        (["--mode", "-1"], "octal number"),
        (["--owner", "nobody-of-that-name"], "no such user"),
        (["--group", "no-such-group"], "no such group"),
        (["--owner", "4294967295"], "numbers end at"),
        (["--device", "a", "--device", "a"], "named twice"),
        (["--device", ""], "plain file name"),
        (["--device", "."], "plain file name"),
        (["--device", ".."], "plain file name"),
        (["--device", "a/b"], "plain file name"),
        (["--device", "ä" * 128], "256 bytes"),
        (["--device", "\udcff"], "UTF-8"),
        (["--device", "a\nb"], "printable"),
        (["--device", "a\u2028b"], "printable"),
        (["--mount", "/x\ny"], "printable"),
        (["--mount", "/\udcff"], "printable"),
        (["--device-prefix", "a\nb"], "printable"),
        (["--owner", "a\nb"], "printable"),
        (["--mont\nx", "/x"], "unrecognized"),
        (["--mount", ""], "needs a directory"),
        (["--mont", "/x"], "unrecognized"),
    ],
)
def test_mistakes_take_one_line(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    text = capsys.readouterr().err
    assert (ended.value.code, text.count("\n")) == (2, 1)
    assert reason in text


def test_names_that_are_fine() -> None:
    config.check_device_names(["binder", "x" * 255, "-", "a b", "…"])


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    address = f"@{tmp_path}" if abstract else str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert notify("READY=1", "STATUS=fine")
        assert manager.recv(99) == b"READY=1\nSTATUS=fine"
    assert not notify("READY=1"), "nobody listens any more"
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")


def test_reports_of_bugs_are_rate_limited(caplog: pytest.LogCaptureFixture) -> None:
    times = iter((0.0, 1.0, 9.0, 10.0, 11.0))
    bugs = BugReports(lambda: next(times))
    for number in range(5):
        bugs.report("a request", ValueError(number))
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "our bug in a request (1 so far",
        "our bug in a request (4 so far",
    ]


def test_the_service_unit_is_sound() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if str(UNIT.name) in line and "/usr/bin/binderd is not executable" not in line
    ]
    assert complaints == []


def test_the_service_unit_keeps_the_mount_visible() -> None:
    settings = [line.split("=")[0] for line in UNIT.read_text().splitlines() if line[:1].isalpha()]
    hiding = (
        "Private",
        "Protect",
        "ReadOnly",
        "ReadWrite",
        "Inaccessible",
        "Bind",
        "TemporaryFile",
    )
    assert [name for name in settings if name.startswith(hiding)] == []
