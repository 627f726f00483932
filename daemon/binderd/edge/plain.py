# SPDX-License-Identifier: Apache-2.0
"""The calls of the request path, in Python; ``native.c`` is the same.

Compiled Python pays for such a call with what a call takes in general: arguments that become
objects, an exception where there is nothing to read, ctypes. A request makes some ten of them.

A client can keep calls that reach into it from coming back. Whoever makes one says right before
whose memory it is, in a place that the watchdog sees (``heartbeat.py``): those here do it by
themselves, as minus the number of the thread.
"""

from __future__ import annotations

import ctypes
import os
from errno import ECONNABORTED, ENODEV, ENOENT, ENOTCONN
from struct import Struct
from typing import Final

from binderd.linux import process_vm
from binderd.linux.maps import FileId, Long, is_own_copy

# Results of ``read_frame`` that are no frame size.
WOULD_BLOCK: Final = -1
ENDED: Final = 0

AHEAD_MAX: Final = 4096  # bytes; so much ``read_ahead`` brings along at most

# What a read can fail with besides EAGAIN (nothing to do) and EINTR (Python tries again by itself):
#   ENOENT        the request was given up while it was being copied to us: as if it had never been
#   ENODEV        the file system was unmounted: the end
#   ECONNABORTED  somebody aborted the connection (umount -f, or through sysfs): the end
_ENDS: Final = (ENODEV, ECONNABORTED)

# What a write can fail with because nobody waits for that reply any more:
#   ENOENT            the request was given up
#   ENODEV, ENOTCONN, ECONNABORTED  the connection has ended; the next read says so
_NOBODY_WAITS: Final = (ENOENT, ENODEV, ENOTCONN, ECONNABORTED)

_BEATS: Final = 0
_SUBJECT: Final = 1
_PLACE_SIZE: Final = 16  # bytes
_OFFSETS_END: Final = 1 << 63  # file offsets end there
_RESULT_MAX: Final = 1 << 24  # bytes; nobody asks for more in one go

_file: Final = Struct("=QII")  # inode number, major and minor number of the device
pack_file: Final = _file.pack

# What ``read_ahead`` has brought along: of whom, from where.
_ahead = (0, 0, b"")
_cells = memoryview(bytearray(_PLACE_SIZE)).cast("q")


def show(place: memoryview) -> None:
    """Have the watchdog see what follows.

    Args:
        place: shared with it; the first two numbers of eight bytes: how many requests have begun,
            and whose memory is touched.

    Raises:
        ValueError: it is too small.
    """
    global _cells
    octets = place.cast("B")
    if len(octets) < _PLACE_SIZE:
        raise ValueError("there is no room for two numbers")
    _cells = octets[:_PLACE_SIZE].cast("q")


def beat() -> None:
    """A request begins, or another turn of the loop; nobody is its subject yet."""
    _cells[_SUBJECT] = 0
    _cells[_BEATS] += 1


def enter(subject: int) -> None:
    """The next calls reach into that client."""
    _cells[_SUBJECT] = subject


def read_frame(fd: int, buffer: bytearray) -> int:
    """Read the next request of a channel; never waits.

    Args:
        fd: non-blocking.
        buffer: as large as the largest request.

    Returns:
        Its size in bytes, WOULD_BLOCK, or ENDED when there will be no more.

    Raises:
        OSError: anything else.
    """
    while True:
        try:
            return os.readv(fd, [buffer])
        except BlockingIOError:
            return WOULD_BLOCK
        except OSError as error:
            if error.errno in _ENDS:
                return ENDED
            if error.errno != ENOENT:
                raise


def write_frame(fd: int, frame: bytes) -> None:
    """Write one frame; it goes out whole or, where nobody waits for it any more, not at all.

    Raises:
        OSError: the kernel does not understand the frame.
    """
    try:
        os.write(fd, frame)
    except OSError as error:
        if error.errno not in _NOBODY_WAITS:
            raise


def read_memory(tid: int, fd: int, address: int, size: int) -> bytes:
    """Return bytes of a client's memory: all of them, or none if any cannot be had.

    Args:
        tid: a thread of the client's.
        fd: of the client's /proc/PID/mem.
        address: from 0 on.
        size: in bytes.
    """
    if address >= _OFFSETS_END or size > _RESULT_MAX:
        return b""
    enter(-tid)
    try:
        octets = os.pread(fd, size, address)
    except OSError:
        return b""
    return octets if len(octets) == size else b""


def write_memory(tid: int, fd: int, address: int, octets: bytes | bytearray) -> bool:
    """Store bytes in a client's memory; return whether all were; arguments as ``read_memory``."""
    if address >= _OFFSETS_END:
        return False
    enter(-tid)
    try:
        return os.pwrite(fd, octets, address) == len(octets)
    except OSError:
        return False


def copy_memory(tid: int, address: int, size: int, target: int) -> bool:
    """Copy bytes of a thread's memory into our own; return whether all were.

    Unlike the others it honours the protection of pages.

    Args:
        address: in the client.
        size: in bytes.
        target: the address here, which must be that of as many bytes.
    """
    enter(-tid)
    return process_vm.copy(tid, address, size, target) == size


def read_ahead(tid: int, address: int, size: int, start: int, count: int) -> bytes:
    """Do what ``read_memory`` does, and bring along what will be asked for next, perhaps.

    That is kept for ``take_ahead``, if all of it can be had. In one call the two take less than in
    two. Like ``copy_memory`` it honours the protection of pages.

    Args:
        tid: the thread.
        address: of what is wanted.
        size: of that, in bytes.
        start: the address of what is brought along.
        count: how many bytes of it, AHEAD_MAX at most.

    Returns:
        What is wanted: all of it, or nothing if any cannot be had.
    """
    global _ahead
    _ahead = (0, 0, b"")
    if size > _RESULT_MAX or count > AHEAD_MAX:
        return b""
    enter(-tid)
    wanted, along = process_vm.read_two(tid, (address, size), (start, count))
    if len(along) == count:
        _ahead = (tid, start, along)
    return wanted if len(wanted) == size else b""


def take_ahead(tid: int, address: int, size: int, target: int) -> bool:
    """Put what the latest ``read_ahead`` has brought along into our own memory, once.

    Arguments as ``copy_memory``.

    Returns:
        False if that was something else, or less: nothing has happened.
    """
    global _ahead
    of, start, octets = _ahead
    if not 0 < size <= len(octets) or start != address or of != tid:
        return False
    ctypes.memmove(target, octets, size)
    _ahead = (0, 0, b"")
    return True


def store_over(maps: int, fd: int, file: bytes, address: int, size: int, source: int) -> bool:
    """Store bytes in a client's private mapping of a file, if there is one.

    Args:
        maps: of the client's /proc/PID/maps.
        fd: of its /proc/PID/mem.
        file: which, as ``pack_file`` packs it.
        address: of the first byte, in the client.
        size: how many, from 1 on.
        source: where they are here.

    Returns:
        False if all of that could not be done; also where the mapping is in pieces, or the kernel
        has only the text of the table: then nothing was tried.
    """
    inode, major, minor = _file.unpack(file)
    try:
        if not is_own_copy(maps, FileId(major, minor, inode), address, address + size, 1):
            return False
        return os.pwrite(fd, ctypes.string_at(source, size), address) == size
    except (Long, OSError):
        return False


def nice_of(tid: int) -> int:
    """Return the nice value of a thread, 0 if it is gone; asking needs nothing that can run out."""
    try:
        return os.getpriority(os.PRIO_PROCESS, tid)
    except OSError:
        return 0
