# SPDX-License-Identifier: Apache-2.0
"""What death and freeze notices have in common: registrations on a ref, with a client's cookie.

A notice is announced in its process' queue, and after it was read it is kept until the client
acknowledges it.  Once the client has withdrawn it no ref owns it any more, and what is left to say
is that it is withdrawn.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from binderd.engine.kinds import NOTICES
from binderd.engine.work import LAST, MORE, Work, dequeue, pack_word
from binderwire.binder_abi import binder_uintptr_t

if TYPE_CHECKING:
    from binderd.engine.owner import Owner, Reader
    from binderd.engine.returns import Returns

# What was read and not acknowledged, by the client's cookie, which need not be unique.
Delivered = dict[int, OrderedDict["Notification", None]]


class Notification(Work):
    """One registration; the client knows it by its cookie.

    Args:
        process: whose ref it is on.
        delivered: where that process keeps what was read and not acknowledged.
    """

    __slots__ = ("_delivered", "cleared", "cookie", "process", "sent")

    def __init__(self, process: Owner, cookie: int, delivered: Delivered) -> None:
        super().__init__()
        self.process: Owner = process
        self.cookie: int = cookie
        self.cleared: bool = False  # did the client withdraw it, so that no ref owns it any more?
        self.sent: bool = False  # was it read, and not acknowledged yet?
        self._delivered: Delivered = delivered
        process.user.of(NOTICES).add(1)

    def announce(self) -> None:
        """Any thread of the process may read it."""
        self.process.announce(self)

    def clear(self, thread: Reader) -> None:
        """The client withdraws it, and has named the right cookie."""
        raise NotImplementedError

    def done(self, thread: Reader) -> None:
        """The client acknowledges that it was read."""
        raise NotImplementedError

    def forget(self) -> None:
        """The ref is gone, and with it the registration, without a word (N4)."""
        dequeue(self)
        if self.sent:
            self.undeliver()
        self.count_out()

    def cancel(self) -> None:
        """Withdrawn unread: only what no ref owns is counted out here."""
        if self.cleared:
            self.count_out()

    def tell(self, word: int, payload: bytes, out: Returns) -> int:
        """Report; that ends the read: a client may react with transactions (R4)."""
        self.process.count_return(word)
        out.add(pack_word(word))
        out.add(payload)
        self.sent = True
        group = self._delivered.get(self.cookie)
        if group is None:
            group = self._delivered[self.cookie] = OrderedDict()
        group[self] = None
        return LAST

    def tell_cleared(self, word: int, out: Returns) -> int:
        """Say that it is withdrawn, which is the last of it."""
        self.process.count_return(word)
        out.add(pack_word(word))
        out.add(binder_uintptr_t.pack(self.cookie))
        self.count_out()
        return MORE

    def undeliver(self) -> None:
        """It was read, and is acknowledged now or never will be."""
        self.sent = False
        group = self._delivered[self.cookie]
        del group[self]
        if not group:
            del self._delivered[self.cookie]

    def count_out(self) -> None:
        """It is gone."""
        self.process.user.of(NOTICES).remove(1)


def pop_delivered(groups: Delivered) -> Notification | None:
    """Take any notice that was read; None if there is none."""
    if not groups:
        return None
    cookie, group = groups.popitem()
    notice, _ = group.popitem()
    if group:
        groups[cookie] = group
    return notice
