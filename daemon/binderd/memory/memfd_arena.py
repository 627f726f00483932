# SPDX-License-Identifier: Apache-2.0
"""The receive buffer of one open file: a memfd that the client maps through FUSE passthrough.

The daemon has the same pages mapped shared and writable, so what it writes is what the client
reads. A client can write there, too (it may map the file shared and writable), so nothing that
the daemon relies on may live in these pages or be read back from them.

Where the kernel has no mmap for the device, the memfd itself is handed over (``shared_fd``).

The file is sparse: a page exists from the first delivery into it until ``trim`` gives it back.
When to trim is the business of ``shrinker.py``.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from binderd.engine.ports import Mapping, NoAnswer, NotYet, ReceiverArena
from binderd.heartbeat import enter
from binderd.linux.maps import Long, file_id, find_each, find_first, is_mapped
from binderd.linux.memory_map import give_back, map_file, unmap
from binderd.linux.proc import exists_in, gone, path_of
from binderd.memory.remote_access import Locating

if TYPE_CHECKING:
    from collections.abc import Iterable

    from binderd.engine.ports import Facade, OpenFile
    from binderd.linux.maps import Area, FileId
    from binderd.memory.client_process import AddressSpace
    from binderd.memory.presence import Trust
    from binderd.memory.remote_access import Workers
    from binderd.memory.shrinker import Shrinker

ARENA_SIZE: Final = 4 << 20  # bytes; the driver's cap on a mapping

# No process may resize the file under our mapping, or change these seals. F_SEAL_FUTURE_WRITE must
# never be among them: it forbids giving pages back. What keeps a client to whom the file was handed
# over from writing are the mode of the file and of the descriptor.
_SEALS: Final = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL

_MODE: Final = 0o400
_PAGE: Final = mmap.PAGESIZE
_LOOKS_MAX: Final = 512  # mappings that we look at ourselves
_BLOCK: Final = 512  # bytes; what st_blocks counts in

_WRITABLE: Final = mmap.PROT_READ | mmap.PROT_WRITE


def make_zeros() -> int:
    """Return a descriptor of a file as large as a receive area that is all zeros, for good.

    Raises:
        OSError: no memory or no descriptor left.
    """
    fd = os.memfd_create("binder-zeros", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, ARENA_SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_WRITE)
    except BaseException:
        os.close(fd)
        raise
    return fd


class MemfdArena(ReceiverArena):
    """The pages of one open file (the port ``ReceiverArena``).

    Args:
        space: the address space of the program that opens the file. As in the driver nobody else
            can receive: neither another process nor what the opener runs later on.
        file: what the opener's /proc/PID/maps calls the file that the pages are mapped through,
            None if the kernel maps none for it. The memfd itself counts, too.
        shrinker: lists the arena when it is used.

    Raises:
        OSError: no memory or no descriptor left.
    """

    __slots__ = (
        "_base",
        "_file",
        "_files",
        "_found",
        "_pages",
        "_payer",
        "_pid",
        "_place",
        "_siblings",
        "_start",
        "_trust",
        "_workers",
        "address",
        "engine",
        "fd",
        "is_beside",
        "is_listed",
        "is_private",
        "is_quiet",
        "mapped_at",
        "open_file",
        "shrinker",
        "size",
        "space",
        "ticks_unchecked",
    )

    def __init__(self, space: AddressSpace, file: FileId | None, shrinker: Shrinker) -> None:
        self._base = 0  # where in the file the client's mapping starts, in bytes
        self.size = ARENA_SIZE  # bytes from there to the end
        self.shrinker = shrinker
        self.engine: Facade | None = None
        self.open_file: OpenFile | None = None  # what it is to the engine
        self.is_private = False
        self.is_beside = False  # or does the kernel show these very pages, if it maps any of ours?
        self.is_listed = False  # is it in the shrinker's list?
        self.is_quiet = False  # has nothing happened since the last look?
        self.ticks_unchecked = 0  # how long ago was the client's mapping seen?
        self.fd = os.memfd_create("binder", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, ARENA_SIZE)
            os.fchmod(self.fd, _MODE)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
            own = file_id(self.fd)
            self._start = map_file(self.fd, ARENA_SIZE, _WRITABLE, mmap.MAP_SHARED)
        except BaseException:
            os.close(self.fd)
            raise
        self.space = space.hold()
        self._files = (own,) if file is None else (file, own)
        self._siblings = space.arenas.setdefault(self._files[0], [])
        self._siblings.append(self)
        self.mapped_at = 0  # where the client has its mapping, 0 until it was found
        self._workers: Workers | None = None
        self._payer = self._pid = 0
        self._place = ""
        self._trust: Trust | None = None
        # What a worker has found, until ``locate`` takes it; whether /proc could be asked.
        self._found: tuple[tuple[int, Area] | None, bool] | None = None
        self._file = own  # by which of them did ``locate`` find it?
        # Where ``copy`` writes to: the address of the byte that the engine calls offset 0.
        self.address = self._start
        self._pages = memoryview((ctypes.c_char * ARENA_SIZE).from_address(self._start)).cast("B")

    def rely_on(self, workers: Workers, payer: int, pid: int, place: str, trust: Trust) -> None:
        """Have workers look where the opener has the pages mapped, where that may block.

        Args:
            workers: they look.
            payer: the user that is charged for it.
            pid: the opener's process.
            place: that process' directory in /proc.
            trust: the payer's.
        """
        self._workers, self._payer, self._trust = workers, payer, trust
        self._pid, self._place = pid, place

    def locate(self) -> Mapping | None:
        """Return where the opener has the pages mapped right now, None if it has not.

        Raises:
            NoAnswer: it could not be asked.
            NotYet: it takes a long look, or one that may block.
        """
        enter(self.space.subject)
        try:
            found = self._look()
        except ProcessLookupError:
            return None
        except OSError as error:
            raise NoAnswer from error
        if found is None:
            return None
        which, area = found
        if area.offset >= ARENA_SIZE:
            return None
        self._file = self._files[which]
        self.mapped_at = area.start
        # A client may map the file from some offset on: the first byte it sees is ours at that
        # offset.
        self.address += area.offset - self._base
        self._base = area.offset
        self.size = ARENA_SIZE - area.offset
        return Mapping(area.start, min(area.end - area.start, self.size))

    def _look(self) -> tuple[int, Area] | None:
        if self._workers is None:
            return find_first(self.space.maps, self._files)
        if self._found is not None:
            (found, could_be_asked), self._found = self._found, None
            if not could_be_asked:
                raise NoAnswer
            if not exists_in(self._place, "stat"):
                raise gone()  # then the number that was asked may have been another's
            return found
        if self._is_trusted():
            with suppress(Long):
                if len(self._siblings) > 1:
                    return self._look_among_siblings()
                return find_first(self.space.maps, self._files, _LOOKS_MAX)
        then, taken = self._has_been_found, self._taken()
        raise NotYet(Locating(self._workers, self._payer, self._pid, self._files, then, taken))

    def _look_among_siblings(self) -> tuple[int, Area] | None:
        """Find the mapping of one of several files that a program has opened as one inode.

        The kernel does not tell which mapping is which open file's. A program maps one file after
        the other, and the kernel maps downwards; so they are taken to follow one another so.
        """
        taken = self._taken()
        areas = find_each(self.space.maps, self._files[0], _LOOKS_MAX)
        areas = [area for area in areas if area.start not in taken]
        if not areas:
            found = find_first(self.space.maps, self._files[1:], _LOOKS_MAX)
            return None if found is None else (1, found[1])
        before = self._siblings[: self._siblings.index(self)]
        rank = sum([not arena.mapped_at for arena in before])
        return 0, areas[min(rank, len(areas) - 1)]

    def _taken(self) -> list[int]:
        """Return where mappings start that are another open file's."""
        return [arena.mapped_at for arena in self._siblings if arena.mapped_at]

    def _has_been_found(self, found: tuple[int, Area] | None, could_be_asked: bool) -> None:
        self._found = found, could_be_asked

    def _is_trusted(self) -> bool:
        """Whether the opener's table of mappings may be looked at by us."""
        return self._trust is None or not self._trust.is_revoked

    def is_alive(self) -> bool:
        """Return whether the program that opened the file is still there.

        Raises:
            NoAnswer: it could not be asked.
        """
        if not self._is_trusted():
            return True  # what is written there is lost if not
        try:
            return self.space.is_alive()
        except ProcessLookupError:
            return False
        except OSError as error:
            raise NoAnswer from error

    def open_shared(self) -> int:
        """Return a descriptor through which the pages can be read and nothing else.

        It is the caller's to close.

        Raises:
            OSError: there is no descriptor left.
        """
        return os.open(path_of(self.fd), os.O_RDONLY | os.O_CLOEXEC)

    def is_still_mapped(self) -> bool:
        """Return whether what ``locate`` found is still there, as far as it can be asked now."""
        engine, file = self.engine, self.open_file
        mapping = engine.mapping_of(file) if engine is not None and file is not None else None
        if mapping is None or not self._is_trusted():
            return True
        enter(self.space.subject)
        try:
            return is_mapped(self.space.maps, self._file, mapping.address)
        except ProcessLookupError:
            return False
        except OSError:
            return True  # the next look asks again

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Put the daemon's own bytes at ``offset``.

        Raises:
            IndexError: they do not fit; the engine's mistake.
        """
        size = len(data)
        if not 0 <= offset <= self.size - size:
            raise IndexError(f"{size} bytes at {offset} in {self.size}")
        if not self.is_listed:
            self.shrinker.add(self)
        offset += self._base
        self._pages[offset : offset + size] = data

    def bring(self, offset: int, size: int) -> bool:
        """The client sees it already."""
        return True

    def forget(self, offset: int) -> None:
        """Nothing was begun."""

    def receive_at(self, offset: int, size: int) -> int:
        """Return the address in our own memory where ``size`` foreign bytes may be put.

        Raises:
            IndexError: they do not fit; the engine's mistake.
        """
        if size < 0 or not 0 <= offset <= self.size - size:
            raise IndexError(f"{size} bytes at {offset} in {self.size}")
        if not self.is_listed:
            self.shrinker.add(self)
        return self.address + offset

    def touched(self) -> None:
        """Say that buffers were freed, so that pages may be given back when things are quiet."""
        self.is_quiet = False
        if not self.is_listed:
            self.shrinker.add(self)

    def trim(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Give the whole pages inside free ranges, (offset, size) in bytes, back to the system.

        They read as zero from then on, for the client, too.
        """
        for offset, size in ranges:
            start = -(-(self._base + offset) // _PAGE) * _PAGE
            end = min(self._base + offset + size, ARENA_SIZE) // _PAGE * _PAGE
            if start < end:
                give_back(self._start + start, end - start)

    def empty(self) -> None:
        """Give all pages back: the opener has gone, but other processes have the file mapped."""
        give_back(self._start, ARENA_SIZE)

    def allocated_bytes(self) -> int:
        """Return how much memory the pages take."""
        return os.fstat(self.fd).st_blocks * _BLOCK

    def close(self) -> None:
        """Let go of the pages; a client's mapping keeps its own hold on them."""
        self.shrinker.drop(self)
        self._siblings.remove(self)
        if not self._siblings:
            del self.space.arenas[self._files[0]]
        self.open_file = None
        self._pages.release()
        unmap(self._start, ARENA_SIZE)
        os.close(self.fd)
        self.space.release()
        self.fd = -1
        self.size = -1  # from here on nothing fits
