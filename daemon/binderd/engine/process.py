# SPDX-License-Identifier: Apache-2.0
"""A process: one open file of a device, which is what the driver means by the word.

The same program may open a device several times and is then several processes here (I6).
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress
from errno import EINVAL, ENOMEM, EOPNOTSUPP, ESRCH
from typing import TYPE_CHECKING

from binderd.engine.buffers import Buffer, BufferArea
from binderd.engine.errors import BinderFailure, KernelErrno
from binderd.engine.kinds import AREAS, BUFFERS, NODES, OBJECTS, OPEN_FILES, THREADS
from binderd.engine.node import Node
from binderd.engine.notice import pop_delivered
from binderd.engine.owner import Owner
from binderd.engine.ports import NoAnswer
from binderd.engine.ref import HandleTable
from binderd.engine.thread import Thread
from binderd.engine.withdrawal import Withdrawal
from binderwire.binder_abi import BR_DEAD_REPLY, BR_FAILED_REPLY, BR_OK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderd.engine.context import Context
    from binderd.engine.hub import Hub
    from binderd.engine.installation import Installation
    from binderd.engine.pause import Waiting
    from binderd.engine.payload import Sizes
    from binderd.engine.ports import Client, Mapping
    from binderd.engine.roster import Roster
    from binderd.engine.user import User
    from binderd.engine.work import Work, WorkQueue


class Process(Owner):
    """An open file: its threads, nodes, handles, buffers and the work that any thread may do.

    Args:
        pid: the opener's process id, in the daemon's pid namespace.
        client: its pages and its memory.
        user: is charged for it.
        nonblocking: the file was opened with O_NONBLOCK.
    """

    __slots__ = (
        "_area",
        "_sorted_ptrs",
        "context",
        "freezings",
        "handles",
        "installations",
        "is_unmapped",
        "keepers",
        "mapping",
        "max_threads",
        "nodes",
        "nonblocking",
        "objects",
        "outstanding",
        "poll_armed",
        "received_one_way",
        "received_sync",
        "requested_threads",
        "roster",
        "started_threads",
        "threads",
        "waiting",
    )

    def __init__(
        self,
        hub: Hub,
        roster: Roster,
        context: Context,
        pid: int,
        client: Client,
        user: User,
        *,
        nonblocking: bool,
    ) -> None:
        super().__init__(hub, pid, client, user)
        self.roster: Roster = roster
        self.context: Context = context
        self.nonblocking = nonblocking
        self.mapping: Mapping | None = None  # where does the opener see its pages?
        self.is_unmapped = False  # for good
        self.keepers = 0  # threads whose blocked read keeps the mapping's address space alive
        self._area: BufferArea | None = None
        self.threads: dict[int, Thread] = {}  # by thread id
        self.nodes: dict[int, Node] = {}  # by ptr
        # The ptrs of all nodes, sorted, for BINDER_GET_NODE_DEBUG_INFO; keeping it so would cost
        # a new node the more, the more there are. None: it is to be made anew.
        self._sorted_ptrs: list[int] | None = None
        self.handles: HandleTable = HandleTable(self)
        self.waiting: dict[Thread, None] = {}  # threads asleep for work of the process, latest last
        self.freezings: dict[int, Waiting] = {}  # that wait for our calls to end, by ticket
        self.received_sync = False  # was a call refused while frozen?
        self.received_one_way = False  # was a one-way call queued while frozen?
        self.installations: dict[int, Installation] = {}  # under way for our threads, by number
        self.outstanding = 0  # transactions queued here or being answered here
        self.objects = 0  # in our buffers
        self.max_threads = 0
        self.requested_threads = 0  # BR_SPAWN_LOOPER sent, BC_REGISTER_LOOPER not seen yet
        self.started_threads = 0  # loopers started on our request; never goes down (R11)
        self.poll_armed = False  # must a poller of the file be told of the next work?
        hub.stats.processes += 1
        hub.stats.processes_made += 1
        roster.processes[self] = None
        user.of(OPEN_FILES).add(1)

    # Threads

    def thread(self, tid: int) -> Thread:
        """Return the thread object of ``tid``, a new one the first time (binder_get_thread).

        Raises:
            KernelErrno: ENOMEM, too many threads, of this process, its user or all; or nothing
                can be had of it now.
        """
        thread = self.threads.get(tid)
        if thread is None:
            most = self.hub.limits.threads_per_process
            if len(self.threads) >= most or not self.user.of(THREADS).has_room(1):
                raise KernelErrno(ENOMEM)
            try:
                memory = self.client.memory(tid)
            except NoAnswer:
                raise KernelErrno(ENOMEM) from None
            thread = self.threads[tid] = Thread(self, tid, memory)
        return thread

    def wake_one(self) -> None:
        if self.waiting:
            thread, _ = self.waiting.popitem()
            self.roster.runnable.append(thread)
        else:
            self.wake_pollers()

    def wake_pollers(self) -> None:
        """Wake the pollers of the file; spurious wakes are allowed."""
        if self.poll_armed:
            self.poll_armed = False
            self.roster.poll_wakes.append(self)

    def withdraw(self, queue: WorkQueue) -> None:
        """Withdraw what is in ``queue``: the thread that would read it has ended."""
        if queue:
            self.abandoned.append(queue)
            if self.withdrawal is None and not self.is_dead:
                self.withdrawal = Withdrawal(self)
                self.withdrawal.go_on()

    # Nodes

    def ptr_after(self, ptr: int) -> int | None:
        """Return the next higher ptr that has a node."""
        if self._sorted_ptrs is None:
            self._sorted_ptrs = sorted(self.nodes)
        index = bisect_right(self._sorted_ptrs, ptr)
        return self._sorted_ptrs[index] if index < len(self._sorted_ptrs) else None

    def manages(self, node: Work) -> bool:
        return self.context.manager is node

    def forget_node(self, ptr: int) -> None:
        del self.nodes[ptr]
        self._sorted_ptrs = None

    def node_for(self, ptr: int, cookie: int, flags: int) -> Node:
        """Return the node of ``ptr``; new if it was never sent before, else as first sent (N7).

        Raises:
            BinderFailure: -EINVAL, known with another cookie; -ENOMEM, too many nodes.
        """
        node = self.nodes.get(ptr)
        if node is None:
            limits, count = self.hub.limits, len(self.nodes)
            if count >= limits.nodes_per_process or (
                count >= limits.nodes_granted and not self.user.of(NODES).has_room(1)
            ):
                raise BinderFailure(BR_FAILED_REPLY, -ENOMEM)
            node = self.nodes[ptr] = Node(self, ptr, cookie, flags)
            self._sorted_ptrs = None
        elif node.cookie != cookie:
            node.put()
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        return node

    # Buffers

    def allocate(self, sizes: Sizes, one_way_from: int | None) -> Buffer:
        """Return a buffer in this process' receive area; arguments as ``BufferArea.allocate``.

        Raises:
            BinderFailure: BR_DEAD_REPLY -ESRCH where nothing is mapped (E1); BR_FAILED_REPLY
                -ENOMEM where that cannot be asked now, or the user has too much; otherwise as
                ``BufferArea.allocate``.
        """
        area = self._area
        if area is None:
            area = self._map_area()
        elif not self.keepers:
            self.look_for_area()
        if self.is_unmapped:
            raise BinderFailure(BR_DEAD_REPLY, -ESRCH)
        user = self.user
        granted = self.hub.limits.buffers_granted
        if area.count() >= granted and not user.of(BUFFERS).has_room(1):
            raise BinderFailure(BR_FAILED_REPLY, -ENOMEM)
        buffer = area.allocate(sizes, one_way_from)
        self.hub.stats.buffers += 1
        user.of(BUFFERS).add(1)
        return buffer

    def take_objects(self, buffer: Buffer, count: int) -> None:
        """See that ``buffer`` may hold so many more objects, and count them.

        Raises:
            BinderFailure: -ENOMEM, the user has too many.
        """
        share = self.user.of(OBJECTS)
        if self.objects + count > self.hub.limits.objects_granted and not share.has_room(count):
            raise BinderFailure(BR_FAILED_REPLY, -ENOMEM)
        buffer.objects += count
        self.objects += count
        share.add(count)

    def _drop_objects(self, buffer: Buffer) -> None:
        if buffer.objects:
            self.user.of(OBJECTS).remove(buffer.objects)
            self.objects -= buffer.objects
            buffer.objects = 0

    def free_buffer(self, buffer: Buffer) -> None:
        """Free a buffer whose transaction was queued (binder_free_buf)."""
        self.begin_free(buffer)
        self.discard_buffer(buffer)

    def begin_free(self, buffer: Buffer) -> None:
        """Detach a buffer that is going to be freed from its transaction.

        If that was a one-way call, the next one to the same node has its turn (Q7).
        """
        if buffer.transaction is not None:
            buffer.transaction.buffer = None
            buffer.transaction = None
        node = buffer.target_node
        if buffer.one_way_from is not None and node is not None:
            work = node.next_one_way()
            if work is None:
                node.has_one_way = False
            else:
                self.announce(work)

    def discard_buffer(self, buffer: Buffer) -> None:
        """Release what ``buffer`` holds and give back its space."""
        assert self._area is not None
        self._release_held(buffer)
        self._drop_objects(buffer)
        buffer.drop_files(self)
        if buffer.clear:
            self.client.arena.write(buffer.offset, bytes(buffer.size))
        self._area.free(buffer)
        self.hub.stats.buffers -= 1
        self.user.of(BUFFERS).remove(1)
        arena = self.client.arena
        if arena.is_private and (buffer.clear or not buffer.has_arrived):
            arena.forget(buffer.offset)
        arena.touched()

    def bring(self, buffer: Buffer) -> int:
        """Have the client see what is in a buffer, where its pages are its own.

        Returns:
            BR_OK, or the word that tells its sender why it cannot.

        Raises:
            NotYet: a worker has to write it first.
        """
        arena = self.client.arena
        if not arena.is_private or buffer.has_arrived:
            return BR_OK
        try:
            buffer.has_arrived = buffer.is_empty or arena.bring(buffer.offset, buffer.size)
        except NoAnswer:
            return BR_FAILED_REPLY
        if buffer.has_arrived:
            return BR_OK
        self.unmap()
        return BR_DEAD_REPLY

    def wipe(self, buffer: Buffer, thread: Thread) -> None:
        """Wipe what a thread is about to free, where the client's pages are its own (B6).

        Raises:
            NotYet: a worker has to write first; meanwhile no other thread may free it.
        """
        arena = self.client.arena
        if not arena.is_private or not buffer.clear or not buffer.has_arrived:
            return
        buffer.wiper = thread
        arena.write(buffer.offset, bytes(buffer.size))
        with suppress(NoAnswer):  # then the client keeps what it was sent
            if not arena.bring(buffer.offset, buffer.size):
                self.unmap()

    def take_back_buffer(self, buffer: Buffer) -> None:
        """Free a buffer whose sender will allocate it again later; it counts as never allocated."""
        self.discard_buffer(buffer)
        if self._area is not None and buffer.spam_suspect:
            self._area.report_spam_again()

    def release_target(self, buffer: Buffer) -> None:
        """Let go of the node that a call in ``buffer`` is for."""
        if buffer.target_node is not None:
            buffer.target_node.release_local(strong=True)
            buffer.target_node = None

    def release_object(self, strong: bool, target: int | Node) -> None:
        """Let go of what one object in a buffer has held."""
        if isinstance(target, Node):
            target.release_local(strong=strong)
            target.put()
        else:
            ref = self.handles.find(target, strong=strong)
            if ref is not None:
                ref.decrement(strong=strong)

    def _release_held(self, buffer: Buffer) -> None:
        self.release_target(buffer)
        if buffer.held is None:
            return
        for strong, target in buffer.held:
            self.release_object(strong, target)
        buffer.held = None

    def delivered_buffer(self, address: int) -> Buffer | None:
        """Return the buffer at ``address`` if the client may free it (B5)."""
        buffer = self._area.find(address) if self._area is not None else None
        return buffer if buffer is not None and buffer.allow_user_free else None

    @property
    def area(self) -> BufferArea | None:
        """The receive area; None before the first delivery and after the end."""
        return self._area

    def free_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield the free parts of the receive area as (offset, size) in bytes."""
        return self._area.free_ranges() if self._area is not None else iter(())

    def security_context(self) -> bytes:
        """Return the opener's security context, for a node that asks for its callers' (I2).

        Raises:
            BinderFailure: -EOPNOTSUPP, it has none.
        """
        context = self.client.security_context()
        if context is None:
            raise BinderFailure(BR_FAILED_REPLY, -EOPNOTSUPP)
        return context

    def end_transaction(self) -> None:
        """A transaction that was queued here is through; a freeze may be waiting for that."""
        self.outstanding -= 1
        if self.outstanding == 0 and self.is_frozen:
            self.hub.drained.append(self.freezings)

    def unmap(self) -> None:
        """The opener has no pages any more; nothing can be sent to it again (B8)."""
        self.is_unmapped = True

    def look_for_area(self) -> None:
        """See whether the program that has mapped the pages is still there.

        A thread that is blocked in a read keeps its address space alive, so this is for when there
        is none, or where one has just turned out to be in another.

        Raises:
            BinderFailure: -ENOMEM, it could not be asked.
        """
        try:
            if not self.client.arena.is_alive():
                self.unmap()
        except NoAnswer:
            raise BinderFailure(BR_FAILED_REPLY, -ENOMEM) from None

    def _map_area(self) -> BufferArea:
        if self.is_unmapped:
            raise BinderFailure(BR_DEAD_REPLY, -ESRCH)
        try:
            mapping = self.client.arena.locate()
        except NoAnswer:
            raise BinderFailure(BR_FAILED_REPLY, -ENOMEM) from None
        if mapping is None:
            raise BinderFailure(BR_DEAD_REPLY, -ESRCH)
        if not self.user.of(AREAS).has_room(mapping.size):
            raise BinderFailure(BR_FAILED_REPLY, -ENOMEM)
        self.user.of(AREAS).add(mapping.size)
        self.mapping = mapping
        self._area = BufferArea(mapping, self.hub.limits.buffers_per_process)
        return self._area

    # The end

    def drop_delivered(self) -> bool:
        """Forget a notice that was read and never will be acknowledged; False if there is none."""
        notice = pop_delivered(self.delivered_deaths) or pop_delivered(self.delivered_freezes)
        if notice is not None:
            notice.cancel()
        return notice is not None

    def drop_buffer(self) -> bool:
        """Forget a buffer whatever it holds; False if there is none."""
        if self._area is None or not self._area.count():
            return False
        _, buffer = self._area.buffers.popitem()
        if buffer.transaction is not None:
            buffer.transaction.buffer = None
        self._drop_objects(buffer)
        buffer.drop_files(self)
        self.hub.stats.buffers -= 1
        self.user.of(BUFFERS).remove(1)
        return True

    def close(self) -> None:
        """Everything is undone."""
        assert not (self.threads or self.nodes or self.waiting or self.todo or self.handles.refs)
        if self._area is not None:
            self.user.of(AREAS).remove(self._area.size)
            self._area = None
        self.hub.stats.words.add(self.words)
        self.hub.stats.processes -= 1
        self.user.of(OPEN_FILES).remove(1)
        self.settle_user()
        self.roster.released.append(self)

    def settle_user(self) -> None:
        """The user is charged for less: forget it if that was the last."""
        self.hub.users.settle(self.user)
