# SPDX-License-Identifier: Apache-2.0
"""What stands in for an open device file: the ``Driver`` of a device without one."""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING, Final

from binderclient.driver import Driver
from binderclient.errors import DeviceError
from binderd.engine.errors import KernelErrno
from binderd.engine.limits import MAPPING_SIZE_MAX

if TYPE_CHECKING:
    from binderclient.testing.ioctls import Ioctls
    from binderclient.testing.process_state import ProcessState

_OPEN: Final = 0  # in place of a descriptor, of which only the sign is looked at
_CLOSED: Final = -1


class EngineDriver(Driver):
    """A device of a ``Binder``.

    Args:
        world: the engine that is its driver.
        process: the process that opens it.
        context: the device's name.
        path: what ``binderclient`` calls it.
        map_size: bytes of the receive area.

    Raises:
        DeviceError: the process is dead, or nothing can be mapped.
    """

    def __init__(
        self, world: Ioctls, process: ProcessState, context: str, path: str, map_size: int
    ) -> None:
        self._world = world
        self._process = process
        self._context = context
        super().__init__(path, map_size)

    def _open(self) -> int:
        if self._process.is_dead:
            raise DeviceError(errno.ESRCH, "its process is dead", self.path)
        return _OPEN

    def _check_version(self) -> None:
        """Do nothing: the engine speaks this version."""

    def _map(self, size: int) -> mmap.mmap:
        size = min(size, MAPPING_SIZE_MAX) // mmap.PAGESIZE * mmap.PAGESIZE
        if not size:
            raise DeviceError(errno.EINVAL, "less than a page to map", self.path)
        try:
            self._device = self._world.open(self._process, self._context, size)
        except KernelErrno as error:
            raise DeviceError(error.errno, "cannot open it", self.path) from None
        return self._device.arena.pages

    def call(self, request: int, address: int) -> int:
        """Do an ioctl; return its errno, 0 if there is none; arguments as ``Driver.call``."""
        if self.fd < 0:
            return errno.EBADF
        return self._world.ioctl(self._device, request, address)

    def wake_all(self) -> None:
        """Have every thread that waits in a read return with nothing."""
        self._world.flush(self._device)

    def close(self) -> None:
        """Close it; idempotent. Its pages stay as long as a view of them is in use."""
        if self.fd < 0:
            return
        self.fd = _CLOSED
        self._world.close(self._device)
        self._pages, self._mapping = memoryview(b""), None

    def forget(self) -> None:
        """For a forked child: close nothing, as its copy of the engine is not the parent's."""
        self.fd = _CLOSED

    def _close_number(self, number: int) -> None:
        """Do nothing: there is no descriptor."""
