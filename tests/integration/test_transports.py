# SPDX-License-Identifier: Apache-2.0
"""What the daemon says, or does instead, where it cannot have what it was asked for.

"This machine cannot" lets ``--transport auto`` go on; "that was wrong" ends it with one sentence.
The machine is changed for real: in a mount namespace whose /dev lacks what a case takes away.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from binderd.channel.mounts import mount_at
from binderd.linux import mount as linux_mount
from channel.helpers import needs_fuse, running
from channel.namespaces import binderd, command, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_fuse

HAS_CUSE: Final = os.path.exists("/dev/cuse")
PREFIX: Final = f"binderd-transport-{os.getpid()}/"
NO_FUSE: Final = "there is no /dev/fuse ('modprobe fuse'; a container needs --device /dev/fuse)"
NO_CUSE: Final = "there is no /dev/cuse ('modprobe cuse'; a container needs --device /dev/cuse)"
EXTENSION: Final = "--transport fuse does for clients that know docs/EXTENSION.md"
# Whatever is not what a case expects.
TAILS: Final = (NO_FUSE, NO_CUSE, EXTENSION, "--passthrough", "start as root", "name another")


class Case(NamedTuple):
    """One thing that cannot be."""

    name: str
    says: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    mount: str = ""  # below the place, or absolute
    devices: tuple[str, ...] = ("fuse",)
    before: str = ""  # in the namespace; PLACE is the directory


WRONG: Final = [
    Case("etc", ("/etc is not empty", "name another"), mount="/etc"),
    Case(
        "typo",
        ("/typo (No such file or directory): make it first", "name another"),
        mount="typo/binderfs",
    ),
    Case(
        "tmpfs",
        ("is a mount point already (tmpfs): unmount it, or name another",),
        before='mkdir "$PLACE/m"; mount -t tmpfs x "$PLACE/m"',
    ),
    Case("file", ("which is not a directory", "name another"), before='touch "$PLACE/m"'),
    Case(
        "below a file",
        ("(Not a directory)", "name another"),
        before='touch "$PLACE/file"',
        mount="file/binderfs",
    ),
    Case(
        "read-only",
        ("(Read-only file system)", "name another"),
        before='mount -t tmpfs -o ro x "$PLACE"',
    ),
    Case(
        "full",
        ("(No space left on device)", "free some space", "name another"),
        before='mount -t tmpfs -o nr_inodes=1 x "$PLACE"',
    ),
    Case(
        "unbindable",
        ("(Invalid argument)", "name another"),
        before='mount -t tmpfs x "$PLACE"; mount --make-unbindable "$PLACE"',
    ),
    Case(
        "sys",
        ("cannot make /sys/binderfs (Operation not permitted)", "name another"),
        mount="/sys/binderfs",
    ),
    Case(
        "no right to fuse",
        ("no right to open /dev/fuse", "start as root", "--device /dev/fuse"),
        devices=("fuse",),
        before="mkdir /dev/x; mount -t tmpfs -o nodev x /dev/x; cp -a /dev/fuse /dev/x; "
        "mount --bind /dev/x/fuse /dev/fuse",
    ),
]
MISSING: Final = [
    Case("neither", (NO_FUSE, NO_CUSE), devices=()),
    Case("no fuse, fuse wanted", (NO_FUSE,), ("--transport=fuse",), devices=()),
    Case("no fuse, both wanted", (NO_CUSE,), ("--transport=both",), devices=()),
    Case("no cuse, cuse wanted", (NO_CUSE,), ("--transport=cuse",)),
    Case("no cuse, both wanted", (NO_CUSE,), ("--transport=both",)),
    Case("nothing maps, no fuse", (NO_FUSE, NO_CUSE), ("--passthrough=off",), devices=()),
    Case(
        "fuse is a file",
        ("/dev/fuse is not a device", "modprobe fuse", NO_CUSE),
        devices=(),
        before="touch /dev/fuse",
    ),
    Case(
        "no driver",
        (NO_FUSE, NO_CUSE),
        devices=(),
        before="mknod /dev/fuse c 10 77",  # nobody's number
    ),
    Case("without proc", ("cannot use /proc", "mount it"), before="umount -l /proc"),
]


def ends(case: Case, place: Path, stage: Path) -> str:
    """Run the daemon; return its one line."""
    mount = place / (case.mount or "m")
    options = ["--device-prefix", PREFIX, *case.arguments]
    before = f"PLACE='{place}'; {case.before}"
    words = command(stage, case.devices, before, *binderd("--mount", mount, *options))
    status, text = run(words)
    assert status == 1, text
    assert text.startswith("binderd: "), text
    assert text.count("\n") == 1, text
    for part in case.says:
        assert part in text
    said = " ".join(case.says)
    assert [tail for tail in TAILS if tail in text and tail not in said] == [], text
    return text


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
