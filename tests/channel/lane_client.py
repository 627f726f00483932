# SPDX-License-Identifier: Apache-2.0
"""Lanes, used as they should be and as they should not, for clients of these tests."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import time

from rawclient import Device  # noqa: TC002 - for who imports all of this

from binderwire import binder_abi as abi
from binderwire import extension_abi as ext

SIZE = ext.BINDERD_LANE_SIZE_MAX
WRITE, READ, DATA = 64, 4096, 8192  # where what is in a lane's memory
SPIN_SECONDS = 50e-6
_libc = ctypes.CDLL(None, use_errno=True)


def memory(size: int = SIZE, seals: int = fcntl.F_SEAL_SHRINK) -> int:
    fd = os.memfd_create("lane", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def make(device: Device, fd: int, size: int = SIZE, address: int = 0, flags: int = 0) -> None:
    device.ioctl(
        ext.BINDERD_LANE,
        ext.binderd_lane.build(memory=fd, flags=flags, size=size, address=address),
    )


def enter(device: Device, request: int = ext.BINDERD_ENTER) -> None:
    fcntl.ioctl(device.fd, request, 0)


class Lane:
    """The calling thread's lane of a device; instead of that, for ``serve`` and ``call``."""

    def __init__(self, device: Device, flags: int = 0) -> None:
        self.device = device
        fd = memory(2 * SIZE)
        # What is read beyond the lane's end must not land in something else of this process.
        self.mapping = mmap.mmap(fd, 2 * SIZE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.mapping))
        make(device, fd, SIZE, self.address, flags)
        os.close(fd)
        self.octets = memoryview(self.mapping)
        self.cells = self.octets[:16].cast("I")

    def ask(self, commands: bytes = b"", read_size: int = 0) -> int:
        """Ask for a BINDER_WRITE_READ; return its number."""
        self.octets[WRITE : WRITE + len(commands)] = commands
        abi.binder_write_read.pack_into(
            self.octets,
            16,
            len(commands),
            0,
            self.address + WRITE,
            read_size,
            0,
            self.address + READ,
        )
        self.cells[0] = number = (self.cells[0] + 1) % (1 << 32)
        return number

    def is_answered(self, number: int) -> bool:
        return self.cells[1] == number

    def look(self, number: int, seconds: float = SPIN_SECONDS) -> bool:
        """Look for the answer for so long, as long as the daemon looks; return whether it came."""
        end = time.monotonic() + seconds
        while not self.is_answered(number) and self.cells[2] and time.monotonic() < end:
            _libc.sched_yield()
        return self.is_answered(number)

    @property
    def result(self) -> int:
        return self.octets[:16].cast("i")[3]

    def returned(self) -> bytes:
        consumed = abi.binder_write_read.unpack_from(self.octets, 16)[4]
        return bytes(self.octets[READ : READ + consumed])

    def write_read(self, commands: bytes = b"", read_size: int = 0) -> bytes:
        number = self.ask(commands, read_size)
        while True:
            if not self.look(number):
                enter(self.device)
            assert self.is_answered(number)
            if self.result != -ext.BINDERD_AGAIN:
                break
            self.cells[0] = number = (self.cells[0] + 1) % (1 << 32)
        if self.result:
            raise OSError(-self.result, os.strerror(-self.result))
        return self.returned()


def in_lane(lane: Lane, data: bytes, handle: int = 0) -> bytes:
    """Return a BC_TRANSACTION whose data is in the lane's memory."""
    lane.octets[DATA : DATA + len(data)] = data
    body = abi.binder_transaction_data.build(
        target=handle, data_size=len(data), buffer=lane.address + DATA
    )
    return abi.BC_TRANSACTION.to_bytes(4, "little") + body
