# SPDX-License-Identifier: Apache-2.0
"""Files in flight: those that were sent through sockets and not taken yet.

The kernel counts them as files of the user that sends, and that is root; a user with many of them
on their way can send no more (``limits.FLIGHTS``). So they are counted here, for the user that is
to take them.

What was taken is known from the socket alone: what a client reports proves nothing, as it can look
at a message and leave it where it is. So a socket stays open until it is empty, also when its owner
has let go of it.

Nothing here may know what is sent, or why.
"""

from __future__ import annotations

import select
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from binderd.engine.limits import FILES_AT_ONCE, FLIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from binderd.descriptors.attachment import Attachment
    from binderd.engine.ports import Accounts, Charged

# There is an event for each message that is taken, and when the other end is gone.
_EVENTS: Final = select.EPOLLOUT | select.EPOLLET


class InFlight:
    """The sockets with files that may be in flight."""

    __slots__ = ("_by_user", "_epoll", "_left")

    def __init__(self) -> None:
        self._by_user: dict[int, dict[Attachment, None]] = {}  # by the user that is to take them
        self._left: dict[int, Attachment] = {}  # of no owner any more, by descriptor
        self._epoll = select.epoll()

    def __len__(self) -> int:
        """How many detached sockets are not empty yet."""
        return len(self._left)

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``look`` must be called."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Tell of nothing any more."""
        self._epoll.close()

    def can_ever_send(self, accounts: Accounts, payer: int, number: int) -> bool:
        """Whether so many files fit into a socket of a user if nothing else is on its way."""
        most = accounts.limits.flights_per_attachment
        return number <= min(most, accounts.share_of(payer, FLIGHTS).most)

    def has_room(self, accounts: Accounts, payer: int, attachment: Attachment, number: int) -> bool:
        """Whether so many files may be sent through a socket of a user now."""
        if attachment.in_flight() + number > accounts.limits.flights_per_attachment:
            return False
        return self._room(accounts, payer, number) >= number

    def sent(self, accounts: Accounts, payer: int, attachment: Attachment, number: int) -> None:
        """So many files went through a socket of a user with one message."""
        attachment.payments.append(accounts.charge_anyway(payer, FLIGHTS, number))
        self._by_user.setdefault(payer, {})[attachment] = None
        attachment.payer = payer

    def pay_for_injection(self, accounts: Accounts, payer: int, number: int) -> Charged | None:
        """Charge the user whose thread is stopped to install files for those sent to it at once.

        Args:
            number: of all the files.

        Returns:
            None if there is no room for any.
        """
        at_once = min(number, FILES_AT_ONCE)
        room = self._room(accounts, payer, at_once)
        if number and not room:
            return None
        return accounts.charge_anyway(payer, FLIGHTS, min(at_once, room))

    def let_go(self, attachment: Attachment) -> None:
        """Nothing more will be sent through a socket: close it as soon as it is empty."""
        if not attachment.in_flight():
            self._close(attachment)
            return
        self._left[attachment.fd] = attachment
        with suppress(OSError):  # then it is looked at when there is no room for more
            self._epoll.register(attachment.fd, _EVENTS)

    def look(self) -> None:
        """Close the sockets of which ``fileno`` tells that they may be empty."""
        for fd, _ in self._epoll.poll(0):
            attachment = self._left.get(fd)
            if attachment is not None and not attachment.in_flight():
                self._close(attachment)

    def _room(self, accounts: Accounts, payer: int, wanted: int) -> int:
        """Return how many more a user may have; if there seem too few, see what was taken."""
        share = accounts.share_of(payer, FLIGHTS)
        if share.room() < wanted:
            self._look_at(list(self._by_user.get(payer, ())))
        if share.room() < wanted <= share.most - share.count:
            for sockets in list(self._by_user.values()):  # it is not up to the user
                self._look_at(list(sockets))
        return share.room()

    def _look_at(self, attachments: Iterable[Attachment]) -> None:
        """See what of the sockets' files was taken meanwhile."""
        for attachment in attachments:
            if not attachment.in_flight():
                if attachment.fd in self._left:
                    self._close(attachment)
                else:
                    self._forget(attachment)

    def _forget(self, attachment: Attachment) -> None:
        payer = attachment.payer
        if payer is not None:
            attachment.payer = None
            sockets = self._by_user[payer]
            del sockets[attachment]
            if not sockets:
                del self._by_user[payer]

    def _close(self, attachment: Attachment) -> None:
        self._forget(attachment)
        if self._left.pop(attachment.fd, None) is not None:
            # The client may have the same open socket, so closing ours does not take it out.
            with suppress(OSError):
                self._epoll.unregister(attachment.fd)
        attachment.close()
