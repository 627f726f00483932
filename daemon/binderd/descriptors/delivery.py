# SPDX-License-Identifier: Apache-2.0
"""Which way the processes that use an open file get descriptors, and have them closed.

A process that has attached a socket is sent both, and does it itself; the engine hears of it from
the client. Of any other the thread that reads is stopped, by the helper process; the engine hears
of it through ``reports``. What is under way is known where it can go wrong: what went through a
socket in ``in_flight.py``, the helper's jobs in ``injector.py``.
"""

from __future__ import annotations

import os
from errno import EAGAIN, EINVAL, EMFILE, ENFILE, ENOMEM, ENOSPC
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from binderd.descriptors.attachment import attachment_of
from binderd.engine.limits import ATTACHMENTS, OUTBOX
from binderd.engine.ports import REFUSED, SENT, STOPPING, NoAnswer
from binderd.memory.files import TakenFile
from binderd.memory.memfd_arena import ARENA_SIZE
from binderwire.extension_abi import BINDERD_AREA, BINDERD_ATTACH_AREA, BINDERD_ATTACH_FILES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binderd.descriptors.attachment import Attachment
    from binderd.descriptors.in_flight import InFlight
    from binderd.descriptors.outbox import Charge
    from binderd.engine.ports import Charged, Facade, File, Room
    from binderd.memory.client import FileClient
    from binderd.memory.thread_watch import ThreadWatch

_OK: Final = 0


def _errno_for_client(error: OSError) -> int:
    # EMFILE is about our table of descriptors; to the client it would mean its own.
    return ENFILE if error.errno == EMFILE else error.errno or EINVAL


class Jobs(Protocol):
    """What the helper process is to do; see ``Injector``."""

    injects: bool

    def install(
        self,
        number: int,
        tid: int,
        files: Sequence[int],
        room: tuple[int, int],
        payment: Charged,
        charge: Charge | None,
        owner: int,
    ) -> bool: ...

    def close_descriptors(
        self, number: int, tid: int, numbers: Sequence[int], charge: Charge | None, owner: int
    ) -> bool: ...

    def cancel(self, number: int) -> None: ...


class Shared(Protocol):
    """What all open files share; see ``Deliveries``."""

    watch: ThreadWatch
    attachments_max: int
    in_flight: InFlight

    @property
    def injector(self) -> Jobs: ...


