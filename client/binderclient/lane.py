# SPDX-License-Identifier: Apache-2.0
"""A lane: memory that a thread shares with binderd, through which its BINDER_WRITE_READs go.

docs/EXTENSION.md tells how it works.  What lies in it the daemon reads without a system call; what
lies elsewhere works as well, but takes one.  So this is where ``driver.WriteRead`` has its areas,
and where small payloads lie (``sending``).

Rules of this file: it must not know what travels in the buffers.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import time
import weakref
from typing import TYPE_CHECKING, Final

from binderwire.binder_abi import BINDER_WRITE_READ
from binderwire.extension_abi import (
    BINDERD_AGAIN,
    BINDERD_ENTER,
    BINDERD_LANE,
    BINDERD_LANE_SIZE_MAX,
    BINDERD_LEAVE,
    binderd_lane,
    binderd_slot,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderclient.driver import Driver

SIZE: Final = BINDERD_LANE_SIZE_MAX
PLACES: Final = 5632  # from here on there is room for payloads
RECORD: Final = binderd_slot.offset_of("write_size")  # where the slot's binder_write_read begins

_SPIN_NS: Final = 50_000  # so long is an answer looked for without sleeping
_TRUST: Final = 8  # so often in vain, then not for a while
_PAUSE: Final = 64  # so many times
_F_ADD_SEALS: Final = 1033
_F_SEAL_SHRINK: Final = 2
_MFD_ALLOW_SEALING: Final = 2
_CELLS_SIZE: Final = 16
_ASKED, _ANSWERED, _IS_WATCHED, _RESULT = range(4)  # cells
_NUMBERS: Final = 1 << 32

# Unlike Python's own it lets other threads run: the answer may have to come from one of them.
_libc: Final = ctypes.CDLL(None, use_errno=True)
_sched_yield: Final = _libc.sched_yield
_mmap: Final = _libc.mmap
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_mmap.restype = ctypes.c_void_p
_munmap: Final = _libc.munmap
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_madvise: Final = _libc.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_MAP_FIXED: Final = 0x10
_MAP_FAILED: Final = ctypes.c_void_p(-1).value
_PROTECTION: Final = mmap.PROT_READ | mmap.PROT_WRITE


class _Area(ctypes.c_char * SIZE):  # type: ignore[misc]
    """A lane's memory, which is unmapped when nobody has it any more."""

    def __hash__(self) -> int:
        return id(self)


_areas: Final[weakref.WeakSet[_Area]] = weakref.WeakSet()


def _map(fd: int) -> _Area:
    """Map a lane's memory. Not with Python's mmap module: that keeps a copy of the descriptor."""
    address = _mmap(None, SIZE, _PROTECTION, mmap.MAP_SHARED, fd, 0)
    if address is None or address == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    _madvise(address, SIZE, mmap.MADV_DONTFORK)  # a child is another thread
    area: _Area = _Area.from_address(address)
    weakref.finalize(area, _munmap, address, SIZE).atexit = False  # threads may still be in it
    _areas.add(area)
    return area


class Lane:
    """The calling thread's lane.

    Args:
        driver: the open device.

    Raises:
        OSError: there is none to be had.
    """

    __slots__ = (
        "_asked",
        "_cells",
        "_paused",
        "_result",
        "_trust",
        "address",
        "is_over",
        "octets",
    )

    def __init__(self, driver: Driver) -> None:
        memory = os.memfd_create("binder-lane", os.MFD_CLOEXEC | _MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory, SIZE)
            fcntl.fcntl(memory, _F_ADD_SEALS, _F_SEAL_SHRINK)
            area = _map(memory)
            self.address = ctypes.addressof(area)
            request = binderd_lane.build(memory=memory, size=SIZE, address=self.address)
            driver.control(BINDERD_LANE, bytearray(request))
        finally:
            os.close(memory)
        self.octets = memoryview(area).cast("B")
        self._cells = self.octets[:_CELLS_SIZE].cast("I")
        self._result = self.octets[:_CELLS_SIZE].cast("i")
        self._asked = 0
        self._trust = _TRUST
        self._paused = 0
        self.is_over = False  # has it ended? Then all goes through ioctls

    def write_read(self, driver: Driver, go_on: Callable[[], bool]) -> int:
        """Do the BINDER_WRITE_READ in the slot; return its errno, 0 if there is none.

        Args:
            go_on: asked before the thread sleeps; if it says no, that is EINTR.
        """
        while not self.is_over:
            number = self._asked = (self._asked + 1) % _NUMBERS
            try:
                self._cells[_ASKED] = number
                if not self._look(number):
                    error = self._sleep(driver, number, go_on)
                    if error == errno.EINVAL:  # the daemon has no such lane any more
                        self.is_over = True
                        break
                    if error:
                        return error
            except BaseException:  # of a signal handler: as after an ioctl nothing is under way
                if self._cells[_ASKED] == number:
                    self._sleep(driver, number, lambda: False)
                raise
            result: int = self._result[_RESULT]
            if result != -BINDERD_AGAIN:
                return -result
        return driver.call(BINDER_WRITE_READ, self.address + RECORD)

    def _look(self, number: int) -> bool:
        """Look for the answer for a moment; return whether it is there."""
        cells = self._cells
        if self._paused:
            self._paused -= 1
            return bool(cells[_ANSWERED] == number)
        end = time.monotonic_ns() + _SPIN_NS
        while cells[_ANSWERED] != number:
            if not cells[_IS_WATCHED]:
                return bool(cells[_ANSWERED] == number)
            if time.monotonic_ns() > end:
                self._trust -= 1
                if self._trust <= 0:
                    self._trust, self._paused = 1, _PAUSE
                return False
            _sched_yield()
        self._trust = _TRUST
        return True

    def _sleep(self, driver: Driver, number: int, go_on: Callable[[], bool]) -> int:
        """Wait for the answer in the kernel; return 0 once it is there, or an errno."""
        while self._cells[_ANSWERED] != number:
            error = driver.call(BINDERD_ENTER if go_on() else BINDERD_LEAVE, 0)
            if not error:
                return 0 if self._cells[_ANSWERED] == number else errno.EINVAL
            if error != errno.EINTR:
                return error
        return 0


def _take_places() -> None:
    """Put memory in the places of our parent's lanes, which a child does not have.

    Else something of the child's could come there, and would go when a lane is forgotten.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    for area in _areas:
        _mmap(ctypes.addressof(area), SIZE, _PROTECTION, flags, -1, 0)


os.register_at_fork(after_in_child=_take_places)
