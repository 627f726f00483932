# SPDX-License-Identifier: Apache-2.0
"""Owners and readers: a process and its threads, as whatever they have sees them.

Nodes, refs, notices and buffers belong to a process: its user is charged for them, and its queue
takes their work items, which some thread then reads. That is all that they may know of ``Process``
and ``Thread``, the only subclasses of ``Owner`` and ``Reader``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from binderd.engine.ports import OpenFile
from binderd.engine.stats import Words
from binderd.engine.views import NUMBER_MASK
from binderd.engine.work import Work, WorkQueue, enqueue

if TYPE_CHECKING:
    from binderd.engine.completion import Paused
    from binderd.engine.hub import Hub
    from binderd.engine.notice import Delivered
    from binderd.engine.ports import Client
    from binderd.engine.user import User

# Looper states, with the driver's values (they show in its debug output).
REGISTERED: Final = 0x01
ENTERED: Final = 0x02


class Owner(OpenFile):
    """An open file, as what belongs to it sees it; arguments as ``Process`` has them."""

    __slots__ = (
        "abandoned",
        "client",
        "delivered_deaths",
        "delivered_freezes",
        "detects_spam",
        "files_queued",
        "hub",
        "is_dead",
        "is_frozen",
        "pid",
        "todo",
        "user",
        "withdrawal",
        "words",
    )

    def __init__(self, hub: Hub, pid: int, client: Client, user: User) -> None:
        self.hub: Hub = hub
        self.pid: int = pid
        self.client: Client = client
        self.user: User = user
        self.is_dead: bool = False
        self.is_frozen: bool = False
        self.todo: WorkQueue = WorkQueue()  # for any thread
        self.abandoned: deque[WorkQueue] = deque()  # of threads that have ended
        self.withdrawal: Paused | None = None  # the work that withdraws it, if that has paused
        self.delivered_deaths: Delivered = {}
        self.delivered_freezes: Delivered = {}
        self.files_queued: int = 0  # on their way to it
        self.detects_spam: bool = False  # does it want BR_ONEWAY_SPAM_SUSPECT?
        self.words: Words = Words()

    def count_return(self, word: int) -> None:
        """Count a BR_ word that one of its threads reads (binder_stat_br)."""
        self.words.returns[word & NUMBER_MASK].count += 1

    def announce(self, work: Work) -> None:
        """Queue work that any thread may read."""
        enqueue(self.todo, work)
        self.wake_one()

    def wake_one(self) -> None:
        """There is new work in ``todo``: wake the thread that fell asleep last (Q1)."""
        raise NotImplementedError

    def forget_node(self, ptr: int) -> None:
        """The node of ``ptr`` is gone."""
        raise NotImplementedError

    def manages(self, node: Work) -> bool:
        """Whether a node of this process is the context manager's right now."""
        raise NotImplementedError


class Reader:
    """A thread, as the work that it reads sees it.

    Args:
        words: counts what the process reads.
    """

    __slots__ = ("is_dead", "looper", "process_todo", "todo", "words")

    def __init__(self, words: Words) -> None:
        self.words: Words = words
        self.looper: int = 0
        self.todo: WorkQueue = WorkQueue()
        self.process_todo: bool = False  # does anything in todo end a sleep? (Q2)
        self.is_dead: bool = False

    def count_return(self, word: int) -> None:
        """Count a BR_ word that it reads (binder_stat_br)."""
        self.words.returns[word & NUMBER_MASK].count += 1

    def is_looper(self) -> bool:
        """Whether the thread said that it serves calls."""
        return bool(self.looper & (REGISTERED | ENTERED))

    def enqueue(self, work: Work) -> None:
        """Queue work that the thread must see at once."""
        enqueue(self.todo, work)
        self.process_todo = True
        self.wake()

    def wake(self) -> None:
        """Let a blocked read look again; it runs when the current request is through."""
        raise NotImplementedError
