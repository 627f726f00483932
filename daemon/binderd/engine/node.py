# SPDX-License-Identifier: Apache-2.0
"""A node: one binder object of one process, and the references to it.

A node is itself a work item: when it is read, its owner is told what has changed since it was last
told.  The news is computed from the state at that moment, so an increment and a decrement that meet
in the queue cancel out (N5).
"""

from __future__ import annotations

from collections import OrderedDict
from errno import EINVAL
from typing import TYPE_CHECKING

from binderd.engine import views
from binderd.engine.errors import BinderFailure
from binderd.engine.kinds import NODES
from binderd.engine.views import WorkView
from binderd.engine.work import MORE, UpdateKey, Work, WorkQueue, dequeue, enqueue, pack_word
from binderwire.binder_abi import (
    BR_ACQUIRE,
    BR_DECREFS,
    BR_FAILED_REPLY,
    BR_INCREFS,
    BR_RELEASE,
    FLAT_BINDER_FLAG_ACCEPTS_FDS,
    FLAT_BINDER_FLAG_PRIORITY_MASK,
    FLAT_BINDER_FLAG_TXN_SECURITY_CTX,
    binder_ptr_cookie,
)

if TYPE_CHECKING:
    from binderd.engine.owner import Owner, Reader
    from binderd.engine.ref import Ref
    from binderd.engine.returns import Returns
    from binderd.engine.stats import Stats


