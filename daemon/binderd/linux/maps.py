# SPDX-License-Identifier: Apache-2.0
"""/proc/PID/maps: what an address space has where, and where it has mapped a file.

A question has three outcomes, as in ``proc.py``; where the table is so long that it takes a while
there is a fourth, ``Long``. Since Linux 6.11 the kernel answers for one area (PROCMAP_QUERY),
before that there is only the text of all.
"""

from __future__ import annotations

import fcntl
import os
import struct
from errno import ENOENT, ENOTTY
from typing import TYPE_CHECKING, Final, NamedTuple

from binderd.linux.proc import gone
from binderwire.ioc import IOC_READ, IOC_WRITE, ioc

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

# struct procmap_query of <linux/fs.h>: size, flags, address; then the answer: start, end, vma
# flags, page size, file offset, inode, device major and minor; then name and build id, which we
# do not want.
_procmap_query = struct.Struct("=QQQQQQQQQIIIIQQ")
_unpack_query: Final = _procmap_query.unpack
PROCMAP_QUERY: Final = ioc(IOC_READ | IOC_WRITE, "f", 17, _procmap_query.size)
_COVERING_OR_NEXT: Final = 0x10
_SHARED: Final = 0x08  # among the flags of an area
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


class Seen(NamedTuple):
    """What an address space has at some address."""

    start: int  # first byte
    end: int  # behind the last byte
    is_shared: bool  # or would a write be its own?
    device: tuple[int, int]  # major and minor number of the file system, 0 and 0 if none


class Long(Exception):
    """An address space has more mappings than may be looked at in one go."""


def find_first(
    maps: int, files: Sequence[FileId], most: int | None = None, taken: Collection[int] = ()
) -> tuple[int, Area] | None:
    """Return which of some files an address space has mapped, and where first; None: none of them.

    Pieces that lie behind one another, in memory and in the file, count as one: a client that calls
    mprotect or madvise on a part of its mapping splits it without meaning to.

    Args:
        maps: a descriptor of its /proc/PID/maps.
        files: a file counts only if none before it is mapped.
        most: how many mappings may be looked at; None: all.
        taken: where mappings start that do not count.

    Raises:
        Long: there are more, and the first of the files was not among those.
    """
    found: list[Area | None] = [None] * len(files)
    passed: Area | None = None  # the latest that does not count
    for file, area in _areas(maps, most):
        for which, wanted in enumerate(files):
            joined = found[which]
            if file != wanted:
                continue
            if area.start in taken:
                passed = area
            elif passed is not None and _continues(passed, area):
                passed = Area(passed.start, area.end, passed.offset)
            elif joined is None:
                found[which] = area
            elif _continues(joined, area):
                found[which] = Area(joined.start, area.end, joined.offset)
        first = found[0]
        if first is not None and area.start > first.end:
            break
    for which, whole in enumerate(found):
        if whole is not None:
            return which, whole
    return None


def find_each(maps: int, file: FileId, most: int) -> list[Area]:
    """Return where an address space has a file mapped, highest first; arguments as ``find_first``.

    Raises:
        Long: there are more mappings than may be looked at.
    """
    found: list[Area] = []
    for one, area in _areas(maps, most):
        if one != file:
            continue
        if found and _continues(found[-1], area):
            found[-1] = Area(found[-1].start, area.end, found[-1].offset)
        else:
            found.append(area)
    return found[::-1]


def is_mapped(maps: int, file: FileId, address: int) -> bool:
    """Return whether an address space has ``file`` at ``address``; ``maps`` as above."""
    try:
        found = _ask(maps, address, 0)
    except OSError as error:
        if error.errno != ENOTTY:
            raise
        return any(
            one == file and area.start <= address < area.end for one, area in parse_areas(maps)
        )
    return found is not None and found[0] == file


def is_own_copy(maps: int, file: FileId, start: int, end: int, most: int) -> bool:
    """Return whether an address space shows ``file`` privately in all of a range.

    Args:
        start, end: the first byte, and behind the last one.
        most: in how many pieces it may be.

    Raises:
        Long: it is in more.
    """
    try:
        for _ in range(most):
            query = _query(maps, start, 0)
            if query is None:
                return False
            _, _, _, _, behind, flags, _, _, inode, major, minor, *_ = _unpack_query(query)
            if flags & _SHARED or FileId(major, minor, inode) != file:
                return False
            if behind >= end:
                return True
            start = behind
    except OSError as error:
        if error.errno != ENOTTY:
            raise
        return _is_own_copy_as_told(maps, file, start, end)
    raise Long


