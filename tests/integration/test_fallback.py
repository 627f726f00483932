# SPDX-License-Identifier: Apache-2.0
"""``--transport auto`` where there is CUSE: when it is taken instead of files, and when not."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

import pytest

from channel.helpers import SECONDS_MAX
from channel.namespaces import binderd, command, line_with, ready, started
from integration.transports import NO_FUSE, PREFIX, WRONG, Case, ends

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not os.path.exists("/dev/cuse") or os.geteuid() != 0, reason="needs root and /dev/cuse"
)

BOTH: Final = ("fuse", "cuse")


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    stage = tmp_path / "stage"
    stage.mkdir()
    return stage


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    return place


@pytest.mark.parametrize("case", WRONG[:3], ids=lambda case: case.name)
def test_what_is_wrong_is_not_answered_with_devices(case: Case, place: Path, stage: Path) -> None:
    ends(case._replace(devices=BOTH), place, stage)


def test_what_is_missing_is_made_up_for_by_cuse(place: Path, stage: Path) -> None:
    options = ["--device=binder", "--device-prefix", PREFIX, "--mode=640"]
    words = command(stage, ("cuse",), "", *binderd("--mount", place / "m", *options))
    with started(words) as daemon:
        assert NO_FUSE in line_with(daemon, ": taking CUSE")
        line_with(daemon, "ready:")
        status = os.stat(f"/proc/{daemon.pid}/root/dev/{PREFIX}binder")
        assert status.st_mode & 0o777 == 0o640
        daemon.terminate()
        assert daemon.wait(SECONDS_MAX) == 0
    assert list(place.iterdir()) == []


def test_a_taken_name_behind_a_missing_transport(place: Path, stage: Path) -> None:
    """Both reasons are told."""
    name = f"binderd-taken-{os.getpid()}"
    case = Case(
        "taken",
        (NO_FUSE, f"/dev/{name}binder is there already"),
        ("--device=binder", "--device-prefix", name),
        devices=("cuse",),
        before=f"touch /dev/{name}binder",
    )
    ends(case, place, stage)


def test_only_a_node_that_is_known_to_be_ours_is_removed(place: Path, stage: Path) -> None:
    """Where we make nodes ourselves a dead daemon leaves them; others' look alike."""
    options = ("--transport=cuse", "--device=binder", "--device-prefix", PREFIX)
    again = " ".join(map(str, binderd("--mount", place / "m", *options)))
    kill = (
        f"{again} 2>$PLACE/log & pid=$!; {ready(place / 'log')}; "
        f"kill -9 $pid; wait $pid || true; test -c /dev/{PREFIX}binder"
    )
    words = binderd("--mount", place / "m", *options)
    with started(command(stage, ("cuse",), f"PLACE='{place}'; {kill}", *words)) as daemon:
        line_with(daemon, "ready:")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(SECONDS_MAX) == 0
    (place / "log").unlink()
    case = Case(
        "foreign node",
        ("a node without a device, and not known to be ours: remove it",),
        options,
        devices=("cuse",),
        before=f"mkdir /dev/{PREFIX}; mknod /dev/{PREFIX}binder c 240 4000",
    )
    ends(case, place, stage)
