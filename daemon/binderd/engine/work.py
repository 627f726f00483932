# SPDX-License-Identifier: Apache-2.0
"""Work: anything that can wait in a queue until a thread reads it.

A transaction, a completion, an error, a node's reference news, a death notice: the read loop treats
them all alike.  A work item is in at most one queue.
"""

from __future__ import annotations

from collections import OrderedDict
from struct import Struct
from typing import TYPE_CHECKING, Final

from binderd.engine import views
from binderd.engine.views import WorkView
from binderwire.binder_abi import BR_OK, BR_TRANSACTION_PENDING_FROZEN

if TYPE_CHECKING:
    from binderd.engine.owner import Owner, Reader
    from binderd.engine.request import WriteRead
    from binderd.engine.user import Share

# An ordered set: work is taken from the front, and out of the middle when it is withdrawn.
WorkQueue = OrderedDict["Work", None]

UpdateKey = tuple[int, int, int, int]  # code, flags, sender's process id and user

pack_word: Final = Struct("=I").pack

# What ``deliver`` returns.
MORE: Final = 0  # the read goes on
LAST: Final = 1  # this ends the read (R4)
UNREADY: Final = 2  # files must be installed before; nothing was appended


class Work:
    """One item of a queue."""

    __slots__ = ("queue",)

    def __init__(self) -> None:
        self.queue: WorkQueue | None = None  # where is it waiting?

    def deliver(self, thread: Reader, out: bytearray) -> int:
        """Append what ``thread`` must be told to ``out``; return MORE, LAST or UNREADY."""
        raise NotImplementedError

    def begin_installation(self, thread: Reader, request: WriteRead) -> bool:
        """Begin what ``deliver`` found missing; see ``installation.begin``."""
        raise NotImplementedError

    def stored(self, thread: Reader, *, ok: bool) -> None:
        """What ``deliver`` ended the read with has reached the client's memory, or could not."""

    def withdraw(self, thread: Reader) -> bool:
        """The reader has turned out to be another program than it was sent to.

        Returns:
            Whether it was for the old one only, and is taken back.
        """
        return False

    def arrive(self, thread: Reader, out: bytearray, before: int) -> bool:
        """Have all that the reader is pointed to be in its memory.

        Args:
            out: what it will read.
            before: how much of that comes before this work, in bytes.

        Returns:
            False if that cannot be: it is over then, and ``out`` has what the reader is told of it.

        Raises:
            NotYet: somebody else has to see to it first.
        """
        return True

    def cancel(self) -> None:
        """Nobody will read this any more: its thread or process is going."""

    def update_key(self) -> UpdateKey | None:
        """Return what a later one-way call must have as well to replace this one (F4)."""
        return None

    def replaced(self) -> None:
        """A later one has taken its place, see ``update_key``."""
        raise NotImplementedError

    def kind(self) -> int:
        """Return which of the kinds in ``views.py`` it is."""
        raise NotImplementedError

    def view(self, process: Owner, thread: Reader | None, now: int) -> WorkView:
        """Return what introspection shows of it.

        Args:
            process: in whose queue it is.
            thread: in whose queue it is; None: the process' own or that of one of its nodes.
            now: by the engine's clock.
        """
        return WorkView(self.kind())


def enqueue(queue: WorkQueue, work: Work) -> None:
    """Put ``work`` at the end of ``queue``."""
    queue[work] = None
    work.queue = queue


def put_back(queue: WorkQueue, work: Work) -> None:
    """Put ``work`` at the front of ``queue``."""
    enqueue(queue, work)
    queue.move_to_end(work, last=False)


def dequeue(work: Work) -> None:
    """Take ``work`` out of whatever queue it is in."""
    if work.queue is not None:
        del work.queue[work]
        work.queue = None


def cancel_first(queue: WorkQueue) -> None:
    """Withdraw what is at the front of ``queue`` (binder_release_work)."""
    work, _ = queue.popitem(last=False)
    work.queue = None
    work.cancel()


class Notice(Work):
    """A bare BR_ word: BR_TRANSACTION_COMPLETE and its kin.

    Args:
        share: of the user whose thread is to read it.
    """

    __slots__ = ("_share", "word")

    def __init__(self, word: int, share: Share) -> None:
        self.queue = None
        self.word = word
        self._share = share
        share.add(1)

    def deliver(self, thread: Reader, out: bytearray) -> int:
        self._share.remove(1)
        thread.count_return(self.word)
        out += pack_word(self.word)
        return MORE

    def cancel(self) -> None:
        self._share.remove(1)

    def kind(self) -> int:
        if self.word == BR_TRANSACTION_PENDING_FROZEN:
            return views.TRANSACTION_PENDING
        return views.TRANSACTION_COMPLETE


class ErrorSlot(Work):
    """One of a thread's two pending errors (Q8); BR_OK while there is none."""

    __slots__ = ("word",)

    def __init__(self) -> None:
        self.queue = None
        self.word: int = BR_OK

    def deliver(self, thread: Reader, out: bytearray) -> int:
        thread.count_return(self.word)
        out += pack_word(self.word)
        self.word = BR_OK
        return MORE

    def kind(self) -> int:
        return views.RETURN_ERROR

    def view(self, process: Owner, thread: Reader | None, now: int) -> WorkView:
        return WorkView(views.RETURN_ERROR, self.word)
