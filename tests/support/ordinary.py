# SPDX-License-Identifier: Apache-2.0
"""Being an ordinary user who may open /dev/fuse, as everybody may on most systems."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

USER: Final = 65534
OTHER: Final = 65533
_FUSERMOUNT: Final = "fusermount3"

# A mount namespace with a /dev/fuse of its own, until the standard input ends.
_STAGE: Final = """\
set -e
place=$(mktemp -d)
mount -t tmpfs -o mode=755 stage "$place"
mknod "$place/fuse" c 10 229
chmod 666 "$place/fuse"
mount --bind "$place/fuse" /dev/fuse
umount -l "$place"
rmdir "$place"
echo ready
read -r _ || true
"""


def why_not() -> str | None:
    """Return why no ordinary user's daemon can be had here, None if one can."""
    program = shutil.which(_FUSERMOUNT)
    if program is None:
        return f"needs {_FUSERMOUNT} (Debian's package fuse3)"
    if not os.stat(program).st_mode & stat.S_ISUID:
        return f"needs {_FUSERMOUNT} setuid root"
    if not os.path.exists("/dev/fuse"):
        return "needs /dev/fuse"
    if os.geteuid() and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs a /dev/fuse that everybody may open, or root"
    return None


class Stage:
    """Where an ordinary user's programs run; made by ``stage``.

    Args:
        pid: a process in its mount namespace; 0: it is our own, and we are that user.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def words(self, user: int = USER, *, no_new_privileges: bool = False) -> list[str]:
        """Return the words before a command that have a user run it there."""
        confined = ["setpriv", "--no-new-privs"] if no_new_privileges else []
        if not self._pid:
            return confined
        who = [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all"]
        return [*self.as_root(), "setpriv", *who, *confined]

    def as_root(self) -> list[str]:
        """Return the words before a command that have root run it there."""
        return ["nsenter", f"--target={self._pid}", "--mount"]

    @property
    def has_root(self) -> bool:
        """Can others be anybody but us there?"""
        return self._pid != 0


@contextmanager
def stage() -> Iterator[Stage]:
    """A place where an ordinary user may open /dev/fuse, for a while."""
    if os.geteuid():
        yield Stage(0)
        return
    command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _STAGE]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield Stage(process.pid)
        finally:
            assert process.stdin is not None
            process.stdin.close()
