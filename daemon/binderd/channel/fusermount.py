# SPDX-License-Identifier: Apache-2.0
"""Mounting as an ordinary user: libfuse's ``fusermount3``, which is setuid root, does it for us.

It mounts on directories that its user may write to, for the processes of that user and group alone,
and unmounts what that user has mounted. Nothing here may know what is mounted.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from errno import EPERM, ETIMEDOUT
from typing import TYPE_CHECKING, Final

from binderd.channel.errors import StartError, explain
from binderd.linux import scm_rights

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM: Final = "fusermount3"
_PATIENCE: Final = 20.0  # seconds that it may take
_CHANNEL_SIZE: Final = 1  # bytes that come with the descriptor
# The kernel checks permissions by itself, with the modes and owners that we show.
_OPTIONS: Final = "nosuid,nodev,noexec,default_permissions"


class Fusermount:
    """How an ordinary user mounts.

    Args:
        name: what is to be shown as source and, behind ``fuse.``, as type of the file system.

    Raises:
        StartError: the program is missing.
    """

    __slots__ = ("_fd", "_options", "_program")

    can_look_below = False  # can directories be opened below what is mounted on them?

    def __init__(self, name: str) -> None:
        program = shutil.which(PROGRAM)
        if program is None:
            raise StartError(
                f"an ordinary user needs {PROGRAM} to mount, and there is none: install it "
                "(Debian's package fuse3), or start as root"
            )
        self._program = program
        self._options = f"fsname={name},subtype={name},{_OPTIONS}"
        self._fd = -1

    def open_directory(self, path: str) -> int:
        """Return a descriptor of a directory.

        Raises:
            OSError: it cannot be opened.
        """
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def mount(self, path: str) -> int:
        """Mount a new file system; return its channel, which the loop that serves it closes.

        Raises:
            StartError: it was not done.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours:
            with theirs:
                arguments = ["-o", self._options, "--", path]
                try:
                    self._run(arguments, _FUSE_COMMFD=str(theirs.fileno()), passed=theirs.fileno())
                except OSError as error:
                    advice = self._advice() if error.errno == EPERM else ""
                    raise StartError(explain(error, f"cannot mount on {path}", advice)) from None
            _, fds = scm_rights.receive(ours, _CHANNEL_SIZE, 1)
        if not fds:
            raise StartError(f"cannot mount on {path}: {self._program} gives us no channel")
        self._fd = fds[0]
        return self._fd

    def unmount(self, path: str) -> None:
        """Take what is mounted there out of the tree, also while it is in use.

        Raises:
            OSError: it was not done.
        """
        self._run(["-u", "-z", "--", path])

    def close(self) -> None:
        """Close the channel that was made; only where nothing serves it."""
        if self._fd >= 0:
            os.close(self._fd)

    def _advice(self) -> str:
        status = os.stat(self._program)
        if status.st_uid or not status.st_mode & stat.S_ISUID:
            return f"{self._program} is not setuid root: install fuse3 again, or start as root"
        return (
            "name a directory of your own with --mount, or start as root; where programs gain no "
            "rights (NoNewPrivileges=, some containers) only root can mount"
        )

    def _run(self, arguments: Sequence[str], passed: int = -1, **environment: str) -> None:
        try:
            done = subprocess.run(
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_PATIENCE,
                check=False,
                pass_fds=[passed] if passed >= 0 else [],
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is for us
            )
        except subprocess.TimeoutExpired:
            raise OSError(ETIMEDOUT, f"{PROGRAM} does not end") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().replace("\n", "; ")
            raise OSError(EPERM, said or f"{PROGRAM} ended with status {done.returncode}")
