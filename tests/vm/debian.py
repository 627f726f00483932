# SPDX-License-Identifier: Apache-2.0
"""A Debian system for the machine: made once per user with mmdebstrap, as root.

It has a systemd, and the packages that ours depends on, so that ours can be installed without a
network. It lives in ${XDG_CACHE_HOME:-~/.cache}/binderd-vm/SUITE-PACKAGES, where the last part
stands for the list of packages.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from vm import kernel
from vm.errors import MachineError

SUITE: Final = "bookworm"
PACKAGES: Final = (
    *("systemd", "systemd-sysv", "dbus", "kmod", "procps", "mount", "util-linux"),
    *("python3", "python3-construct", "python3-pyfuse3", "python3-trio"),
)
_MAKER: Final = Path(__file__).resolve().parents[1] / "install" / "debian.sh"


def obtain() -> Path:
    """Return the folder of the system; make it if there is none.

    Raises:
        MachineError: that is not possible.
    """
    name = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:12]
    place = kernel.cache_folder() / f"{SUITE}-{name}"
    if place.is_dir():
        return place
    if os.geteuid():
        raise MachineError(f"making a Debian system in {place} needs root")
    if not shutil.which("mmdebstrap"):
        raise MachineError("not installed: mmdebstrap; 'make test-systemd' as root installs it")
    place.parent.mkdir(parents=True, exist_ok=True)
    kernel.say(f"making a Debian {SUITE} system, some 200 MB, once (one to two minutes)")
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=place.parent) as unfinished:
        tree = Path(unfinished, "tree")
        done = subprocess.run(
            [_MAKER, SUITE, tree, ",".join(PACKAGES)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            text = done.stderr.decode(errors="replace").strip()
            raise MachineError(f"mmdebstrap failed:\n{text[-2000:]}")
        tree.chmod(0o755)
        tree.rename(place)
    return place
