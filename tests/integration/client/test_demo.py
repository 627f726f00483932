# SPDX-License-Identifier: Apache-2.0
"""The demo: what it says when it cannot, its tables, and a short show from beginning to end."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from binderclient.demo import __main__ as demo
from binderclient.demo import workload
from binderclient.demo.daemon import why_not
from binderclient.demo.report import Check, Progress, Tally, checks_text, table_text
from binderclient.demo.workload import CorruptMessage
from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND: Final = [sys.executable, "-m", "binderclient.demo"]
PATIENCE: Final = 60.0


def needs_mount() -> None:
    missing = why_not()
    if missing is not None:
        pytest.skip(missing)


def report(client: int, *, deaths: int = 0, samples: dict[str, list[int]]) -> dict[str, object]:
    numbers = {"bytes": 10, "deaths": deaths, "refused": 0}
    return {"client": client, "samples": samples, "errors": [], **numbers}


# What can be tested without a device


def test_messages_are_checked() -> None:
    body = workload.body_of(3, 9, 1000)
    assert len(body) == 1000
    assert body != workload.body_of(3, 10, 1000)
    parcel = Parcel()
    workload.write_message(parcel, 3, 9, body)
    data = bytes(parcel)
    message, view = workload.read_message(Parcel(data))
    assert (message.client, message.sequence, bytes(view)) == (3, 9, body)
    for position in (8, len(data) - 1):  # another number, another byte
        broken = bytearray(data)
        broken[position] ^= 1
        with pytest.raises(CorruptMessage):
            workload.read_message(Parcel(broken))


def test_the_largest_payloads_are_made_by_some_clients_only() -> None:
    assert max(workload.sizes_for(0)) == 512 << 10
    assert max(workload.sizes_for(1)) == 64 << 10
    assert workload.sizes_for(1)[0] == 0


def test_the_table_has_a_row_for_each_kind() -> None:
    tally = Tally()
    tally.add(report(0, samples={"0": [100] * 99 + [5000], "one-way": [7]}))
    tally.add(report(1, samples={"65536": [1500]}, deaths=1))
    tally.add(report(1, samples={}, deaths=2))
    assert (tally.calls, tally.total("deaths"), tally.bytes) == (102, 2, 20)
    text = table_text(tally.rows(2.0))
    assert [line.split()[0] for line in text.splitlines()] == ["payload", "0", "64", "one-way"]
    assert "100 µs" in text
    assert "1.50 ms" in text


def test_what_failed_stands_out() -> None:
    text = checks_text([Check("this", True, ""), Check("that", False, "it did not")])
    assert text.splitlines() == ["  ok    this", "FAILED  that: it did not"]


def test_progress_is_rewritten_on_a_terminal_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        progress = Progress(stream)
        progress.show("one")
        progress.show("2")
        progress.say("done")
    assert plain.getvalue() == "one\n2\ndone\n"
    assert terminal.getvalue() == "\rone\r2  \ndone\n"


@pytest.mark.parametrize(
    ("uid", "fuse", "text"), [(1000, True, "needs fusermount3"), (0, False, "/dev/fuse is missing")]
)
def test_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    uid: int,
    fuse: bool,
    text: str,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(os.path, "exists", lambda _path: fuse)
    assert demo.main([]) == 1
    captured = capsys.readouterr().err
    assert text in captured
    assert captured.count("\n") == 1


# The show


@pytest.fixture
def workplace(tmp_path: Path) -> dict[str, str]:
    needs_mount()
    return {**os.environ, "TMPDIR": str(tmp_path)}


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a process; it ends with the block, whatever a test finds."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=PATIENCE)


def test_a_short_show(workplace: dict[str, str]) -> None:
    result = subprocess.run(
        [*COMMAND, "--seconds", "2", "--json"],
        capture_output=True,
        text=True,
        env=workplace,
        timeout=PATIENCE,
        check=False,
    )
    outcome = json.loads(result.stdout)
    assert [check for check in outcome["checks"] if not check["held"]] == [], result.stderr
    assert outcome["passed"]
    assert outcome["errors"] == []
    assert outcome["deaths"] == 6
    assert {row["what"] for row in outcome["rows"]} >= {"0 B", "512 KiB", "one-way", "nested"}
    assert "Traceback" not in result.stderr
    assert result.returncode == 0
    assert list(Path(workplace["TMPDIR"]).iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_takes_everything_away(
    workplace: dict[str, str], number: signal.Signals
) -> None:
    with running(COMMAND, workplace) as show:
        assert show.stderr is not None
        for line in show.stderr:
            if "clients call" in line:
                break
        show.send_signal(number)
        _, text = show.communicate(timeout=PATIENCE)
    assert show.returncode == 128 + number
    assert "Traceback" not in text
    assert list(Path(workplace["TMPDIR"]).iterdir()) == []
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    assert workplace["TMPDIR"] not in mounts


def test_serving_until_interrupted(workplace: dict[str, str]) -> None:
    mount = f"{workplace['TMPDIR']}/served"
    with running([*COMMAND, "--serve", "--mount", mount], workplace) as serving:
        assert serving.stderr is not None
        assert "is there, with a service manager" in serving.stderr.readline()
        command = [sys.executable, "-m", "binderclient", "--device", f"{mount}/binder", "--json"]
        listed = subprocess.check_output([*command, "list"], timeout=PATIENCE)
        assert json.loads(listed) == ["manager"]
        serving.send_signal(signal.SIGINT)
        _, text = serving.communicate(timeout=PATIENCE)
    assert serving.returncode == 0, text
    assert not Path(mount).exists()


def test_many_clients_wait_for_room(workplace: dict[str, str]) -> None:
    """More than the receive area of one server has room for: refused, sent again, no error."""
    result = subprocess.run(
        [*COMMAND, "--seconds", "2", "--clients", "64", "--json"],
        capture_output=True,
        text=True,
        env=workplace,
        timeout=10 * PATIENCE,
        check=False,
    )
    outcome = json.loads(result.stdout)
    assert [check for check in outcome["checks"] if not check["held"]] == [], result.stderr
    assert outcome["errors"] == []
    assert result.returncode == 0
