# SPDX-License-Identifier: Apache-2.0
"""``mount -t binder``: by mount(8) itself, with the helpers where it looks for them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from binderd.mount_helper import parse_options
from channel.helpers import needs_fuse

if TYPE_CHECKING:
    from pathlib import Path

SECONDS_MAX = 60.0
# In a mount namespace of its own: the helpers lie in /sbin there, and nowhere else.
IN_A_SYSTEM = """
set -e
mount --make-rprivate /
mount -t tmpfs run /run
mount -t tmpfs work "$WORK"
mkdir "$WORK/upper" "$WORK/work" "$WORK/place"
sbin=$(realpath /sbin)
mount -t overlay -o "lowerdir=$sbin,upperdir=$WORK/upper,workdir=$WORK/work" overlay "$sbin"
helper() {
    echo "#!/bin/sh"
    echo "exec '$PYTHON' -P -c 'from binderd import mount_helper; exit(mount_helper.$1())' \"\\$@\""
}
helper main >/sbin/mount.binder
helper unmount >/sbin/umount.fuse.binderd
chmod 755 /sbin/mount.binder /sbin/umount.fuse.binderd
place=$WORK/place
"""

Run = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run_in_a_system(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["unshare", "--mount", "bash", "-c", IN_A_SYSTEM + script],
            env={**os.environ, "WORK": str(tmp_path), "PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )

    return run_in_a_system


ENDED = """
for _ in $(seq 300); do
    pgrep -f -- "--mount $place " >/dev/null || { echo ended; break; }
    sleep 0.1
done
"""


@needs_fuse
def test_mount_and_umount(run: Run) -> None:
    done = run(
        'mount -t binder binder "$place" -o max=4,nosuid\n'
        'ls "$place"; findmnt -n -o FSTYPE "$place"\n'
        f"{sys.executable} - <<'EOF'\n"
        "import fcntl, os\n"
        "fd = os.open(os.environ['WORK'] + '/place/binder-control', os.O_RDWR)\n"
        "def add(name):\n"
        "    fcntl.ioctl(fd, 0xC1086201, bytearray(name.ljust(264, b'\\0')))\n"
        "add(b'anbox-binder')\n"
        "try:\n"
        "    add(b'one-more')\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
        "EOF\n"
        'ls "$place/anbox-binder"\n'
        'umount "$place"\n'
        'findmnt "$place" || echo unmounted\n' + ENDED
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split()
    assert lines[:6] == [
        "binder",
        "binder-control",
        "binder_logs",
        "features",
        "hwbinder",
        "vndbinder",
    ]
    assert "fuse.binderd" in lines
    assert "No space left on device" in done.stdout
    assert lines[-2:] == ["unmounted", "ended"]


@needs_fuse
def test_an_fstab_line(run: Run) -> None:
    done = run(
        'echo "binder $place binder nofail,max=3 0 0" >"$WORK/fstab"\n'
        'mount --fstab "$WORK/fstab" "$place" && ls "$place" && umount "$place"\n' + ENDED
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "ended"


@needs_fuse
@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ('mount -t binder binder "$place" -o max=x', 1, "max=x: must be a number"),
        ('mount -t binder binder "$place" -o color=red', 1, "there is no option 'color=red'"),
        ('mount -t binder binder "$place" -o ro', 1, "option ro: clients must be able"),
        ('touch "$place/x"; mount -t binder binder "$place"', 32, "is not empty"),
        ('rmdir "$place"; mount -t binder binder "$place"', 32, ""),
        ('mount -t tmpfs x "$place"; mount -t binder binder "$place"', 32, "mount point already"),
    ],
)
def test_what_cannot_be_mounted(run: Run, command: str, status: int, said: str) -> None:
    done = run(f"set +e\n{command}\nexit $?")
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "count"),
    [([], 1 << 20), (["max=1"], 1), (["rw,nosuid,max=7,x-systemd.automount"], 7), (["a=b"], None)],
)
def test_options(words: list[str], count: int | None) -> None:
    if count is None:
        with pytest.raises(ValueError, match="there is no option 'a=b'"):
            parse_options(words, is_sloppy=False)
        count = 1 << 20
    assert parse_options(words, is_sloppy=True) == count
