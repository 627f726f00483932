# SPDX-License-Identifier: Apache-2.0
"""The examples, run as the README says, and against each other."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from binderclient.blocking import Device
from binderclient.parcel import Parcel
from client.managers import ManagerProcess
from client.programs import EXAMPLES, PATIENCE, compiled, run

if TYPE_CHECKING:
    from pathlib import Path

    from client.conftest import Bench

LINES_MAX: Final = 100
OLD_STYLE: Final = ("service_manager.c", "service_client.c")  # they bring a parcel format along
OLD_STYLE_LINES_MAX: Final = 175


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: str(path.name))
def test_examples_are_short(path: Path) -> None:
    if path.is_file():
        limit = OLD_STYLE_LINES_MAX if path.name in OLD_STYLE else LINES_MAX
        assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


def test_python_service_and_client(bench: Bench, tmp_path: Path) -> None:
    manager = ManagerProcess(bench.device, tmp_path)
    service = subprocess.Popen(
        [sys.executable, EXAMPLES / "echo_service.py", bench.device],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        said = run(sys.executable, EXAMPLES / "echo_client.py", "grüß dich", bench.device)
        assert said == "grüß dich\n"
    finally:
        service.send_signal(signal.SIGTERM)
        printed, _ = service.communicate(timeout=PATIENCE)
        manager.end()
    assert "says 'grüß dich'" in printed
    assert service.returncode == 0


@pytest.mark.parametrize("name", ["echo_trio.py", "echo_asyncio.py"])
def test_a_service_and_its_clients_in_a_loop(bench: Bench, tmp_path: Path, name: str) -> None:
    manager = ManagerProcess(bench.device, tmp_path)
    try:
        said = run(sys.executable, EXAMPLES / name, bench.device)
        assert sorted(said.split()) == ["one", "three", "two"]
    finally:
        manager.end()


def test_files_both_ways(bench: Bench, tmp_path: Path) -> None:
    manager = ManagerProcess(bench.device, tmp_path)
    example = EXAMPLES / "file_service.py"
    service = subprocess.Popen([sys.executable, example, "serve", bench.device])
    try:
        text = tmp_path / "text"
        text.write_text("pear\napple\nfig\n", encoding="utf-8")
        said = run(sys.executable, example, text, bench.device)
        assert said == "3 lines\napple\nfig\npear\n"
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(PATIENCE) == 0
        manager.end()


def test_c_server_with_c_and_python_clients(bench: Bench, tmp_path: Path) -> None:
    client, server = compiled("echo_client", tmp_path), compiled("echo_server", tmp_path)
    nobody = subprocess.run(
        [client, bench.device, "x"], capture_output=True, timeout=PATIENCE, check=False
    )
    assert (nobody.returncode, nobody.stderr) == (1, b"nobody is there\n")
    process = subprocess.Popen([server, bench.device], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert run(client, bench.device, "hello") == "hello\n"
        with Device(bench.device) as device:
            request = Parcel(b"from Python")
            with device.context_manager.call(1, request) as reply:
                assert bytes(reply) == b"from Python"
    finally:
        process.kill()
        process.communicate()