class Node(Work):
    """A binder object; ``process`` is None once its owner is gone and only refs keep it.

    Counts are the driver's: *internal* strong refs come from other processes' handles, *local* ones
    from buffers, from the owner's unacknowledged news and from being context manager.
    """

    __slots__ = (
        "_stats",
        "_updates",
        "accepts_fds",
        "cookie",
        "debug_id",
        "has_one_way",
        "has_strong",
        "has_weak",
        "internal_strong",
        "local_strong",
        "local_weak",
        "min_priority",
        "one_way_todo",
        "pending_strong",
        "pending_weak",
        "process",
        "ptr",
        "refs",
        "wants_security_context",
    )

    def __init__(self, process: Owner, ptr: int, cookie: int, flags: int) -> None:
        super().__init__()
        self.debug_id: int = process.hub.next_id()
        self.process: Owner | None = process
        self.ptr: int = ptr
        self.cookie: int = cookie
        self.min_priority: int = flags & FLAT_BINDER_FLAG_PRIORITY_MASK
        self.accepts_fds = bool(flags & FLAT_BINDER_FLAG_ACCEPTS_FDS)
        self.wants_security_context = bool(flags & FLAT_BINDER_FLAG_TXN_SECURITY_CTX)
        self.refs: dict[Owner, Ref] = {}
        self.internal_strong: int = 0
        self.local_strong: int = 0
        self.local_weak: int = 0
        self.has_strong: bool = False  # does the owner know of a strong reference?
        self.has_weak: bool = False
        self.pending_strong = False  # was BR_ACQUIRE sent and not acknowledged yet?
        self.pending_weak = False
        self.has_one_way: bool = False  # is a one-way call queued or its buffer not freed? (Q7)
        self.one_way_todo: WorkQueue = WorkQueue()
        # Those of them that a later one may replace, by what that must have as well (F4).
        self._updates: dict[UpdateKey, OrderedDict[Work, None]] = {}
        self._stats: Stats = process.hub.stats
        self._stats.nodes += 1
        self._stats.nodes_made += 1
        process.user.of(NODES).add(1)

    def has_owner(self) -> bool:
        """Whether its owner is still there."""
        return self.process is not None and not self.process.is_dead

    def is_manager(self) -> bool:
        """Whether this is the context manager's node right now."""
        return self.process is not None and self.process.manages(self)

    # One-way calls that wait for the one before (Q7)

    def queue_one_way(self, work: Work) -> None:
        """Let a one-way call wait behind the others."""
        enqueue(self.one_way_todo, work)
        key = work.update_key()
        if key is not None:
            group = self._updates.get(key)
            if group is None:
                group = self._updates[key] = OrderedDict()
            group[work] = None

    def next_one_way(self) -> Work | None:
        """Take the first one-way call that waits; None if there is none."""
        if not self.one_way_todo:
            return None
        work = self.one_way_todo.pop()
        self._forget_update(work)
        return work

    def take_outdated(self, update: Work) -> Work | None:
        """Take the first one-way call that waits and is replaced by ``update``."""
        key = update.update_key()
        group = None if key is None else self._updates.get(key)
        if group is None:
            return None
        outdated = next(iter(group))
        dequeue(outdated)
        self._forget_update(outdated)
        return outdated

    def _forget_update(self, work: Work) -> None:
        key = work.update_key()
        if key is not None:
            group = self._updates[key]
            del group[work]
            if not group:
                del self._updates[key]

    # Counting

    def acquire_internal(self, thread: Reader | None) -> None:
        """Count a first strong reference of some handle (binder_inc_node, strong, internal).

        Args:
            thread: whose read brings the owner the news (N6: the thread that sends the object);
                None if no such thread is at hand, and then only a node that is strong already can
                be acquired (N3: no upgrade of a weak handle).

        Raises:
            BinderFailure: -EINVAL, no thread and nothing strong yet.
        """
        is_strong = self.internal_strong or (self.is_manager() and self.has_strong)
        if thread is None and not is_strong:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        self.internal_strong += 1
        if thread is not None and not self.has_strong:
            dequeue(self)
            enqueue(thread.todo, self)  # deferred: does not by itself end the thread's sleep (Q3)

    def notice_weak(self, thread: Reader | None) -> None:
        """Bring the owner the news of a first weak reference (binder_inc_node, weak, internal)."""
        if thread is not None and not self.has_weak and self.queue is None:
            enqueue(thread.todo, self)

    def release_internal(self) -> None:
        """Drop what ``acquire_internal`` counted."""
        self.internal_strong -= 1
        self._settle_strong()

    def acquire_local(self, *, strong: bool) -> None:
        """Count a reference of a buffer or of the driver itself; no process is told."""
        if strong:
            self.local_strong += 1
        else:
            self.local_weak += 1

    def hold_as_manager(self) -> None:
        """The driver itself refers to the context manager's node, which its owner knows (I5)."""
        self.local_weak += 1
        self.local_strong += 1
        self.has_strong = self.has_weak = True

    def acknowledged(self, *, strong: bool) -> None:
        """The owner has taken note of BR_ACQUIRE or BR_INCREFS, if one was sent (E7)."""
        if strong:
            if not self.pending_strong:
                return
            self.pending_strong = False
        else:
            if not self.pending_weak:
                return
            self.pending_weak = False
        self.release_local(strong=strong)

    def release_local(self, *, strong: bool) -> None:
        """Drop what ``acquire_local`` counted."""
        if strong:
            self.local_strong -= 1
            self._settle_strong()
        else:
            self.local_weak -= 1
            self.settle()

    def _settle_strong(self) -> None:
        if self.local_strong or self.internal_strong:
            return
        self._queue_news_or_free()

    def settle(self) -> None:
        """See whether the node is still needed after a weak reference went (binder_dec_node)."""
        if self.local_weak or self.refs:
            return
        self._queue_news_or_free()

    def put(self) -> None:
        """The reference ends that a look-up by owner and ptr takes (binder_put_node).

        The driver lets that look like the end of a weak reference. So if the owner has yet to
        acknowledge what keeps the node, some thread of it is woken and finds no news: one that does
        not want to sleep then reads a bare BR_NOOP.
        """
        if self.process is not None:
            self.settle()

    def _queue_news_or_free(self) -> None:
        process = self.process
        if process is not None and (self.has_strong or self.has_weak):
            if self.queue is None:
                process.announce(self)
        elif not (self.refs or self.local_strong or self.local_weak):
            self.free()

    def free(self) -> None:
        """Forget the node; nothing refers to it any more."""
        assert not (self.refs or self.one_way_todo), "a node that is still in use"
        if self.process is not None:
            dequeue(self)
            self.process.forget_node(self.ptr)
            self.process.user.of(NODES).remove(1)
            self.process = None
        self._stats.nodes -= 1

    def orphan(self) -> None:
        """The owner has died: tell the processes that asked for it, live on while refs do (N11).

        No one-way call may be waiting any more. Its user is not charged any longer: what is left is
        part of what the refs cost.

        Mirrors binder_node_release.
        """
        dequeue(self)
        if self.process is not None:
            self.process.user.of(NODES).remove(1)
        self.process = None
        self.local_strong = self.local_weak = 0
        if not self.refs:
            self.free()
            return
        for ref in reversed(self.refs.values()):
            if ref.death is not None:
                ref.death.announce()

    # News for the owner

    def deliver(self, thread: Reader, out: Returns) -> int:
        """Tell the owner what changed: BR_INCREFS, BR_ACQUIRE, BR_RELEASE, BR_DECREFS (N5)."""
        strong = bool(self.internal_strong or self.local_strong)
        weak = strong or bool(self.refs or self.local_weak)
        told_strong, told_weak = self.has_strong, self.has_weak
        words = []
        if weak and not told_weak:
            words.append(BR_INCREFS)
            self.pending_weak = True
            self.local_weak += 1
        if strong and not told_strong:
            words.append(BR_ACQUIRE)
            self.pending_strong = True
            self.local_strong += 1
        if told_strong and not strong:
            words.append(BR_RELEASE)
        if told_weak and not weak:
            words.append(BR_DECREFS)
        self.has_strong, self.has_weak = strong, weak
        for word in words:
            thread.count_return(word)
            out.add(pack_word(word))
            out.add(binder_ptr_cookie.pack(self.ptr, self.cookie))
        if not weak:
            self.free()
        return MORE

    def kind(self) -> int:
        return views.NODE

    def view(self, process: Owner, thread: Reader | None, now: int) -> WorkView:
        return WorkView(views.NODE, self.debug_id, self.ptr, self.cookie)
