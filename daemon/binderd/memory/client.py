# SPDX-License-Identifier: Apache-2.0
"""The outside half of one open device file (the port ``Client``), and who makes it.

Here the package's pieces meet: a receive arena, the opener's process, memory and watch per thread.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from errno import EAGAIN, EINVAL, EMFILE, ENFILE, ENOMEM, ENOSPC
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from binderd.engine.limits import ATTACHMENTS, FETCHED, OUTBOX
from binderd.engine.ports import GONE, REFUSED, SENT, STOPPING, NoAnswer
from binderd.heartbeat import Stalls, enter
from binderd.linux.maps import FileId
from binderd.linux.proc import place_of, process_of
from binderd.memory.attachment import Attachment, attachment_of
from binderd.memory.backing import Backings
from binderd.memory.client_process import ClientProcess, ClientProcesses
from binderd.memory.files import Disposer, TakenFile, UsersFiles
from binderd.memory.flights import Flights
from binderd.memory.identity import (
    NO_ID,
    PidNamespace,
    Users,
    credentials_of,
    is_foreign,
    nice_of,
    payer_of,
    payer_of_request,
    security_context,
    user_of,
)
from binderd.memory.memfd_arena import ARENA_SIZE, MemfdArena
from binderd.memory.presence import Standings
from binderd.memory.private_arena import PrivateArena
from binderd.memory.process_memory import ProcessMemory
from binderd.memory.strangers import Strangers
from binderwire.extension_abi import BINDERD_AREA, BINDERD_ATTACH_AREA, BINDERD_ATTACH_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from binderd.engine.limits import Kind
    from binderd.engine.ports import Charged, Client, Facade, File, OpenFile, ReceiverArena, Room
    from binderd.memory.backing import Mount
    from binderd.memory.errand import Errands
    from binderd.memory.thread_watch import ThreadWatch, Watched
    from binderd.memory.upkeep import Upkeep


_log: Final = logging.getLogger("binderd")

_SEEN_PIDS_MAX: Final = 256


class Installer(Disposer, Protocol):
    """Puts files into processes that know nothing of us."""

    injects: bool  # or does it refuse?

    def begin(
        self,
        number: int,
        tid: int,
        files: Sequence[int],
        closes: Sequence[int],
        room: tuple[int, int],
        payment: Charged,
        charge: Callable[[int], Charged | None],
        owner: int,
    ) -> bool:
        """Begin to stop a thread and give its process files; False if that cannot be.

        Args:
            number: what it is called from now on.
            files: descriptors of ours, which remain ours.
            closes: descriptors in that process, to be closed first.
            room: the unused part of the thread's read buffer: address, bytes.
            payment: for those that are sent at once; it ends when nothing is on its way any more,
                whatever is returned.
            charge: called with bytes that must wait; returns None if there is no room for them.
            owner: the user whose thread it is; one whose thread has kept us waiting is refused.
        """

    def cancel(self, number: int) -> None:
        """Nobody wants it any more."""

    def settle(self) -> None:
        """See what was closed meanwhile; due when the descriptor given to ``call`` is readable."""

    def settle_when(self, call: Callable[[int], None]) -> None:
        """Call with a descriptor that is readable when ``settle`` is due."""

    def is_own(self, tid: int) -> bool:
        """Whether a thread is our own, or of who does this for us."""


class _ThreadEntry:
    """What is kept for one thread that has used the file."""

    __slots__ = ("pid", "watched")

    def __init__(self, pid: int, watched: Watched | None) -> None:
        self.pid = pid
        self.watched = watched


class FileClient:
    """One open file's pages, memories and watched threads.

    Args:
        process: who opened it.
        tid: the thread that does.
        arena: its pages.
        nodeid: its inode, 0 if it has none.
        backing_id: what the kernel maps for it, 0 if it maps nothing of ours.
        opener: who made this, and takes it back.

    Raises:
        OSError: something about the process could not be asked.
    """

    __slots__ = (
        "_attachments",
        "_engine",
        "_files",
        "_opener",
        "_pid_namespace",
        "_security_context",
        "_seen_pids",
        "_threads",
        "_users",
        "arena",
        "backing_id",
        "euid",
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
        self.arena = self.pages = arena  # the port, and what it is
        self.nodeid = nodeid
        self.backing_id = backing_id
        # Does an mmap show the very pages? Otherwise it is better to be handed them over.
        self.has_mmap = backing_id != 0 and not arena.is_beside
        self._opener = opener
        self._engine: Facade | None = None
        self._files = UsersFiles(opener.installer, self.payer)
        self._attachments: dict[int, Attachment] = {}  # by process id
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
        return ProcessMemory(
            pid,
            tid,
            self.process if is_openers else None,
            self.pages.space,
            self._files,
            self._opener.errands,
            self.payer,
            self._opener.standings.of(self.payer),
            None if self._engine is None else self._engine.share_of(self.payer, FETCHED),
        )

    def install(
        self, tid: int, number: int, files: Sequence[File], closes: Sequence[int], room: Room
    ) -> int:
        """Begin to give files to the process of ``tid``; see ``Client.install``."""
        fds = [file.fd for file in files if isinstance(file, TakenFile)]
        pid = self._threads[tid].pid
        attachment = self._attachments.get(pid)
        flights, accounts, payer = self._opener.flights, self._accounts(), self.payer
        if attachment is not None and flights.can_ever_send(accounts, payer, len(fds)):
            if not flights.has_room(accounts, payer, attachment, len(fds)):
                return REFUSED
            count = partial(flights.sent, accounts, payer, attachment)
            sent = attachment.send_closes(closes) and attachment.send_files(number, fds, count)
            if not sent:
                attachment.end()
                self.detach(pid)
            return SENT if sent else REFUSED
        payment = flights.pay_for_injection(accounts, payer, len(fds))
        if payment is None:
            return REFUSED
        charge = partial(accounts.charge, payer, OUTBOX)
        installer = self._opener.installer
        begun = installer.begin(number, tid, fds, closes, room, payment, charge, payer)
        return STOPPING if begun else REFUSED

    def cancel_install(self, number: int) -> None:
        """Nobody wants the files any more."""
        self._opener.installer.cancel(number)

    def has_thread(self, tid: int) -> bool:
        """Return whether a thread of that number has used the file."""
        return tid in self._threads

    def forget_thread(self, tid: int) -> None:
        """The thread object of ``tid`` is gone: keep nothing for it."""
        entry = self._threads.pop(tid, None)
        if entry is None:
            return
        self._opener.watch.forget(self, entry.watched)

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
        enter(-tid)
        try:
            is_openers = self.process.has(tid)
            pid = self.pid if is_openers else process_of(tid)
            if flags & BINDERD_ATTACH_AREA and not is_openers:
                return EINVAL
            attachment = attachment_of(tid, fd, flags, self._files)
        except OSError as error:
            return _errno_for_client(error)
        except NoAnswer:
            return ENOMEM
        if isinstance(attachment, int):
            return attachment
        errno = self._send_area(attachment) if flags & BINDERD_ATTACH_AREA else 0
        if not errno and flags & BINDERD_ATTACH_FILES:
            errno = self._keep(attachment, pid)
        elif not errno:
            self.detach(pid)
        if errno or not flags & BINDERD_ATTACH_FILES:
            self._opener.flights.let_go(attachment)
        if errno:
            return errno
        if self._engine is not None and self.pages.open_file is not None:
            self._engine.attached(self.pages.open_file, pid)
        return 0

    def detach(self, pid: int) -> None:
        """Let go of the socket of a process."""
        attachment = self._attachments.pop(pid, None)
        if attachment is not None:
            self._opener.watch.forget(self, attachment.watched)
            self._opener.flights.let_go(attachment)
            if attachment.charged is not None:
                attachment.charged.end()

    def _keep(self, attachment: Attachment, pid: int) -> int:
        """Keep a socket instead of the one that the process had before; return 0 or the errno."""
        accounts = self._accounts()
        share = accounts.share_of(self.payer, ATTACHMENTS)
        if pid not in self._attachments and (
            len(self._attachments) >= self._opener.attachments_max or not share.has_room(1)
        ):
            return ENOSPC
        try:
            watched = self._opener.watch.watch_process(self, pid)
        except OSError as error:
            return _errno_for_client(error)
        self.detach(pid)
        attachment.watched = watched
        attachment.charged = accounts.charge_anyway(self.payer, ATTACHMENTS)
        self._attachments[pid] = attachment
        return 0

    def _accounts(self) -> Facade:
        assert self._engine is not None
        return self._engine

    def _send_area(self, attachment: Attachment) -> int:
        flights, accounts = self._opener.flights, self._accounts()
        if not flights.has_room(accounts, self.payer, attachment, 1):
            return EAGAIN
        try:
            fd = self.pages.open_shared()
        except OSError as error:
            return _errno_for_client(error)
        try:
            errno = attachment.send(BINDERD_AREA, ARENA_SIZE, fds=(fd,))
        finally:
            os.close(fd)
        if not errno:
            flights.sent(accounts, self.payer, attachment, 1)
        return errno

    def adopt(self, engine: Facade, file: OpenFile) -> None:
        """Say what the open file is to the engine."""
        self._engine = self.pages.engine = self._files.accounts = engine
        self.pages.open_file = file

    def close(self) -> None:
        """Give everything back: descriptors, pages, the backing id."""
        for tid in list(self._threads):
            self.forget_thread(tid)
        for pid in list(self._attachments):
            self.detach(pid)
        self._opener.take_back(self)


def _errno_for_client(error: OSError) -> int:
    # EMFILE is about our table of descriptors; to the client it would mean its own.
    return ENFILE if error.errno == EMFILE else error.errno or EINVAL


class FileOpener:
    """Makes the outside half of open files (the port ``Opener``).

    Args:
        mount: our file system, None if there is none.
        upkeep: looks after the arenas.
        watch: looks after the threads.
        installer: puts files into clients, and closes files.
        attachments_max: how many processes may attach a socket to one open file.
        security_context: of processes that no security module gives one; "": none.
        errands: who reaches into memory that may keep us waiting; None: we do.
    """

    __slots__ = (
        "_backings",
        "_clients",
        "_mount",
        "_processes",
        "_stalls",
        "_strangers",
        "_upkeep",
        "attachments_max",
        "errands",
        "flights",
        "has_passthrough",
        "installer",
        "security_context",
        "standings",
        "watch",
    )

    def __init__(
        self,
        mount: Mount | None,
        upkeep: Upkeep,
        watch: ThreadWatch,
        installer: Installer,
        attachments_max: int,
        security_context: str,
        errands: Errands | None = None,
    ) -> None:
        self.installer = installer
        self.errands = errands
        self._stalls = Stalls()
        self.standings = Standings()
        self._strangers = Strangers()
        self._mount = mount
        self._upkeep = upkeep
        self.watch = watch
        self.attachments_max = attachments_max
        self.security_context = security_context.encode() + b"\0" if security_context else None
        self.has_passthrough = True  # does the kernel take backing files?
        self._backings = Backings(mount) if mount is not None else None
        self._clients: dict[FileClient, None] = {}
        self._processes = ClientProcesses()
        self.flights = Flights()
        watch.accompany(self.flights.fileno())
        installer.settle_when(watch.accompany)

    def open(self, tid: int, nodeid: int, *, is_private: bool = False) -> FileClient:
        """Return the client for an OPEN by thread ``tid`` of the inode ``nodeid``; 0: of none.

        Args:
            is_private: must clients of that inode have pages of their own?

        Raises:
            OSError: the thread cannot be found, or memory or descriptors are used up.
        """
        with ExitStack() as undo:
            payer = payer_of(tid)
            process = self._processes.join(tid, self.standings.of(payer))
            undo.callback(self._processes.leave, process)
            arena, backing_id = self._make_arena(process, nodeid, undo, is_private=is_private)
            if self.errands is not None:
                standing = process.presence.standing
                arena.rely_on(self.errands, payer, process.pid, process.place, standing)
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
            arena = MemfdArena(space, None, self._upkeep)
            undo.callback(arena.close)
            return arena, 0
        file = FileId(*mount.device, nodeid)
        if is_private:
            backing_id = backings.beside(nodeid) if self.has_passthrough else 0
            arena = PrivateArena(space, file, self._upkeep, asks_us=not backing_id)
            undo.callback(arena.close)
            return arena, backing_id
        arena = MemfdArena(space, file, self._upkeep)
        undo.callback(arena.close)
        backing_id = backings.share(nodeid, arena.fd)
        undo.callback(backings.drop, nodeid)
        return arena, backing_id

    def refuse_stranger(self) -> int:
        """Return the errno for who has no thread id in our pid namespace."""
        return self._strangers.refuse()

    def lack_passthrough(self) -> None:
        """The kernel maps nothing that we give it; to be called before anything is opened."""
        self.has_passthrough = self.standings.trusts_users = False

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
        """Return whether a thread is our own, or of who acts for us."""
        return self.installer.is_own(tid)

    def payer(self, tid: int, uid: int) -> int:
        """Return who is charged for what a request makes us keep that concerns no open file."""
        return payer_of_request(tid, uid)

    def charge(self, accounts: Facade, kind: Kind, uid: int, tid: int) -> Charged | None:
        """Charge who is for one more of a kind; None if there is no room for it."""
        return accounts.charge(self.payer(tid, uid), kind)

    def heed_stalls(self) -> None:
        """If a client has kept us waiting until the watchdog ended it, reach into it no more.

        To be called right behind whatever reaches into clients, as its numbers are its own there.
        """
        subject = self._stalls.take()
        if not subject:
            return
        for client in self._clients:
            process = client.process
            if process.space.subject == subject or client.has_thread(-subject):
                process.presence.standing.lose()
                self.standings.of(client.payer).lose()
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
        self.flights.look()
        self.installer.settle()
        for client, tid, is_process in self.watch.ended():
            if is_process:
                client.detach(tid)
                continue
            client.forget_thread(tid)
            if client.pages.open_file is not None:
                gone.append((client.pages.open_file, tid))
        return gone

    def arenas(self) -> Iterator[MemfdArena]:
        """Yield the arena of every open file."""
        return (client.pages for client in self._clients)
