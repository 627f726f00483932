# SPDX-License-Identifier: Apache-2.0
"""What the daemon may be asked for and cannot have, and what it must say: a row each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from channel.namespaces import binderd, command, run

if TYPE_CHECKING:
    from pathlib import Path

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