def _is_own_copy_as_told(maps: int, file: FileId, start: int, end: int) -> bool:
    """Do that before Linux 6.11, where there is only the text."""
    for found, area, is_shared in _parse(maps, None):
        if area.start <= start < area.end:
            if is_shared or found != file:
                return False
            if area.end >= end:
                return True
            start = area.end
    return False


def mapping_at(maps: int, address: int) -> Seen | None:
    """Return what an address space has at an address, None for nothing.

    Raises:
        OSError: ENOTTY before Linux 6.11, where that would take reading all of the text.
    """
    query = _query(maps, address, 0)
    if query is None:
        return None
    _, _, _, start, end, flags, _, _, _, major, minor, *_ = _procmap_query.unpack(query)
    return Seen(start, end, bool(flags & _SHARED), (major, minor))


def is_alive(maps: int) -> bool:
    """Return whether any process has the address space still; ``maps`` as above.

    Such a descriptor belongs to the address space that was there when it was opened, and not to
    what its process runs later on.
    """
    try:
        _ask(maps, 0, _COVERING_OR_NEXT)
    except ProcessLookupError:
        return False
    except OSError as error:
        if error.errno != ENOTTY:
            raise
        return os.pread(maps, 1, 0) != b""  # before Linux 6.11 there is only the text
    return True


def _areas(maps: int, most: int | None) -> Iterator[tuple[FileId, Area]]:
    """Yield the areas, lowest first.

    All are asked for, also those of no file. The kernel would skip them, but in one go, however
    many they are: with 60,000 it keeps a processor from everybody else for 12 ms.

    Raises:
        Long: there are more than ``most``.
    """
    try:
        found = _ask(maps, 0, _COVERING_OR_NEXT)
    except OSError as error:
        if error.errno != ENOTTY:
            raise
        # Before Linux 6.11 there is only the text.
        yield from parse_areas(maps, most)
        return
    count = 0
    while found is not None:
        yield found
        count += 1
        if most is not None and count >= most:
            raise Long
        found = _ask(maps, found[1].end, _COVERING_OR_NEXT)


def _ask(maps: int, address: int, flags: int) -> tuple[FileId, Area] | None:
    """Ask the kernel for one area; far cheaper than text where there are many.

    Args:
        flags: of PROCMAP_QUERY.

    Raises:
        OSError: ENOTTY, this kernel cannot be asked.
    """
    query = _query(maps, address, flags)
    if query is None:
        return None
    _, _, _, start, end, _, _, offset, inode, major, minor, *_ = _procmap_query.unpack(query)
    return FileId(major, minor, inode), Area(start, end, offset)


def _query(maps: int, address: int, flags: int) -> bytearray | None:
    query = bytearray(_procmap_query.size)
    _procmap_query.pack_into(
        query, 0, len(query), flags, address, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    )
    try:
        fcntl.ioctl(maps, PROCMAP_QUERY, query)
    except OSError as error:
        if error.errno == ENOENT:
            return None
        raise
    return query


def parse_areas(maps: int, most: int | None = None) -> Iterator[tuple[FileId, Area]]:
    """Yield the areas from the text of an open /proc/PID/maps, lowest first.

    Raises:
        Long: there are more than ``most``.
    """
    for file, area, _ in _parse(maps, most):
        yield file, area


def _parse(maps: int, most: int | None) -> Iterator[tuple[FileId, Area, bool]]:
    """Yield file, area and whether that is shared; as ``parse_areas``."""
    count = 0
    for line in _lines(maps):
        span, access, offset, device, inode, *_ = line.split(None, 5)
        major, minor = (int(part, 16) for part in device.split(b":"))
        start, end = (int(part, 16) for part in span.split(b"-"))
        file, area = FileId(major, minor, int(inode)), Area(start, end, int(offset, 16))
        yield file, area, access.endswith(b"s")
        count += 1
        if most is not None and count >= most:
            raise Long
    if not count:
        raise gone()  # an address space is never empty


def _lines(maps: int) -> Iterator[bytes]:
    """Yield the lines; not through the file's position, which others may share (``fetcher``)."""
    position, rest = 0, b""
    while piece := os.pread(maps, _READ_SIZE, position):
        position += len(piece)
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _continues(area: Area, following: Area) -> bool:
    """Whether an area goes on in another, in memory and in the file."""
    distance = following.start - area.start
    return following.start == area.end and following.offset - area.offset == distance
