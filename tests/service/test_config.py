# SPDX-License-Identifier: Apache-2.0
"""The configuration file: what is taken, what is refused and with which words, who wins."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binderd import config
from binderd.config import Settings, changed, load
from binderd.config_file import SIZE_MAX, ConfigError, parse_entries
from binderd.options import OPTIONS, example

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "binderd.toml"


def load_text(file: Path, text: str, *arguments: str) -> Settings:
    file.write_text(text)
    return load(["--config", str(file), *arguments])


def test_the_example_is_the_services_and_its_comments_are_the_defaults(file: Path) -> None:
    service = Settings(symlinks="/dev", manager_uid=("root", "binder-servicemanager"))
    assert load_text(file, example()) == service
    head, _, limits = example().partition("[limits]")
    uncommented = [
        line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in head.split("\n")
    ]
    assert load_text(file, "\n".join(uncommented)) == service
    assert len([line for line in uncommented if "=" in line and line[:1] != "#"]) == len(OPTIONS)
    numbers = [line[1:] for line in limits.splitlines() if line]
    assert len(load_text(file, "[limits]\n" + "\n".join(numbers)).limits) == len(numbers)


def test_every_option_can_be_set(file: Path) -> None:
    text = """
    mount = "/x"
    devices = [
        "a",   # the first
        "b"]
    max-devices = 9
    transport = "both"
    device-prefix = "p/"
    symlinks = "/s"
    mode = "640"
    owner = 7
    group = "root"
    logs-mode = "0440"
    logs-owner = 8
    logs-group = 9
    passthrough = "off"
    stall-limit = 2
    descriptors = "attach-only"
    log-level = "debug"
    log-to = "syslog"
    manager-uid = ["0", "b=root"]
    allow-users = ["games"]
    allow-groups = ["a=b=audio"]
    freeze = "own"
    security-context = "u:r:app:s0"
    spin = 7
    limits.files = 3
    """
    assert load_text(file, text) == Settings(
        "/x", ("a", "b"), "debug", 9, 2.0, False, False, "both", "p/", (0o640, 7, 0),
        (0o440, 8, 9), "/s", "syslog", (("files", 3),), ("0", "b=root"), ("games",), ("a=b=audio",),
        "own", "u:r:app:s0", 7000,
    )  # fmt: skip


def test_the_command_line_wins(file: Path) -> None:
    text = 'mount = "/x"\ndevices = ["a"]\n[limits]\nfiles = 5\n'
    settings = load_text(file, text, "--device=c", "--device=d", "--limit", "files=7")
    assert (settings.mount, settings.devices, settings.limits) == (
        "/x",
        ("c", "d"),
        (("files", 7),),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("mount = 5", "1: mount: must be text in quotes, not 5"),
        ('\n\nmont = "x"', "3: mont: there is no such option; is mount meant?"),
        ("zzz = 1", "1: zzz: there is no such option; binderd --print-config shows all"),
        ('"a\\nb" = 1', "1: 'a\\nb': there is no such option"),
        ("[limits]\nfile = 1", "2: file: there is no such limit; is files meant?"),
        ('[limits]\nfiles = "x"', "2: files: must be a whole number"),
        ("[limits]\nfiles = true", "2: files: must be a whole number"),
        ("[limits]\nfiles = 0", "2: files 0: must be from 1 to"),
        ("limits = { files = 1.5 }", "1: files: must be a whole number"),
        ("limits = 5", "1: limits: there is no such option"),
        ("[other]\nmount = '/x'", "2: mount: in [other] there is no such option"),
        ("[limits.x]\na = 1", "1: limits: tables in it are not known here"),
        ("[[limits]]\nfiles = 1", "1: limits: tables in it are not known here"),
        ("devices = []", "1: devices: must be a list of names, each in quotes, and not empty"),
        ('devices = ["a", 5]', "1: devices: must be a list of names"),
        ('devices = "binder"', "1: devices: must be a list of names, not 'binder'"),
        ('devices = ["a", "a"]', "1: devices a: named twice"),
        ('devices = ["a/b"]', "1: devices 'a/b': a device name is a plain file name"),
        ('mode = "999"', "1: mode 999: must be an octal number up to 0777"),
        ("mode = 438", "1: mode: must be an octal number in quotes"),
        ('owner = "no-such-user"', "1: owner no-such-user: there is no such user"),
        ("group = 4294967295", "1: group 4294967295: numbers end at"),
        ("owner = -1", "1: owner -1: there is no such user"),
        ('log-level = "loud"', "1: log-level: 'loud' is none of debug, info, warning, error"),
        ("stall-limit = true", "1: stall-limit: must be a number of seconds, not True"),
        ("stall-limit = nan", "1: stall-limit nan: must be from 0.1 to 86400 seconds"),
        ("stall-limit = 0.05", "1: stall-limit 0.05: must be from 0.1 to 86400 seconds"),
        ("max-devices = 2", "1: max-devices 2: must be from 3"),
        ("manager-uid = 0", "1: manager-uid: must be a list of names or numbers in quotes, not 0"),
        ("manager-uid = [0]", "1: manager-uid: must be a list of names, each in quotes"),
        ('manager-uid = ["binder="]', "1: manager-uid 'binder=': must be a name or number, or"),
        ('allow-users = ["=root"]', "1: allow-users '=root': must be a name or number, or"),
        ('allow-users = ["4294967295"]', "1: allow-users 4294967295: numbers end at"),
        ('allow-groups = ["a\\nb"]', "1: allow-groups 'a\\nb': must be printable"),
        ('freeze = "none"', "1: freeze: 'none' is none of any, own"),
        ('security-context = "a\\nb"', "1: security-context 'a\\nb': must be printable"),
        (f'security-context = "{"x" * 256}"', "1: security-context of 256 bytes is longer than"),
        ("spin = 1001", "1: spin 1001: must be from 0 to 1000 microseconds"),
        ("spin = -1", "1: spin -1: must be from 0 to 1000 microseconds"),
        ("security-context = 0", "1: security-context: must be text in quotes, not 0"),
        ('mount = ""', "1: mount: needs a directory"),
        ('mount = "/a\\nb"', "1: mount '/a\\nb': must be printable"),
        ('mount = "/a"\nmount = "/b"', "2: cannot overwrite a value"),
        ("devices = [\n'a',\n", "3: "),
        ("mount = /x", "1: invalid value (column 9)"),
        ("mount", "1: "),
    ],
)
def test_mistakes_have_a_place_and_a_reason(file: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_text(file, text)
    assert str(refused.value).startswith(f"{file}:{complaint}"), refused.value
    assert "\n" not in str(refused.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    (tmp_path / "latin1").write_bytes(b"# fine\nmount = '\xe4'\n")
    (tmp_path / "large").write_bytes(b"#" * (SIZE_MAX + 1))
    (tmp_path / "deep").write_text(f"a = {'[' * 5000}{']' * 5000}")
    for path, reason in {
        missing: "there is no such file",
        tmp_path: "cannot be read: Is a directory",
        tmp_path / "latin1": "is not UTF-8",
        tmp_path / "large": "is larger than",
        tmp_path / "deep": "too deep",
        tmp_path / "a\0b": "cannot be read",
    }.items():
        with pytest.raises(ConfigError, match=reason):
            load(["--config", str(path)])


def test_without_a_file_there_are_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", str(tmp_path / "missing"))
    assert load([]) == Settings()
    (tmp_path / "missing").write_text('mount = "/x"')
    assert load([]).mount == "/x"


@given(st.text(max_size=80) | st.lists(st.sampled_from(
    ["[", "]", "limits", "files", "=", '"', "'''", "\n", "mount", "{", "}", ",", ".", "1", "#", " "]
), max_size=30).map("".join))  # fmt: skip
def test_no_text_is_worse_than_a_mistake(text: str) -> None:
    try:
        entries = parse_entries(text, "f")
    except ConfigError as refused:
        complaint = str(refused)
    else:
        complaint = "f:"
        assert all(0 < entry.line <= text.count("\n") + 1 for entry in entries)
    assert complaint.startswith("f:")


def test_what_a_running_daemon_takes_over() -> None:
    new = Settings(mount="/x", devices=("a",), log_level="debug", limits=(("files", 1),))
    assert changed(Settings(), new) == (["devices", "log_level", "limits"], ["mount"])
    assert changed(new, new) == ([], [])


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [("", 0, "nothing is wrong with it"), ("mount = 1", 2, ":1: mount: must be text in quotes")],
)
def test_check_config(file: Path, text: str, status: int, said: str) -> None:
    file.write_text(text)
    command = [sys.executable, "-m", "binderd", "--check-config", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status
    assert said in (done.stderr if status else done.stdout)
    assert (done.stdout + done.stderr).count("\n") == 1


def test_print_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        config.parse(["--print-config"])
    assert not ended.value.code
    assert capsys.readouterr().out == example()
