# SPDX-License-Identifier: Apache-2.0
"""A process that has device files open: its place in /proc, and its memory.

All open files of one process share what is here, so that a client with many files costs few
descriptors: one of /proc/PID, which stands for this process whatever gets its number later, and
one each of /proc/PID/mem and /proc/PID/maps. These two belong to the program that the process ran
when they were opened: once that is gone, by exec or in the end, they say so, also if the number
lives on. The one of /proc/PID is what signals can be sent through, too: it is the process' subject
for the watchdog. None of the three needs the process' first thread to be alive.

Nothing here may know binder, or what the memory is used for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from binderd.heartbeat import NOBODY, enter
from binderd.linux.maps import is_alive
from binderd.linux.proc import exists_in, gone, open_in, path_of, place_of, process_of
from binderd.memory.presence import Presence, Trust

if TYPE_CHECKING:
    from binderd.linux.maps import FileId
    from binderd.memory.memfd_arena import MemfdArena

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY  # with O_PATH it would take no signals


class AddressSpace:
    """The memory of a program that a process runs.

    Args:
        pid: the process.
        tid: one of its threads, which must have a request open.
        subject: the process, as the watchdog is to know it.

    Raises:
        OSError: the memory cannot be had now.
    """

    __slots__ = ("_holders", "arenas", "maps", "memory", "subject")

    def __init__(self, pid: int, tid: int, subject: int = NOBODY) -> None:
        self._holders = 1
        self.subject = subject
        # Whose file a mapping shows that several have, by that file, in the order of their opens.
        self.arenas: dict[FileId, list[MemfdArena]] = {}
        enter(subject)
        self.memory = _open_memory(pid, tid)  # -1: not the process' any more
        try:
            self.maps = _open_maps(pid, tid)
        except BaseException:
            os.close(self.memory)
            raise

    def is_alive(self) -> bool:
        """Return whether the program is still there."""
        enter(self.subject)
        return self.maps >= 0 and is_alive(self.maps)

    def hold(self) -> AddressSpace:
        """Have ``maps`` stay open until one more ``release``; return the address space."""
        self._holders += 1
        return self

    def release(self) -> None:
        """Undo a ``hold``."""
        self._holders -= 1
        if not self._holders:
            maps, self.maps = self.maps, -1
            os.close(maps)

    def abandon(self) -> None:
        """It is not what the process runs any more: read and write no more."""
        memory, self.memory = self.memory, -1  # a reused number must never be read by mistake
        os.close(memory)
        self.release()


def _open_memory(pid: int, tid: int) -> int:
    """Open the memory of the program that a thread runs.

    It is opened through the first thread if that lives, so that the path of the open file names a
    thread for as long as it is of any use: the watchdog goes by it.
    """
    try:
        return open_in(place_of(pid), "mem", os.O_RDWR)
    except ProcessLookupError:
        return open_in(place_of(tid), "mem", os.O_RDWR)


def _open_maps(pid: int, tid: int) -> int:
    """Open the mapping table of the program that a thread runs.

    The text of the table (before Linux 6.11) can be had only as long as the thread lives through
    which it was opened. The first one outlives the others, but if it has ended it has no table.
    """
    try:
        os.readlink(f"{place_of(pid)}/exe")  # unlike the table itself, no lock can block this
    except (FileNotFoundError, ProcessLookupError):
        return open_in(place_of(tid), "maps", os.O_RDONLY)
    return open_in(place_of(pid), "maps", os.O_RDONLY)


class ClientProcess:
    """A process as all its open files see it.

    Args:
        pid: its number, in our pid namespace.
        tid: one of its threads, which must have a request open.
        trust: in the user that is charged for it.

    Raises:
        OSError: it cannot be reached now.
    """

    __slots__ = ("_directory", "files", "pid", "place", "presence", "space")

    def __init__(self, pid: int, tid: int, trust: Trust | None = None) -> None:
        self.pid = pid
        self.presence = Presence(trust or Trust())
        self.files = 0  # open ones of its
        self._directory = open_in(place_of(pid), "", _DIRECTORY)
        self.place = path_of(self._directory)
        try:
            self.space = AddressSpace(pid, tid, self._directory)
        except BaseException:
            os.close(self._directory)
            raise

    def has(self, tid: int) -> bool:
        """Return whether a thread is one of the process'.

        Raises:
            OSError: it could not be asked.
        """
        return exists_in(self.place, f"task/{tid}")

    def space_of(self, tid: int) -> AddressSpace:
        """Return the address space that a thread of the process, which has a request open, has.

        Raises:
            OSError: it could not be asked; then nothing has changed. ProcessLookupError: the thread
                is not the process' own, as that is dead and its numbers are others' now.
        """
        # Whose table may keep us waiting is not asked: its memory is not reached by us at all.
        if not self.presence.trust.is_revoked and not self.space.is_alive():
            if not self.has(tid):
                raise gone()
            self.presence.forget()
            space = AddressSpace(self.pid, tid, self._directory)
            self.space.abandon()
            self.space = space
        return self.space

    def close(self) -> None:
        """The last of its files is closed."""
        self.space.abandon()
        os.close(self._directory)


class ClientProcesses:
    """The processes that have device files open."""

    __slots__ = ("_by_pid",)

    def __init__(self) -> None:
        self._by_pid: dict[int, ClientProcess] = {}  # the last one of that number

    def join(self, tid: int, trust: Trust | None = None) -> ClientProcess:
        """Return the process of a thread that opens a file; ``leave`` undoes it.

        Args:
            trust: in the user that is charged for the process.

        Raises:
            OSError: it cannot be reached now.
        """
        enter(-tid)
        pid = process_of(tid)
        process = self._by_pid.get(pid)
        if process is None or not process.has(tid):
            process = self._by_pid[pid] = ClientProcess(pid, tid, trust)
        else:
            process.space_of(tid)
        process.files += 1
        return process

    def leave(self, process: ClientProcess) -> None:
        """One of the process' files is closed."""
        process.files -= 1
        if process.files:
            return
        if self._by_pid.get(process.pid) is process:
            del self._by_pid[process.pid]
        process.close()
