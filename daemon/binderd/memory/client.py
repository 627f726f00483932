# SPDX-License-Identifier: Apache-2.0
"""The outside half of one open device file (the port ``Client``), and its maker.

Here the package's pieces meet: a receive arena, the opener's process, memory and watch per thread.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from errno import EINVAL, EMFILE, ENFILE
from typing import TYPE_CHECKING, Final, Protocol

from binderd.device.opener import OpenedClient, Opener
from binderd.edge.calls import nice_of
from binderd.engine.limits import FETCHED
from binderd.engine.ports import GONE, NoAnswer
from binderd.heartbeat import Stalls, enter
from binderd.linux.maps import FileId
from binderd.linux.proc import place_of, process_of
from binderd.memory.backing import Backings
from binderd.memory.client_process import ClientProcess, ClientProcesses
from binderd.memory.files import UsersFiles
from binderd.memory.foreign_pids import ForeignPids
from binderd.memory.identity import (
    NO_ID,
    PidNamespace,
    Users,
    credentials_of,
    is_foreign,
    payer_of,
    payer_of_request,
    security_context,
    user_of,
)
from binderd.memory.memfd_arena import MemfdArena
from binderd.memory.presence import TrustOfPayers
from binderd.memory.private_arena import PrivateArena
from binderd.memory.process_memory import ProcessMemory
from binderwire.extension_abi import BINDERD_ATTACH_AREA

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from binderd.engine.limits import Kind
    from binderd.engine.ports import Charged, Client, Facade, File, OpenFile, ReceiverArena, Room
    from binderd.memory.backing import Mount
    from binderd.memory.files import Disposer
    from binderd.memory.remote_access import Workers
    from binderd.memory.shrinker import Shrinker
    from binderd.memory.thread_watch import ThreadWatch, Watched


_log: Final = logging.getLogger("binderd")

_SEEN_PIDS_MAX: Final = 256


class Delivery(Protocol):
    """How the processes that use one open file get files, and have descriptors closed."""

    @property
    def injects(self) -> bool:
        """Whether processes that do not attach get descriptors as well, by ptrace."""

    def install(self, tid: int, pid: int, number: int, files: Sequence[File], room: Room) -> int:
        """Begin to give files to the process ``pid`` of a thread; see ``Client.install``."""

    def close_descriptors(self, tid: int, pid: int, number: int, numbers: Sequence[int]) -> int:
        """Begin to close descriptors of that process; see ``Client.close_descriptors``."""

    def cancel(self, number: int) -> None:
        """The files of an installation are no longer wanted."""

    def attach(self, tid: int, pid: int, fd: int, flags: int) -> int:
        """Take the socket ``fd`` of the process ``pid``; return 0 or an errno."""

    def detach(self, pid: int) -> None:
        """Let go of the socket of a process, which has ended."""

    def close(self) -> None:
        """Let go of all sockets."""


class Deliveries(Protocol):
    """Descriptor delivery for all open files."""

    @property
    def disposer(self) -> Disposer:
        """Closes files that were taken from clients."""

    def of(self, client: FileClient) -> Delivery:
        """Return the delivery for one open file."""

    def look(self) -> None:
        """See what was taken and closed meanwhile."""

    def is_own(self, tid: int) -> bool:
        """Whether a thread is of the daemon, or of its helper process."""


class _ThreadEntry:
    """What is kept for one thread that has used the file."""

    __slots__ = ("pid", "watched")

    def __init__(self, pid: int, watched: Watched | None) -> None:
        self.pid = pid
        self.watched = watched


class FileClient(OpenedClient):
    """One open file's pages, memories and watched threads.

    Args:
        process: that opened it.
        tid: the thread that does.
        arena: its pages.
        nodeid: its inode, 0 if it has none.
        backing_id: what the kernel maps for it, 0 if it maps nothing of ours.
        opener: has made this, and takes it back.

    Raises:
        OSError: something about the process could not be asked.
    """

    __slots__ = (
        "_delivery",
        "_opener",
        "_pid_namespace",
        "_security_context",
        "_seen_pids",
        "_threads",
        "_users",
        "arena",
        "backing_id",
        "euid",
        "files",
        "has_mmap",
        "is_foreign",
        "nice",
        "nodeid",
        "pages",
        "payer",
        "pid",
        "process",
    )

    arena: ReceiverArena

    def __init__(
        self,
        process: ClientProcess,
        tid: int,
        arena: MemfdArena,
        nodeid: int,
        backing_id: int,
        opener: FileOpener,
    ) -> None:
        place = process.place
        self.process = process
        self.pid = process.pid
        self.payer = payer_of(tid)
        self.nice = nice_of(tid)
        self.is_foreign = is_foreign(place)
        self._pid_namespace = PidNamespace(place) if self.is_foreign else None
        self._users = Users(place)
        self._security_context = security_context(tid) or opener.security_context
        self.euid = user_of(place)
        self._seen_pids: dict[ClientProcess, int] = {}  # a sender -> its number for this client
        self.arena = arena  # the port
        self.pages: MemfdArena = arena  # what it is
        self.nodeid = nodeid
        self.backing_id = backing_id
        # Does an mmap show the very pages? Otherwise it is better to be handed them over.
        self.has_mmap = backing_id != 0 and not arena.is_beside
        self._opener = opener
        self.files: UsersFiles = UsersFiles(opener.deliveries.disposer, self.payer)
        self._delivery = opener.deliveries.of(self)
        self._threads: dict[int, _ThreadEntry] = {}  # by thread id

    def shares_opener(self, other: Client) -> bool:
        """Return whether one process has opened both files."""
        assert isinstance(other, FileClient)
        return other.process is self.process

    def pid_of(self, sender: Client) -> int:
        """Return the sender's process id as this client's pid namespace has it; 0: none.

        Raises:
            NoAnswer: it could not be asked.
        """
        assert isinstance(sender, FileClient)
        assert self._pid_namespace is not None
        seen = self._seen_pids.get(sender.process)
        if seen is None:
            if len(self._seen_pids) >= _SEEN_PIDS_MAX:
                self._seen_pids.clear()  # processes come and go
            try:
                seen = self._pid_namespace.number_of(sender.process.place)
            except ProcessLookupError:
                return 0
            except OSError as error:
                raise NoAnswer from error
            self._seen_pids[sender.process] = seen
        return seen

    def uid_of(self, uid: int) -> int:
        """Return a user id as this client's user namespace has it; 2**32 - 1 if it has none.

        Raises:
            NoAnswer: it could not be asked.
        """
        try:
            return self._users.number_of(uid)
        except ProcessLookupError:
            return NO_ID
        except OSError as error:
            raise NoAnswer from error

    def user(self) -> int:
        """Return the effective user of the opener's process, GONE if that is dead.

        Raises:
            NoAnswer: it could not be asked.
        """
        try:
            return user_of(self.process.place)
        except ProcessLookupError:
            return GONE
        except OSError as error:
            raise NoAnswer from error

    def security_context(self) -> bytes | None:
        """Return what the opener had, with its NUL, None if none.

        Differs: the driver has none to give where no LSM has; see ``--security-context``.
        """
        return self._security_context

    def memory(self, tid: int) -> ProcessMemory:
        """Return the memory of ``tid``, which must have a request open.

        Raises:
            NoAnswer: it could not be asked.
        """
        self.forget_thread(tid)  # it left with BINDER_THREAD_EXIT and is back
        enter(-tid)
        try:
            is_openers = self.process.has(tid)
            pid = self.pid if is_openers else process_of(tid)
            watched = self._opener.watch.watch(self, tid)
        except OSError as error:
            raise NoAnswer from error
        self._threads[tid] = _ThreadEntry(pid, watched)
        engine = self.pages.engine
        return ProcessMemory(
            pid,
            tid,
            self.process if is_openers else None,
            self.pages.space,
            self.files,
            self._opener.workers,
            self.payer,
            self._opener.trust.of(self.payer),
            None if engine is None else engine.share_of(self.payer, FETCHED),
        )

    def install(self, tid: int, number: int, files: Sequence[File], room: Room) -> int:
        """Begin to give files to a thread's process; see ``Client.install``."""
        return self._delivery.install(tid, self._threads[tid].pid, number, files, room)

    def cancel_install(self, number: int) -> None:
        """The files of an installation are no longer wanted."""
        self._delivery.cancel(number)

    def close_descriptors(self, tid: int, number: int, numbers: Sequence[int]) -> int:
        """Begin to close descriptors of a thread's process; see ``Client.close_descriptors``."""
        return self._delivery.close_descriptors(tid, self._threads[tid].pid, number, numbers)

    def has_thread(self, tid: int) -> bool:
        """Return whether a thread of that number has used the file."""
        return tid in self._threads

    def forget_thread(self, tid: int) -> None:
        """The thread object of ``tid`` is gone: keep nothing for it."""
        entry = self._threads.pop(tid, None)
        if entry is None:
            return
        self._opener.watch.forget(self, entry.watched)

    # The extension

    @property
    def injects(self) -> bool:
        """Whether processes that do not attach get descriptors as well."""
        return self._delivery.injects

    def attach(self, tid: int, fd: int, flags: int) -> int:
        """Take the socket that a thread names, and send what is due at once (BINDERD_ATTACH).

        Args:
            tid: the thread, which must have a request open.
            fd: the socket's number in its process.
            flags: BINDERD_ATTACH_...

        Returns:
            0 or the errno: see docs/EXTENSION.md.
        """
        enter(-tid)
        try:
            is_openers = self.process.has(tid)
            pid = self.pid if is_openers else process_of(tid)
        except OSError as error:
            # EMFILE is about our table of descriptors; to the client it would mean its own.
            return ENFILE if error.errno == EMFILE else error.errno or EINVAL
        if flags & BINDERD_ATTACH_AREA and not is_openers:
            return EINVAL
        return self._delivery.attach(tid, pid, fd, flags)

    def detach(self, pid: int) -> None:
        """A process that has used the file has ended."""
        self._delivery.detach(pid)

    def adopt(self, engine: Facade, file: OpenFile) -> None:
        """Say what the open file is to the engine."""
        self.pages.engine = self.files.accounts = engine
        self.pages.open_file = file

    def close(self) -> None:
        """Give everything back: descriptors, pages, the backing id."""
        for tid in list(self._threads):
            self.forget_thread(tid)
        self._delivery.close()
        self._opener.take_back(self)


