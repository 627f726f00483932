# SPDX-License-Identifier: Apache-2.0
"""A binder client without a library: open, mmap, ioctl, nothing else.

It runs in processes of its own, so that a test can kill them while they are blocked in the device.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import sys

from binderwire import binder_abi as abi

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.argtypes = [ctypes.c_size_t, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mmap.restype = ctypes.c_size_t
_libc.munmap.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]

MAP_FAILED = (1 << 64) - 1
PAGE = mmap.PAGESIZE


def map_file(fd: int, size: int, offset: int = 0, flags: int = mmap.MAP_PRIVATE) -> int:
    """Map a file read-only; return the address."""
    address = _libc.mmap(0, size, mmap.PROT_READ, flags, fd, offset)
    if address == MAP_FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    return address


def anonymous(size: int) -> int:
    """Return the address of ``size`` fresh bytes."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = _libc.mmap(0, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    assert address != MAP_FAILED
    return address


def unmap(address: int, size: int) -> None:
    assert _libc.munmap(address, size) == 0


def protect(address: int, size: int, protection: int) -> None:
    assert _libc.mprotect(address, size, protection) == 0


def peek(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


def poke(address: int, data: bytes) -> None:
    ctypes.memmove(address, data, len(data))


class Device:
    """One open device file with its receive area."""

    def __init__(
        self, path: str, size: int = 1 << 20, flags: int = 0, sharing: int = mmap.MAP_PRIVATE
    ) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags)
        self.size = size
        self.address = map_file(self.fd, size, 0, sharing) if size else 0

    def ioctl(self, request: int, argument: bytes = b"") -> bytes:
        """Return the argument as the device left it.

        Raises:
            OSError: the ioctl failed.
        """
        buffer = bytearray(argument)
        fcntl.ioctl(self.fd, request, buffer)
        return bytes(buffer)

    def version(self) -> int:
        return struct.unpack("=i", self.ioctl(abi.BINDER_VERSION, bytes(4)))[0]

    def write_read(self, commands: bytes = b"", read_size: int = 0) -> bytes:
        """Return what a BINDER_WRITE_READ has read."""
        writing = ctypes.create_string_buffer(commands, max(len(commands), 1))
        reading = ctypes.create_string_buffer(max(read_size, 1))
        argument = abi.binder_write_read.pack(
            len(commands),
            0,
            ctypes.addressof(writing),
            read_size,
            0,
            ctypes.addressof(reading),
        )
        _, _, _, _, consumed, _ = abi.binder_write_read.unpack(
            self.ioctl(abi.BINDER_WRITE_READ, argument)
        )
        return reading.raw[:consumed]


def transaction(handle: int, data: bytes, *, one_way: bool = False) -> tuple[bytes, object]:
    """Return a BC_TRANSACTION and what must stay alive until it is written."""
    payload = ctypes.create_string_buffer(data, max(len(data), 1))
    body = abi.binder_transaction_data.build(
        target=handle,
        flags=abi.TF_ONE_WAY if one_way else 0,
        data_size=len(data),
        buffer=ctypes.addressof(payload),
    )
    return struct.pack("=I", abi.BC_TRANSACTION) + body, payload


def free_buffer(address: int) -> bytes:
    return struct.pack("=IQ", abi.BC_FREE_BUFFER, address)


def find(returns: bytes, word: int, record: object) -> object:
    """Return the payload of the first ``word`` in a BR_ stream."""
    at = returns.index(struct.pack("=I", word)) + 4
    return record.read(returns, at)  # type: ignore[attr-defined]


def outcome(function: object, *arguments: object) -> str:
    """Return the name of the errno that a call fails with, or ``ok``."""
    try:
        function(*arguments)  # type: ignore[operator]
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def say(*words: object) -> None:
    print(*words, flush=True)


def wait_for_line() -> str:
    return sys.stdin.readline()


_ROOM = 512  # bytes of a read buffer


def serve(device: Device) -> None:
    """Answer every call with nothing; never returns."""
    commands = struct.pack("=I", abi.BC_ENTER_LOOPER)
    while True:
        returns = device.write_read(commands, _ROOM)
        commands = b""
        if struct.pack("=I", abi.BR_TRANSACTION) in returns:
            found = find(returns, abi.BR_TRANSACTION, abi.binder_transaction_data)
            commands = free_buffer(found.buffer)  # type: ignore[attr-defined]
            if not found.flags & abi.TF_ONE_WAY:  # type: ignore[attr-defined]
                commands += struct.pack("=I", abi.BC_REPLY) + abi.binder_transaction_data.build()


def call(device: Device, handle: int = 0, data: bytes = b"") -> bool:
    """Make one call; return whether it was answered."""
    commands, _payload = transaction(handle, data)
    returns = b""
    while True:
        returns += device.write_read(commands, _ROOM)
        commands = b""
        if struct.pack("=I", abi.BR_REPLY) in returns:
            found = find(returns, abi.BR_REPLY, abi.binder_transaction_data)
            device.write_read(free_buffer(found.buffer))  # type: ignore[attr-defined]
            return True
        for word in (abi.BR_FAILED_REPLY, abi.BR_DEAD_REPLY):
            if struct.pack("=I", word) in returns:
                return False
