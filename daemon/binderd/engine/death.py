# SPDX-License-Identifier: Apache-2.0
"""Death notifications: who wants to know when a node's owner goes (N11).

A notice is registered on a ref, announced in its process' queue when the owner dies, and after it
was read it waits for BC_DEAD_BINDER_DONE.  Clearing it while it is announced or read does not take
it back: the client sees BR_DEAD_BINDER, and the clear's acknowledgement only after its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.engine import views
from binderd.engine.kinds import NOTICES
from binderd.engine.work import (
    LAST,
    MORE,
    Work,
    dequeue,
    drop_delivered,
    enqueue,
    note_delivered,
    pack_word,
)
from binderwire.binder_abi import (
    BR_CLEAR_DEATH_NOTIFICATION_DONE,
    BR_DEAD_BINDER,
    BR_ERROR,
    binder_uintptr_t,
)

if TYPE_CHECKING:
    from binderd.engine.process import Process
    from binderd.engine.thread import Thread


class Death(Work):
    """One registration; the client knows it by its cookie."""

    __slots__ = ("_process", "cleared", "cookie", "delivered", "only_acknowledge")

    def __init__(self, process: Process, cookie: int) -> None:
        self.queue = None
        self._process = process
        self.cookie = cookie
        self.cleared = False  # did the client withdraw it, so that no ref owns it any more?
        self.delivered = False  # was BR_DEAD_BINDER read, and BC_DEAD_BINDER_DONE not sent yet?
        self.only_acknowledge = (
            False  # is BR_CLEAR_DEATH_NOTIFICATION_DONE all that is left to say?
        )
        process.engine.stats.deaths += 1
        process.engine.stats.deaths_made += 1
        process.user.of(NOTICES).add(1)

    def announce(self) -> None:
        """The node's owner is dead; any thread of the process may read it."""
        enqueue(self._process.todo, self)
        self._process.wake_one()

    def deliver(self, thread: Thread, out: bytearray) -> int:
        """BR_DEAD_BINDER ends the read: a client may react with transactions (R4)."""
        if self.only_acknowledge:
            self._process.count_return(BR_CLEAR_DEATH_NOTIFICATION_DONE)
            out += pack_word(BR_CLEAR_DEATH_NOTIFICATION_DONE)
            out += binder_uintptr_t.pack(self.cookie)
            self._count_out()
            return MORE
        self._process.count_return(BR_DEAD_BINDER)
        out += pack_word(BR_DEAD_BINDER)
        out += binder_uintptr_t.pack(self.cookie)
        self.delivered = True
        note_delivered(self._process.delivered_deaths, self.cookie, self)
        return LAST

    def clear(self, thread: Thread) -> None:
        """BC_CLEAR_DEATH_NOTIFICATION with the right cookie."""
        self.cleared = True
        if self.queue is None and not self.delivered:
            self._acknowledge(thread)

    def done(self, thread: Thread) -> None:
        """BC_DEAD_BINDER_DONE for a notice that was read."""
        self._undeliver()
        if self.cleared:
            self._acknowledge(thread)

    def forget(self) -> None:
        """The ref is gone, and with it the registration, without a word (N4)."""
        dequeue(self)
        if self.delivered:
            self._undeliver()
        self._count_out()

    def cancel(self) -> None:
        """Withdrawn unread: only what no ref owns is counted out here."""
        if self.cleared:
            self._count_out()

    def kind(self) -> int:
        if self.only_acknowledge:
            return views.CLEAR_DEATH_NOTIFICATION
        return views.DEAD_BINDER_AND_CLEAR if self.cleared else views.DEAD_BINDER

    def _acknowledge(self, thread: Thread) -> None:
        self.only_acknowledge = True
        if thread.is_looper():
            thread.enqueue(self)
        else:
            enqueue(self._process.todo, self)
            self._process.wake_one()

    def _count_out(self) -> None:
        self._process.engine.stats.deaths -= 1
        self._process.user.of(NOTICES).remove(1)

    def _undeliver(self) -> None:
        self.delivered = False
        drop_delivered(self._process.delivered_deaths, self.cookie, self)


def request_death(thread: Thread, handle: int, cookie: int) -> None:
    """BC_REQUEST_DEATH_NOTIFICATION; a bad handle or a second request is ignored (E7).

    Where the user has too many the thread reads BR_ERROR, as when the driver has no memory.
    """
    ref = thread.process.handles.find(handle, strong=False)
    if ref is None or ref.death is not None:
        return
    if not thread.process.user.of(NOTICES).has_room(1):
        thread.fail(BR_ERROR)
        return
    ref.death = Death(thread.process, cookie)
    if ref.node.process is None:
        ref.death.announce()


def clear_death(thread: Thread, handle: int, cookie: int) -> None:
    """BC_CLEAR_DEATH_NOTIFICATION; ignored unless it fits a registration (E7)."""
    ref = thread.process.handles.find(handle, strong=False)
    if ref is None or ref.death is None or ref.death.cookie != cookie:
        return
    death, ref.death = ref.death, None
    death.clear(thread)


def death_done(thread: Thread, cookie: int) -> None:
    """BC_DEAD_BINDER_DONE; an unknown cookie is ignored (E7)."""
    waiting = thread.process.delivered_deaths.get(cookie)
    if waiting:
        next(iter(waiting)).done(thread)
