# SPDX-License-Identifier: Apache-2.0
"""What the daemon says, or does instead, where it cannot have what it was asked for.

"This machine cannot" lets ``--transport auto`` go on; "that was wrong" ends it with one sentence.
The machine is changed for real: in a mount namespace whose /dev lacks what a case takes away.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from binderd.channel.mounts import mount_at
from binderd.linux import mount as linux_mount
from channel.helpers import needs_fuse, running
from integration.transports import HAS_CUSE, MISSING, PREFIX, WRONG, Case, ends

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_fuse


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


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.name)
@pytest.mark.parametrize("transport", ["auto", "fuse"])
def test_what_is_wrong_is_said_alone(case: Case, transport: str, place: Path, stage: Path) -> None:
    devices = (*case.devices, "cuse") if HAS_CUSE else case.devices
    arguments = ("--transport", transport)
    ends(case._replace(devices=devices, arguments=arguments), place, stage)
    assert not os.path.exists(f"/dev/{PREFIX}")


@pytest.mark.parametrize("case", MISSING, ids=lambda case: case.name)
def test_what_is_missing_is_named_with_what_to_do(case: Case, place: Path, stage: Path) -> None:
    ends(case, place, stage)
    assert list(place.iterdir()) == [], "nothing was made on the way"


@pytest.mark.parametrize("arguments", [(), ("--passthrough", "off")])
def test_a_served_place_is_never_answered_with_devices(
    place: Path, stage: Path, arguments: tuple[str, ...]
) -> None:
    with running(place / "m") as first:
        case = Case("served", ("another binderd serves", "name another"), arguments)
        devices = ("fuse", "cuse") if HAS_CUSE else ("fuse",)
        text = ends(case._replace(devices=devices), place, stage)
        assert text.endswith("stop it, or name another directory with --mount\n")
        assert "binder" in os.listdir(place / "m"), "the first one goes on"
        assert first.end() == 0


def test_a_foreign_mount_stays_as_it_is(place: Path, stage: Path) -> None:
    """The same in our own namespace, where it would be gone for good."""
    (place / "m").mkdir()
    linux_mount.mount("tmpfs", str(place / "m"), "tmpfs", 0, "")
    try:
        (place / "m" / "file").touch()
        ends(Case("tmpfs", ("is a mount point already (tmpfs)", "name another")), place, stage)
        assert os.listdir(place / "m") == ["file"]
    finally:
        linux_mount.unmount(str(place / "m"), 0)
    assert mount_at(str(place / "m")) is None
