# SPDX-License-Identifier: Apache-2.0
"""The kernel's control files of FUSE connections, wherever they are mounted, if at all."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_PLACE: Final = "/sys/fs/fuse/connections"


def abort(number: int) -> None:
    """Abort a connection, as an administrator can; who does not see it mounted mounts it first.

    Args:
        number: minor number of its file system.
    """
    if os.path.ismount(_PLACE):
        Path(f"{_PLACE}/{number}/abort").write_text("1")
        return
    with tempfile.TemporaryDirectory(prefix="binderd-fusectl-") as place:
        subprocess.run(["mount", "-t", "fusectl", "none", place], check=True)
        try:
            Path(f"{place}/{number}/abort").write_text("1")
        finally:
            subprocess.run(["umount", place], check=True)
