# SPDX-License-Identifier: Apache-2.0
"""The outside half of one open device file (the port ``Client``), and who makes it.

Here the pieces of this package meet: a receive arena, one memory per binder thread, an address
space per process that uses the file, a watch on each thread.
"""

from __future__ import annotations

from errno import EINVAL, EMFILE, ENFILE, ENOSPC
from typing import TYPE_CHECKING, Final, Protocol

from binderd.engine.ports import REFUSED, SENT, STOPPING
from binderd.memory.attachment import Attachment, attachment_of
from binderd.memory.files import Disposal, TakenFile
from binderd.memory.identity import (
    NO_ID,
    is_foreign,
    nice_of,
    pid_as_seen_by,
    security_context,
    uid_as_seen_by,
    user_of,
)
from binderd.memory.memfd_arena import ARENA_SIZE, MemfdArena
from binderd.memory.proc import FileId, belongs_to, process_of
from binderd.memory.process_memory import AddressSpace, ProcessMemory
from binderwire.extension_abi import BINDERD_AREA, BINDERD_ATTACH_AREA, BINDERD_ATTACH_FILES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from binderd.engine.ports import Client, File, ReceiverArena, Room
    from binderd.engine.process import Process
    from binderd.memory.thread_watch import ThreadWatch
    from binderd.memory.upkeep import Upkeep


_SEEN_PIDS_MAX: Final = 256


class Installer(Disposal, Protocol):
    """Puts files into processes that know nothing of us."""

    injects: bool  # or does it refuse?

    def begin(
        self,
        number: int,
        tid: int,
        files: Sequence[int],
        closes: Sequence[int],
        room: tuple[int, int],
    ) -> bool:
        """Begin to stop a thread and give its process files; False if that cannot be.

        Args:
            number: what it is called from now on.
            files: descriptors of ours, which remain ours.
            closes: descriptors in that process, to be closed first.
            room: the unused part of the thread's read buffer: address, bytes.
        """

    def cancel(self, number: int) -> None:
        """Nobody wants it any more."""

    def is_own(self, tid: int) -> bool:
        """Whether a thread is our own, or of who does this for us."""


class _ThreadEntry:
    """What is kept for one thread that has used the file."""

    __slots__ = ("pidfd", "space")

    def __init__(self, pidfd: int, space: AddressSpace) -> None:
        self.pidfd = pidfd
        self.space = space


