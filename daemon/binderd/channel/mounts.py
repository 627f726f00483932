# SPDX-License-Identifier: Apache-2.0
"""One mount looked at closely: which is it, and does anybody serve it?

Theory of operation. A path says little about a mount: others may lie on top of it or beneath, in
sight or not, and mountinfo lists them all alike. So a place is opened (O_PATH, which asks no file
system), and the kernel tells the number of the mount that was reached.

Whether somebody serves a FUSE file system only its connection knows, and asking one that is alive
but stuck may take for ever, in a sleep that no signal ends. So a process that has nothing else to
do asks: ENOTCONN comes at once, and no answer in time means that it must be left alone.

Nothing here may know what is mounted.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import contextmanager, suppress
from errno import ECONNABORTED, ENOTCONN, ESTALE
from typing import TYPE_CHECKING, Final, NoReturn

from binderd.linux import pidfd
from binderd.linux.mountinfo import MountEntry, mount_id_of, read_mounts
from binderd.linux.proc import path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE: Final = 2.0  # seconds that a file system which is alive may take before it is left alone
_ERRORS_OF_THE_DEAD: Final = (ENOTCONN, ECONNABORTED)
_DESCRIPTORS_END: Final = 1 << 20
_unanswered: Final[set[int]] = set()  # children that may still ask


def mount_at(path: str) -> MountEntry | None:
    """Return what is mounted on top at ``path`` (absolute, without symbolic links), if anything.

    Raises:
        OSError: it cannot be told.
    """
    with hold(path) as mount:
        return mount.entry if mount is not None else None


class HeldMount:
    """A mount that stays what it is as long as it is held; made by ``hold``."""

    __slots__ = ("_fd", "_path", "entry")

    def __init__(self, path: str, fd: int, entry: MountEntry) -> None:
        self._path = path
        self._fd = fd
        self.entry = entry

    @property
    def root(self) -> str:
        """A path that leads to its root, whatever has been mounted on top."""
        return path_of(self._fd)

    def is_dead(self) -> bool:
        """Return whether it is of FUSE and nobody serves it any more; may take some seconds."""
        child = os.fork()
        if not child:
            _ask(self._fd)
        with pidfd.opened_process(child) as exited:
            poll = select.poll()
            poll.register(exited, select.POLLIN)
            if not poll.poll(_PATIENCE * 1000):
                os.kill(child, signal.SIGKILL)  # in vain until it has its answer: not waited for
                _unanswered.add(child)
                return False
            _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) in _ERRORS_OF_THE_DEAD

    def unmount(self, detach: Callable[[str], None]) -> bool:
        """Take it out of the tree; False if another is on top by now.

        Args:
            detach: unmounts what is on top at a path.

        Raises:
            OSError: it was not done.
        """
        with hold(self._path) as top:
            if top is None or top.entry != self.entry:
                return False
            detach(self._path)
            return True


@contextmanager
def hold(path: str) -> Iterator[HeldMount | None]:
    """Hold what is mounted on top at ``path``; None if nothing is, or there is no such file.

    Args:
        path: absolute, without symbolic links.

    Raises:
        OSError: it cannot be told.
    """
    for child in [child for child in _unanswered if os.waitpid(child, os.WNOHANG)[0]]:
        _unanswered.remove(child)
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        entry = _entry_of(path, fd)
        yield HeldMount(path, fd, entry) if entry is not None else None
    finally:
        os.close(fd)


def _entry_of(path: str, fd: int) -> MountEntry | None:
    """Return the mount whose root is ``path``, None if that is not the root of any."""
    mount_id = mount_id_of(fd)
    parent = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
    try:
        if mount_id == mount_id_of(parent):
            return None
    finally:
        os.close(parent)
    for entry in read_mounts():
        if entry.mount_id == mount_id:
            return entry
    raise OSError(ESTALE, "it was unmounted at the same moment", path)


def _ask(fd: int) -> NoReturn:
    """Ask the file system anything; end with the error that it gives."""
    status = 0
    with suppress(BaseException):
        os.closerange(0, fd)  # a reader that waits for their end must not wait for us
        os.closerange(fd + 1, _DESCRIPTORS_END)
        try:
            os.fstatvfs(fd)
        except OSError as error:
            status = error.errno or 0
    os._exit(status)