class FileOpener(Opener):
    """Makes the outside half of open files (the port ``Opener``).

    Args:
        mount: our file system, None if there is none.
        shrinker: gives the arenas' free pages back.
        watch: tells of the end of threads.
        deliveries: puts files into clients, and closes files.
        security_context: of processes that no security module gives one; "": none.
        workers: reach into memory that may keep us waiting; None: the daemon does.
    """

    __slots__ = (
        "_backings",
        "_clients",
        "_foreign_pids",
        "_mount",
        "_processes",
        "_shrinker",
        "_stalls",
        "deliveries",
        "has_passthrough",
        "security_context",
        "trust",
        "watch",
        "workers",
    )

    def __init__(
        self,
        mount: Mount | None,
        shrinker: Shrinker,
        watch: ThreadWatch,
        deliveries: Deliveries,
        security_context: str,
        workers: Workers | None = None,
    ) -> None:
        self.deliveries = deliveries
        self.workers = workers
        self._stalls = Stalls()
        self.trust = TrustOfPayers()
        self._foreign_pids = ForeignPids()
        self._mount = mount
        self._shrinker = shrinker
        self.watch = watch
        self.security_context = security_context.encode() + b"\0" if security_context else None
        self.has_passthrough = True  # does the kernel take backing files?
        self._backings = Backings(mount) if mount is not None else None
        self._clients: dict[FileClient, None] = {}
        self._processes = ClientProcesses()

    def open(self, tid: int, nodeid: int, *, is_private: bool = False) -> FileClient:
        """Return the client for an OPEN by thread ``tid`` of the inode ``nodeid``; 0: of none.

        Args:
            is_private: must clients of that inode have pages of their own?

        Raises:
            OSError: the thread cannot be found, or memory or descriptors are used up.
        """
        with ExitStack() as undo:
            payer = payer_of(tid)
            process = self._processes.join(tid, self.trust.of(payer))
            undo.callback(self._processes.leave, process)
            arena, backing_id = self._make_arena(process, nodeid, undo, is_private=is_private)
            if self.workers is not None:
                trust = process.presence.trust
                arena.rely_on(self.workers, payer, process.pid, process.place, trust)
            client = FileClient(process, tid, arena, nodeid, backing_id, self)
            if self._backings is not None:
                self._backings.hold(nodeid, client.euid)
            undo.pop_all()
        self._clients[client] = None
        return client

    def _make_arena(
        self, process: ClientProcess, nodeid: int, undo: ExitStack, *, is_private: bool
    ) -> tuple[MemfdArena, int]:
        """Return the pages of an open file, and the backing id of what the kernel maps for it."""
        mount, backings, space = self._mount, self._backings, process.space
        if mount is None or backings is None or not nodeid:
            arena = MemfdArena(space, None, self._shrinker)
            undo.callback(arena.close)
            return arena, 0
        file = FileId(*mount.device, nodeid)
        if is_private:
            backing_id = backings.beside(nodeid) if self.has_passthrough else 0
            arena = PrivateArena(space, file, self._shrinker, asks_us=not backing_id)
            undo.callback(arena.close)
            return arena, backing_id
        arena = MemfdArena(space, file, self._shrinker)
        undo.callback(arena.close)
        backing_id = backings.share(nodeid, arena.fd)
        undo.callback(backings.drop, nodeid)
        return arena, backing_id

    def refuse_foreign_pid(self) -> int:
        """Return the errno for an OPEN by a program outside of our pid namespace."""
        return self._foreign_pids.refuse()

    def lack_passthrough(self) -> None:
        """The kernel maps nothing that we give it; to be called before anything is opened."""
        self.has_passthrough = self.trust.trusts_users = False

    def can_back(self) -> bool:
        """Return whether the kernel takes backing files from us."""
        try:
            return self._backings is not None and self._backings.beside(0) > 0
        except OSError as error:
            _log.warning("the kernel maps no receive areas (%s): clients have own pages", error)
            return False

    def credentials(self, tid: int) -> tuple[int, frozenset[int]]:
        """Return the effective user of a thread that has a request open, and all its groups."""
        return credentials_of(place_of(tid))

    def is_own(self, tid: int) -> bool:
        """Return whether a thread is of the daemon, or of its helper process."""
        return self.deliveries.is_own(tid)

    def payer(self, tid: int, uid: int) -> int:
        """Return the user that is charged for what a request makes us keep beside open files."""
        return payer_of_request(tid, uid)

    def charge(self, accounts: Facade, kind: Kind, uid: int, tid: int) -> Charged | None:
        """Charge a user for one more of a kind; None if there is no room for it."""
        return accounts.charge(self.payer(tid, uid), kind)

    def note_stalls(self) -> None:
        """If a client has blocked the daemon until the watchdog ended that, reach into it no more.

        To be called right behind whatever reaches into clients, as its numbers are its own there.
        """
        subject = self._stalls.take()
        if not subject:
            return
        for client in self._clients:
            process = client.process
            if process.space.subject == subject or client.has_thread(-subject):
                process.presence.trust.revoke()
                self.trust.of(client.payer).revoke()
                return

    def take_back(self, client: FileClient) -> None:
        """Release what ``open`` made."""
        if self._clients.pop(client, self) is None:
            if self._backings is not None:
                self._backings.let_go(client.nodeid, client.pages)
            client.pages.close()
            self._processes.leave(client.process)

    def reap(self) -> list[tuple[OpenFile, int]]:
        """Return threads that have ended, as (file, thread id), and keep nothing for them."""
        gone = []
        self.deliveries.look()
        for ended in self.watch.ended():
            client, tid = ended.client, ended.tid
            if ended.is_process:
                client.detach(tid)
                continue
            client.forget_thread(tid)
            if client.pages.open_file is not None:
                gone.append((client.pages.open_file, tid))
        return gone

    def arenas(self) -> Iterator[MemfdArena]:
        """Yield the arena of every open file."""
        return (client.pages for client in self._clients)