class FileClient:
    """One open file's pages, memories and watched threads.

    Args:
        pid: the opener's process id.
        tid: the thread that opened it.
        arena: its pages.
        backing_id: what the kernel calls those pages, 0 if it does not know them.
        opener: who made this, and takes it back.
    """

    __slots__ = (
        "_attachments",
        "_opener",
        "_security_context",
        "_seen_pids",
        "_spaces",
        "_threads",
        "_user",
        "arena",
        "backing_id",
        "is_foreign",
        "nice",
        "pages",
        "pid",
    )

    arena: ReceiverArena

    def __init__(
        self, pid: int, tid: int, arena: MemfdArena, backing_id: int, opener: FileOpener
    ) -> None:
        self.pid = pid
        self.nice = nice_of(tid)
        self.is_foreign = is_foreign(pid)
        self._security_context = security_context(tid)
        self._user = user_of(pid)
        self._seen_pids: dict[int, int] = {}  # our process id of a sender -> this client's
        self.arena = self.pages = arena  # the port, and what it is
        self.backing_id = backing_id
        self._opener = opener
        self._attachments: dict[int, Attachment] = {}  # by process id
        self._spaces: dict[int, AddressSpace] = {}  # by process id
        self._threads: dict[int, _ThreadEntry] = {}  # by thread id

    def pid_of(self, sender: Client) -> int:
        """Return the sender's process id as this client's pid namespace has it; 0: none."""
        assert isinstance(sender, FileClient)
        seen = self._seen_pids.get(sender.pid)
        if seen is None:
            if len(self._seen_pids) >= _SEEN_PIDS_MAX:
                self._seen_pids.clear()  # process ids come and go, and are used again
            seen = self._seen_pids[sender.pid] = pid_as_seen_by(self.pid, sender.pid)
        return seen

    def uid_of(self, uid: int) -> int:
        """Return a user id as this client's user namespace has it; 2**32 - 1 if it has none."""
        return uid_as_seen_by(self.pid, uid)

    def user(self) -> int:
        """Return the effective user of the opener's process, the last one if that is gone."""
        user = user_of(self.pid)
        if user != NO_ID:
            self._user = user
        return self._user

    def security_context(self) -> bytes | None:
        """Return what the opener had, with its NUL, None where no LSM gives one."""
        return self._security_context

    def memory(self, tid: int) -> ProcessMemory:
        """Return the memory of ``tid``, which must have a request open.

        A thread of which nothing can be had gets a memory in which every address is a fault.
        """
        self.forget_thread(tid)  # it left with BINDER_THREAD_EXIT and is back
        space = self._space_of(tid)
        space.threads += 1
        pidfd = self._opener.watch.watch(self, tid)
        self._threads[tid] = _ThreadEntry(pidfd, space)
        return ProcessMemory(tid, space, self._opener.installer)

    def install(
        self, tid: int, number: int, files: Sequence[File], closes: Sequence[int], room: Room
    ) -> int:
        """Begin to give files to the process of ``tid``; see ``Client.install``."""
        fds = [file.fd for file in files if isinstance(file, TakenFile)]
        pid = self._threads[tid].space.pid
        attachment = self._attachments.get(pid)
        if attachment is not None:
            sent = attachment.send_closes(closes) and attachment.send_files(number, fds)
            if not sent:
                attachment.end()
                self.detach(pid)
            return SENT if sent else REFUSED
        begun = self._opener.installer.begin(number, tid, fds, closes, room)
        return STOPPING if begun else REFUSED

    def cancel_install(self, number: int) -> None:
        """Nobody wants the files any more."""
        self._opener.installer.cancel(number)

    def forget_thread(self, tid: int) -> None:
        """The thread object of ``tid`` is gone: keep nothing for it."""
        entry = self._threads.pop(tid, None)
        if entry is None:
            return
        self._opener.watch.forget(entry.pidfd)
        entry.space.threads -= 1
        if not entry.space.threads:
            entry.space.close()
            self._spaces.pop(entry.space.pid, None)

    # The extension's socket

    @property
    def injects(self) -> bool:
        """Whether who does not attach gets descriptors as well."""
        return self._opener.installer.injects

    def attach(self, tid: int, fd: int, flags: int) -> int:
        """Take the socket that a thread names, and send what is due at once (BINDERD_ATTACH).

        Args:
            tid: the thread, which must have a request open.
            fd: the socket's number in its process.
            flags: BINDERD_ATTACH_...

        Returns:
            0 or the errno: see docs/EXTENSION.md.
        """
        pid = self._process_of(tid)
        if flags & BINDERD_ATTACH_AREA and pid != self.pid:
            return EINVAL
        attachment = attachment_of(tid, fd, flags, self._opener.installer)
        if isinstance(attachment, int):
            return attachment
        errno = self._send_area(attachment) if flags & BINDERD_ATTACH_AREA else 0
        if not errno and pid not in self._attachments:
            errno = ENOSPC if len(self._attachments) >= self._opener.attachments_max else 0
        if errno:
            attachment.close()
            return errno
        self.detach(pid)
        if flags & BINDERD_ATTACH_FILES:
            attachment.pidfd = self._opener.watch.watch_process(self, pid)
            self._attachments[pid] = attachment
        else:
            attachment.close()
        if self.pages.process is not None:
            self.pages.process.engine.attached(self.pages.process, pid)
        return 0

    def detach(self, pid: int) -> None:
        """Let go of the socket of a process."""
        attachment = self._attachments.pop(pid, None)
        if attachment is not None:
            self._opener.watch.forget(attachment.pidfd)
            attachment.close()

    def _send_area(self, attachment: Attachment) -> int:
        try:
            fd = self.pages.shared_fd()
        except OSError as error:
            # EMFILE is about our table of descriptors; to the client it would mean its own.
            return ENFILE if error.errno == EMFILE else error.errno or EINVAL
        return attachment.send(BINDERD_AREA, ARENA_SIZE, fds=(fd,))

    def adopt(self, process: Process) -> None:
        """Say which engine process the file has become."""
        self.pages.process = process

    def close(self) -> None:
        """Give everything back: descriptors, pages, the backing id."""
        for tid in list(self._threads):
            self.forget_thread(tid)
        for pid in list(self._attachments):
            self.detach(pid)
        self._opener.take_back(self)

    def _space_of(self, tid: int) -> AddressSpace:
        for pid, space in self._spaces.items():
            if belongs_to(tid, pid):
                return space
        pid = self._process_of(tid)
        space = AddressSpace(pid)
        space.open(tid)
        self._spaces[pid] = space
        return space

    def _process_of(self, tid: int) -> int:
        if belongs_to(tid, self.pid):
            return self.pid
        try:
            return process_of(tid)
        except OSError:
            return tid


