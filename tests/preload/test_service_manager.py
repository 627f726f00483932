# SPDX-License-Identifier: Apache-2.0
"""An old-style service manager, its services and clients, on every kind of device."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

from preload import toolbox

if TYPE_CHECKING:
    from preload.conftest import Stage


def failure_of(stage: Stage, *arguments: str) -> str:
    command = [*toolbox.PRELOADED, stage.programs["service_client"], stage.path, *arguments]
    words = [str(word) for word in command]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=toolbox.PATIENCE, check=False
    )
    assert done.returncode == 1, done
    return done.stderr.rstrip("\n")


def wait_until_forgotten(stage: Stage, name: str) -> None:
    """The manager hears of a death when everybody does, not before."""
    deadline = time.monotonic() + toolbox.PATIENCE
    while (said := failure_of(stage, "call", name, "x")) != "no such service":
        assert said == "nobody is there"
        assert time.monotonic() < deadline


def test_services_come_and_go(stage: Stage) -> None:
    assert failure_of(stage, "call", "tea", "x") == "nobody is there"
    stage.start("service_manager")
    assert failure_of(stage, "call", "tea", "x") == "no such service"
    tea, coffee = (
        stage.start("service_client", "serve", "tea"),
        stage.start("service_client", "serve", "coffee"),
    )
    assert stage.run("service_client", "call", "tea", "with milk") == "with milk\n"
    assert stage.run("service_client", "call", "coffee", "") == "\n"
    watcher = stage.start("service_client", "watch", "tea", says="watching")
    tea.kill()
    assert watcher.rest() == "dead\n"
    wait_until_forgotten(stage, "tea")
    assert stage.run("service_client", "call", "coffee", "still") == "still\n"
    stage.start("service_client", "serve", "tea")
    assert stage.run("service_client", "call", "tea", "again") == "again\n"
    coffee.kill()


def test_a_service_replaces_one_of_the_same_name(stage: Stage) -> None:
    stage.start("service_manager")
    first = stage.start("service_client", "serve", "tea")
    stage.start("service_client", "serve", "tea")
    first.kill()
    assert stage.run("service_client", "call", "tea", "second") == "second\n"


def test_the_manager_s_death(stage: Stage) -> None:
    manager = stage.start("service_manager")
    stage.start("service_client", "serve", "tea")
    manager.kill()
    stage.start("service_manager")
    assert failure_of(stage, "call", "tea", "x") == "no such service"


def test_without_the_library(stage: Stage) -> None:
    """What it is for: the same program, unchanged, goes as far as the device allows."""
    command = [str(stage.programs["service_manager"]), str(stage.path)]
    if stage.name == "kernel":
        toolbox.Background(*command).kill()
        return
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=toolbox.PATIENCE, check=False
    )
    cannot = {"fuse": "become the context manager: Bad address"}.get(stage.name, "")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cannot ")
    assert cannot in done.stderr
