# SPDX-License-Identifier: Apache-2.0
"""Questions to /proc: whose thread is this, and where has a process mapped a file?

Nothing here may know what the answers are for.
"""

from __future__ import annotations

import fcntl
import os
import struct
from errno import ENOENT, ENOTTY, ESRCH
from typing import TYPE_CHECKING, Final, NamedTuple

from binderwire.ioc import IOC_READ, IOC_WRITE, ioc

if TYPE_CHECKING:
    from collections.abc import Iterator

# struct procmap_query of <linux/fs.h>: size, flags, address; then the answer: start, end, vma
# flags, page size, file offset, inode, device major and minor; then name and build id, which we
# do not want.
_procmap_query = struct.Struct("=QQQQQQQQQIIIIQQ")
PROCMAP_QUERY: Final = ioc(IOC_READ | IOC_WRITE, "f", 17, _procmap_query.size)
_COVERING_OR_NEXT: Final = 0x10
_FILE_BACKED: Final = 0x20


class FileId(NamedTuple):
    """Which file: the device number of its file system and the inode number."""

    major: int
    minor: int
    inode: int


class Area(NamedTuple):
    """One stretch of a process' address space that shows a file."""

    start: int  # first byte
    end: int  # behind the last byte
    offset: int  # where in the file ``start`` is, in bytes


def file_id(fd: int) -> FileId:
    """Return what /proc/PID/maps calls an open file."""
    status = os.fstat(fd)
    return FileId(os.major(status.st_dev), os.minor(status.st_dev), status.st_ino)


def process_of(tid: int) -> int:
    """Return the process id (tgid) of the thread ``tid``, both in our pid namespace.

    Raises:
        OSError: ESRCH, there is no such thread.
    """
    try:
        with open(f"/proc/{tid}/status", "rb") as status:
            for line in status:
                if line.startswith(b"Tgid:"):
                    return int(line[5:])
    except FileNotFoundError:
        pass
    raise OSError(ESRCH, os.strerror(ESRCH))


def belongs_to(tid: int, pid: int) -> bool:
    """Return whether ``tid`` is a thread of the process ``pid``; cheaper than ``process_of``."""
    try:
        os.stat(f"/proc/{pid}/task/{tid}")
    except OSError:
        return False
    return True


def find_mapping(pid: int, file: FileId) -> Area | None:
    """Return where the process ``pid`` has ``file`` mapped first, None if it has not.

    Pieces that lie behind one another, in memory and in the file, count as one: a client that calls
    mprotect or madvise on a part of its mapping splits it without meaning to.
    """
    try:
        maps = os.open(f"/proc/{pid}/maps", os.O_RDONLY)
    except OSError:
        return None  # the process is gone
    try:
        return _first_joined(_areas(maps, file, 0))
    finally:
        os.close(maps)


def is_mapped(pid: int, file: FileId, address: int) -> bool:
    """Return whether the process ``pid`` has ``file`` at ``address``."""
    try:
        maps = os.open(f"/proc/{pid}/maps", os.O_RDONLY)
    except OSError:
        return False
    try:
        area = next(_areas(maps, file, address), None)
        return area is not None and area.start <= address < area.end
    finally:
        os.close(maps)


def _areas(maps: int, file: FileId, address: int) -> Iterator[Area]:
    """Yield the areas of ``file`` that end behind ``address``, lowest first."""
    try:
        yield from _query_areas(maps, file, address)
    except OSError as error:
        if error.errno != ENOTTY:
            raise
        # Before Linux 6.11 there is only the text.
        yield from (area for area in parse_areas(maps, file) if area.end > address)


def _query_areas(maps: int, file: FileId, address: int) -> Iterator[Area]:
    """Ask the kernel for one area after the other; far cheaper than text where there are many."""
    query = bytearray(_procmap_query.size)
    flags = _COVERING_OR_NEXT | _FILE_BACKED
    while True:
        _procmap_query.pack_into(
            query, 0, len(query), flags, address, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
        )
        try:
            fcntl.ioctl(maps, PROCMAP_QUERY, query)
        except OSError as error:
            if error.errno in {ENOENT, ESRCH}:
                return  # nothing further up, or the process has ended
            raise
        _, _, _, start, end, _, _, offset, inode, major, minor, *_ = _procmap_query.unpack(query)
        if (major, minor, inode) == file:
            yield Area(start, end, offset)
        address = end


def parse_areas(maps: int, file: FileId) -> Iterator[Area]:
    """Yield the areas of ``file`` from the text of an open /proc/PID/maps, lowest first."""
    with open(maps, "rb", closefd=False) as lines:
        for line in lines:
            span, _, offset, device, inode, *_ = line.split(None, 5)
            if int(inode) != file.inode:
                continue
            major, minor = (int(part, 16) for part in device.split(b":"))
            if (major, minor) == file[:2]:
                start, end = (int(part, 16) for part in span.split(b"-"))
                yield Area(start, end, int(offset, 16))


def _first_joined(areas: Iterator[Area]) -> Area | None:
    joined: Area | None = None
    for area in areas:
        if joined is None:
            joined = area
        elif area.start == joined.end and area.offset - joined.offset == area.start - joined.start:
            joined = joined._replace(end=area.end)
        else:
            break
    return joined