class Backing(Protocol):
    """A file system whose kernel maps what it is given."""

    device: tuple[int, int]  # major and minor number, as /proc/PID/maps shows them

    def register(self, fd: int) -> int:
        """Give the kernel a descriptor as backing file; return its backing id (positive)."""

    def unregister(self, backing_id: int) -> None:
        """Take a backing id back."""


class FileOpener:
    """Makes the outside half of open files (the port ``Opener``).

    Args:
        mount: our file system, None if there is none.
        upkeep: looks after the arenas.
        watch: looks after the threads.
        installer: puts files into clients, and closes files.
        attachments_max: how many processes may attach a socket to one open file.
    """

    __slots__ = (
        "_clients",
        "_mount",
        "_upkeep",
        "attachments_max",
        "has_passthrough",
        "installer",
        "watch",
    )

    def __init__(
        self,
        mount: Backing | None,
        upkeep: Upkeep,
        watch: ThreadWatch,
        installer: Installer,
        attachments_max: int,
    ) -> None:
        self.installer = installer
        self._mount = mount
        self._upkeep = upkeep
        self.watch = watch
        self.attachments_max = attachments_max
        self.has_passthrough = True  # does the kernel take backing files?
        self._clients: dict[FileClient, None] = {}

    def open(self, tid: int, nodeid: int) -> FileClient:
        """Return the client for an OPEN by thread ``tid`` of the inode ``nodeid``; 0: of none.

        Raises:
            OSError: the thread cannot be found, or memory or descriptors are used up.
        """
        pid = process_of(tid)
        mount = self._mount if self.has_passthrough and nodeid else None
        file = FileId(*mount.device, nodeid) if mount is not None else None
        arena = MemfdArena(pid, file, self._upkeep)
        try:
            backing_id = mount.register(arena.fd) if mount is not None else 0
        except BaseException:
            arena.close()
            raise
        client = FileClient(pid, tid, arena, backing_id, self)
        self._clients[client] = None
        return client

    def is_own(self, tid: int) -> bool:
        """Return whether a thread is our own, or of who acts for us."""
        return self.installer.is_own(tid)

    def take_back(self, client: FileClient) -> None:
        """Release what ``open`` made."""
        if self._clients.pop(client, self) is None:
            if client.backing_id and self._mount is not None:
                self._mount.unregister(client.backing_id)
            client.pages.close()

    def reap(self) -> list[tuple[Process, int]]:
        """Return threads that have ended, as (process, thread id), and keep nothing for them."""
        gone = []
        for client, tid, is_process in self.watch.ended():
            if is_process:
                client.detach(tid)
                continue
            client.forget_thread(tid)
            if client.pages.process is not None:
                gone.append((client.pages.process, tid))
        return gone

    def arenas(self) -> Iterator[MemfdArena]:
        """Yield the arena of every open file."""
        return (client.pages for client in self._clients)
