# SPDX-License-Identifier: Apache-2.0
"""The directory below the mount: replaced where it was there before, so that nothing dead stays.

Whether a dead mount really stays in other namespaces depends on the kernel; that nothing *can* stay
does not: the namespace here keeps a mount that no longer hears of ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from channel.helpers import SECONDS_MAX, needs_fuse, running

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_fuse

UNSHARE = ["unshare", "--mount", "--propagation", "unchanged"]
# Answers each line of its input with the names that it sees, or with what is wrong.
LOOK = """
mount --make-rslave /
mount --make-private "$1"
echo ready
while read -r _; do ls "$1" 2>&1 | tr '\\n' ' '; echo; done
"""


def test_a_namespace_that_kept_a_dead_mount_sees_the_new_one(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o711)
    os.chown(place, 12, 34)
    os.setxattr(place, "trusted.test", b"kept")
    # The directory above is what sandboxes receive new mounts through.
    subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
    try:
        subprocess.run(["mount", "--make-shared", tmp_path], check=True)
        with running(place) as daemon:
            sandbox = subprocess.Popen(
                [*UNSHARE, "bash", "-ec", LOOK, "look", place],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )  # fmt: skip
            assert sandbox.stdin is not None
            assert sandbox.stdout is not None
            assert sandbox.stdout.readline() == "ready\n"
            assert daemon.end() == 0

        def look() -> str:
            assert sandbox.stdin is not None
            assert sandbox.stdout is not None
            sandbox.stdin.write("\n")
            sandbox.stdin.flush()
            return sandbox.stdout.readline()

        assert "not connected" in look(), "it has kept the dead mount"
        with running(place) as daemon:
            assert "hwbinder" in look()
            assert daemon.end() == 0
        sandbox.stdin.close()
        sandbox.wait(SECONDS_MAX)
        sandbox.stdout.close()
        status = os.stat(place)
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o711, 12, 34)
        assert os.getxattr(place, "trusted.test") == b"kept"
        assert os.listdir(tmp_path) == ["place"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_what_a_killed_daemon_has_made_goes_with_the_next(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with running(place) as daemon:
        daemon.process.kill()
        daemon.process.wait(SECONDS_MAX)
        with running(place) as successor:
            assert successor.end() == 0
    assert not place.exists()


def test_a_directory_that_is_refused_is_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").touch()
    before = os.stat(place)
    command = [sys.executable, "-m", "binderd", "--mount", place, "--transport", "fuse"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert (refused.returncode, "is not empty" in refused.stderr) == (1, True)
    assert os.path.samestat(before, os.stat(place))
    assert os.listdir(tmp_path) == ["place"]
