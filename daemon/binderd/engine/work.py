# SPDX-License-Identifier: Apache-2.0
"""Work: anything that can wait in a queue until a thread reads it.

A transaction, a completion, an error, a node's reference news, a death notice: the read loop treats
them all alike.  A work item is in at most one queue.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from binderd.engine import views
from binderd.engine.views import WorkView
from binderwire.binder_abi import BR_OK, BR_TRANSACTION_PENDING_FROZEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderd.engine.completion import WriteRead
    from binderd.engine.owner import Owner, Reader
    from binderd.engine.returns import Returns
    from binderd.engine.user import Share

UpdateKey = tuple[int, int, int, int]  # code, flags, sender's process id and user

pack_word: Final = Struct("=I").pack

# What ``deliver`` returns.
MORE: Final = 0  # the read goes on
LAST: Final = 1  # this ends the read (R4)
UNREADY: Final = 2  # files must be installed before; nothing was appended


class WorkQueue:
    """Work in the order in which it is read: from the front, unless it is withdrawn.

    Its items are linked: that takes no object and no look-up.
    """

    __slots__ = ("count", "first", "last")

    def __init__(self) -> None:
        self.first: Work | None = None
        self.last: Work | None = None
        self.count = 0

    def __bool__(self) -> bool:
        return self.first is not None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Work]:
        """Yield each item; none may come or go meanwhile."""
        work = self.first
        while work is not None:
            yield work
            work = work.behind

    def pop(self) -> Work:
        """Take the first item; there must be one."""
        work = self.first
        assert work is not None
        dequeue(work)
        return work


class Work:
    """One item of a queue."""

    __slots__ = ("before", "behind", "queue")

    def __init__(self) -> None:
        self.queue: WorkQueue | None = None  # where is it waiting?
        self.before: Work | None = None  # its neighbours there
        self.behind: Work | None = None

    def deliver(self, thread: Reader, out: Returns) -> int:
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

    def arrive(self, thread: Reader, out: Returns, before: int) -> bool:
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
    """Put ``work``, which is in no queue, at the end of ``queue``."""
    assert work.queue is None
    last = queue.last
    work.queue, work.before, work.behind = queue, last, None
    if last is None:
        queue.first = work
    else:
        last.behind = work
    queue.last = work
    queue.count += 1


def put_back(queue: WorkQueue, work: Work) -> None:
    """Put ``work``, which is in no queue, at the front of ``queue``."""
    first = queue.first
    work.queue, work.before, work.behind = queue, None, first
    if first is None:
        queue.last = work
    else:
        first.before = work
    queue.first = work
    queue.count += 1


def dequeue(work: Work) -> None:
    """Take ``work`` out of whatever queue it is in."""
    queue = work.queue
    if queue is None:
        return
    before, behind = work.before, work.behind
    if before is None:
        queue.first = behind
    else:
        before.behind = behind
    if behind is None:
        queue.last = before
    else:
        behind.before = before
    queue.count -= 1
    work.queue = work.before = work.behind = None


def cancel_first(queue: WorkQueue) -> None:
    """Withdraw what is at the front of ``queue`` (binder_release_work)."""
    queue.pop().cancel()


class Notice(Work):
    """A bare BR_ word: BR_TRANSACTION_COMPLETE and its kin.

    Args:
        share: of the user whose thread is to read it.
    """

    __slots__ = ("_share", "word")

    def __init__(self, word: int, share: Share) -> None:
        super().__init__()
        self.word = word
        self._share = share
        share.add(1)

    def deliver(self, thread: Reader, out: Returns) -> int:
        self._share.remove(1)
        thread.count_return(self.word)
        out.add(pack_word(self.word))
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
        super().__init__()
        self.word: int = BR_OK

    def deliver(self, thread: Reader, out: Returns) -> int:
        thread.count_return(self.word)
        out.add(pack_word(self.word))
        self.word = BR_OK
        return MORE

    def kind(self) -> int:
        return views.RETURN_ERROR

    def view(self, process: Owner, thread: Reader | None, now: int) -> WorkView:
        return WorkView(views.RETURN_ERROR, self.word)