class Delivery:
    """The ways to the processes that use one open file (the port ``Delivery``).

    Args:
        shared: what all open files share.
        client: the open file's outside half.
    """

    __slots__ = ("_attachments", "_client", "_shared")

    def __init__(self, shared: Shared, client: FileClient) -> None:
        self._shared = shared
        self._client = client
        self._attachments: dict[int, Attachment] = {}  # by process id

    @property
    def injects(self) -> bool:
        """Whether processes that do not attach get descriptors as well."""
        return self._shared.injector.injects

    def install(self, tid: int, pid: int, number: int, files: Sequence[File], room: Room) -> int:
        """Begin to give files to the process ``pid`` of a thread that has a request open.

        Args:
            number, room: as of ``Client.install``, and so is what is returned.
        """
        fds = [file.fd for file in files if isinstance(file, TakenFile)]
        accounts, payer, in_flight = self._engine(), self._client.payer, self._shared.in_flight
        attachment = self._attachments.get(pid)
        if attachment is not None and in_flight.can_ever_send(accounts, payer, len(fds)):
            if not in_flight.has_room(accounts, payer, attachment, len(fds)):
                return REFUSED
            count = partial(in_flight.sent, accounts, payer, attachment)
            return self._result(attachment, pid, attachment.send_files(number, fds, count))
        payment = in_flight.pay_for_injection(accounts, payer, len(fds))
        if payment is None:
            return REFUSED
        begun = self._shared.injector.install(
            number, tid, fds, room, payment, self._charge(), payer
        )
        return STOPPING if begun else REFUSED

    def close_descriptors(self, tid: int, pid: int, number: int, numbers: Sequence[int]) -> int:
        """Begin to close descriptors of the process ``pid`` of a thread that has a request open.

        Args:
            number, numbers: as of ``Client.close_descriptors``, and so is what is returned.
        """
        attachment = self._attachments.get(pid)
        if attachment is not None:
            return self._result(attachment, pid, attachment.send_closes(numbers))
        begun = self._shared.injector.close_descriptors(
            number, tid, numbers, self._charge(), self._client.payer
        )
        return STOPPING if begun else REFUSED

    def _charge(self) -> Charge:
        """Return how what must wait for the helper is charged."""
        return partial(self._engine().charge, self._client.payer, OUTBOX)

    def _result(self, attachment: Attachment, pid: int, was_sent: bool) -> int:
        """Return what comes of what was sent through a socket, of which a part is of no use."""
        if was_sent:
            return SENT
        attachment.end()
        self.detach(pid)
        return REFUSED

    def cancel(self, number: int) -> None:
        """The files of an installation are no longer wanted."""
        self._shared.injector.cancel(number)

    # The extension's socket

    def attach(self, tid: int, pid: int, fd: int, flags: int) -> int:
        """Take the socket that a thread of the process ``pid`` names, and send what is due at once.

        Args:
            tid: the thread, which has a request open.
            fd: the socket's number in its process.
            flags: BINDERD_ATTACH_...

        Returns:
            0 or the errno: see docs/EXTENSION.md.
        """
        try:
            attachment = attachment_of(tid, fd, flags, self._client.files)
        except OSError as error:
            return _errno_for_client(error)
        except NoAnswer:
            return ENOMEM
        if isinstance(attachment, int):
            return attachment
        errno = self._send_area(attachment) if flags & BINDERD_ATTACH_AREA else _OK
        if not errno and flags & BINDERD_ATTACH_FILES:
            errno = self._keep(attachment, pid)
        elif not errno:
            self.detach(pid)
        if errno or not flags & BINDERD_ATTACH_FILES:
            self._shared.in_flight.let_go(attachment)
        if errno:
            return errno
        file = self._client.pages.open_file
        if file is not None:
            self._engine().attached(file, pid)
        return _OK

    def detach(self, pid: int) -> None:
        """Let go of the socket of a process."""
        attachment = self._attachments.pop(pid, None)
        if attachment is not None:
            self._shared.watch.forget(self._client, attachment.watched)
            self._shared.in_flight.let_go(attachment)
            if attachment.charged is not None:
                attachment.charged.end()

    def close(self) -> None:
        """Let go of all sockets."""
        for pid in list(self._attachments):
            self.detach(pid)

    def _keep(self, attachment: Attachment, pid: int) -> int:
        """Keep a socket instead of the one that the process had before; return 0 or the errno."""
        accounts, payer = self._engine(), self._client.payer
        share = accounts.share_of(payer, ATTACHMENTS)
        if pid not in self._attachments and (
            len(self._attachments) >= self._shared.attachments_max or not share.has_room(1)
        ):
            return ENOSPC
        try:
            watched = self._shared.watch.watch_process(self._client, pid)
        except OSError as error:
            return _errno_for_client(error)
        self.detach(pid)
        attachment.watched = watched
        attachment.charged = accounts.charge_anyway(payer, ATTACHMENTS)
        self._attachments[pid] = attachment
        return _OK

    def _send_area(self, attachment: Attachment) -> int:
        """Send the receive area; return 0 or the errno."""
        accounts, payer, in_flight = self._engine(), self._client.payer, self._shared.in_flight
        if not in_flight.has_room(accounts, payer, attachment, 1):
            return EAGAIN
        try:
            fd = self._client.pages.open_shared()
        except OSError as error:
            return _errno_for_client(error)
        try:
            errno = attachment.send(BINDERD_AREA, ARENA_SIZE, fds=(fd,))
        finally:
            os.close(fd)
        if not errno:
            in_flight.sent(accounts, payer, attachment, 1)
        return errno

    def _engine(self) -> Facade:
        engine = self._client.pages.engine
        assert engine is not None
        return engine
