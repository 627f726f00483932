# SPDX-License-Identifier: Apache-2.0
"""Questions to /proc: whose thread is this, and where has a process mapped a file?

A question has three outcomes. It is answered; or what was asked about is gone, which every function
here and in ``identity.py`` reports as ``ProcessLookupError``; or it could not be asked, for want of
a descriptor or memory or because somebody forbids it: any other ``OSError``, from which nothing
follows.

A place is where /proc shows a process or thread: ``/proc/TID`` as long as a request of that thread
is open, for its number is its own till then; afterwards the path of a descriptor that was opened
meanwhile. Nothing here may know what the answers are for.
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
_READ_SIZE: Final = 1 << 16


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


def place_of(tid: int) -> str:
    """Return the place of a thread that has a request open."""
    return f"/proc/{tid}"


def open_in(place: str, name: str, flags: int) -> int:
    """Open a file of /proc; return the descriptor, which the caller closes.

    Args:
        place: of a process or thread.
        name: of the file, beneath it.
        flags: of open(2).
    """
    try:
        return os.open(f"{place}/{name}", flags | os.O_CLOEXEC)
    except FileNotFoundError:
        raise gone() from None


def read_in(place: str, name: str) -> bytes:
    """Return what a file of /proc says; arguments as ``open_in``."""
    fd = open_in(place, name, os.O_RDONLY)
    try:
        pieces = []
        while piece := os.read(fd, _READ_SIZE):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def exists_in(place: str, name: str) -> bool:
    """Return whether there is a file of /proc; arguments as ``open_in``."""
    try:
        os.stat(f"{place}/{name}")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def gone() -> ProcessLookupError:
    """Return what is raised where the owner of a number has gone."""
    return ProcessLookupError(ESRCH, os.strerror(ESRCH))


def status_field(place: str, name: bytes) -> bytes:
    """Return what the status of a process or thread says under ``name``, which has the colon."""
    for line in read_in(place, "status").splitlines():
        if line.startswith(name):
            return line[len(name) :]
    return b""


def process_of(tid: int) -> int:
    """Return the process id (tgid) of the thread ``tid``, both in our pid namespace."""
    return int(status_field(place_of(tid), b"Tgid:"))


def find_mapping(maps: int, file: FileId) -> Area | None:
    """Return where an address space has ``file`` mapped first, None if it has not.

    Pieces that lie behind one another, in memory and in the file, count as one: a client that calls
    mprotect or madvise on a part of its mapping splits it without meaning to.

    Args:
        maps: a descriptor of its /proc/PID/maps.
    """
    return _first_joined(_areas(maps, file, 0))


def is_mapped(maps: int, file: FileId, address: int) -> bool:
    """Return whether an address space has ``file`` at ``address``; ``maps`` as above."""
    area = next(_areas(maps, file, address), None)
    return area is not None and area.start <= address < area.end


def is_alive(maps: int) -> bool:
    """Return whether anybody has the address space still; ``maps`` as above.

    Such a descriptor belongs to the address space that was there when it was opened, and not to
    what its process runs later on.
    """
    query = bytearray(_procmap_query.size)
    _procmap_query.pack_into(
        query, 0, len(query), _COVERING_OR_NEXT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    )
    try:
        fcntl.ioctl(maps, PROCMAP_QUERY, query)
    except OSError as error:
        if error.errno == ENOTTY:  # before Linux 6.11 there is only the text
            return os.pread(maps, 1, 0) != b""
        if error.errno == ESRCH:
            return False
        if error.errno != ENOENT:
            raise
    return True


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
            if error.errno == ENOENT:
                return  # nothing further up
            raise
        _, _, _, start, end, _, _, offset, inode, major, minor, *_ = _procmap_query.unpack(query)
        if (major, minor, inode) == file:
            yield Area(start, end, offset)
        address = end


def parse_areas(maps: int, file: FileId) -> Iterator[Area]:
    """Yield the areas of ``file`` from the text of an open /proc/PID/maps, lowest first."""
    os.lseek(maps, 0, os.SEEK_SET)
    with open(maps, "rb", closefd=False) as lines:
        is_empty = True
        for line in lines:
            is_empty = False
            span, _, offset, device, inode, *_ = line.split(None, 5)
            if int(inode) != file.inode:
                continue
            major, minor = (int(part, 16) for part in device.split(b":"))
            if (major, minor) == file[:2]:
                start, end = (int(part, 16) for part in span.split(b"-"))
                yield Area(start, end, int(offset, 16))
    if is_empty:
        raise gone()  # an address space is never empty


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
