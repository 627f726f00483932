# SPDX-License-Identifier: Apache-2.0
"""Showing directories of a second FUSE file system inside the first.

Both are served by this very process, and every path that leads through one of them is a request to
it. So the two steps block until both are being served: a thread must take them, while the loop goes
on. A file system cannot be mounted in several places by its own server, but its directories can be
copied (``open_tree``) and moved; its first place is one of the final ones and is gone by then.

Unmounting the first file system lazily, as ``fuse_mount.py`` does, takes what is shown in it along,
and so does the next daemon's with what a dead one has left. Nothing here may know what is shown.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from errno import ESTALE
from typing import TYPE_CHECKING, Final

from binderd.channel.blocking import in_thread
from binderd.channel.fuse_mount import FSTYPE, SOURCE, detach, mount_options, open_device
from binderd.channel.mounts import hold
from binderd.linux import mount as linux_mount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binderd.channel.fuse_mount import FuseMount

# Nobody changes anything in there: the kernel refuses it without asking us.
_FLAGS: Final = (
    linux_mount.MS_RDONLY | linux_mount.MS_NOSUID | linux_mount.MS_NODEV | linux_mount.MS_NOEXEC
)


class Submounts:
    """A second file system's channel, and its places in the first.

    Args:
        mount: the first file system.
        names: directories, of the same names in both.

    Raises:
        StartError: /dev/fuse cannot be opened.
    """

    __slots__ = ("_names", "_root", "fd")

    def __init__(self, mount: FuseMount, names: Sequence[str]) -> None:
        self._root = mount.path
        self._names = names
        self.fd = open_device()  # the loop that serves it closes it
        # A request may be taken back between the moment when it can be read and the read, which
        # would then wait for the next one, and everybody else with it.
        os.set_blocking(self.fd, False)

    async def mount(self) -> None:
        """Mount the second file system; its requests can be read from then on.

        Waits until the first one is served.

        Raises:
            OSError: it cannot be mounted; the channel is closed.
        """
        try:
            await in_thread(self._mount)
        except OSError:
            os.close(self.fd)
            raise

    def _mount(self) -> None:
        place = self._place(self._names[0])
        linux_mount.mount(SOURCE, place, FSTYPE, _FLAGS, mount_options(self.fd))

    async def spread(self) -> None:
        """Show its directories, each in its place, and nothing else of it.

        Waits until both file systems are served.

        Raises:
            OSError: it cannot be done; nothing of it is shown then.
        """
        await in_thread(self._spread)

    def _spread(self) -> None:
        with ExitStack() as stack:
            whole = stack.enter_context(hold(self._place(self._names[0])))
            if whole is None or whole.entry.fstype != FSTYPE:
                raise OSError(ESTALE, "somebody else has mounted or unmounted there", self._root)
            copies = []
            try:
                for name in self._names:
                    copies.append(linux_mount.open_below_mounts(f"{whole.root}/{name}"))
                    stack.callback(os.close, copies[-1])
            finally:
                whole.unmount(detach)
            for name, copy in zip(self._names, copies, strict=True):
                linux_mount.move_mount(copy, self._place(name))

    def _place(self, name: str) -> str:
        return f"{self._root}/{name}"
