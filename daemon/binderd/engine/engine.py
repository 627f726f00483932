# SPDX-License-Identifier: Apache-2.0
"""The engine's facade: what a transport calls, and what it must do afterwards.

Every call runs to completion.  Each ioctl ends as exactly one ``Completion`` in ``outbox``, at once
or when a later call gives a blocked read something to return; the transport drains ``outbox`` and
``poll_wakes`` after every call and keeps their order. It also starts a timer for each entry of
``timers``, or stops it, and calls ``expire`` when one has run out.

A call that would take long stops in between and is listed in ``paused``; the transport calls
``go_on`` for it when others have had their turn. What waits for something to be fetched is listed
in ``fetching``, and there ``fetched`` ends the wait.

This is the top: it knows all nouns, and none of them may know it. What they share is in
``hub.py`` and ``roster.py``.

The engine does no I/O, decides nothing by a clock and starts nothing.  Debug ids come from a
counter of the instance, so that two engines with the same inputs produce the same bytes.
"""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING, Final

from binderd.engine import ioctls, snapshot, write_read
from binderd.engine.completion import Completion, Paused
from binderd.engine.context import Context
from binderd.engine.errors import KernelErrno
from binderd.engine.hub import Hub
from binderd.engine.installation import give_up
from binderd.engine.ioctls import argument_of
from binderd.engine.kinds import OPEN_FILES
from binderd.engine.limits import Limits
from binderd.engine.process import Process
from binderd.engine.release import Flush, Release
from binderd.engine.roster import Roster
from binderd.engine.thread import POLL
from binderd.engine.user import Payment
from binderd.engine.views import State
from binderd.engine.woken import run_woken
from binderwire.binder_abi import BINDER_WRITE_READ

if TYPE_CHECKING:
    from collections import OrderedDict, deque
    from collections.abc import Callable, Iterator, Sequence

    from binderd.engine.kinds import Kind
    from binderd.engine.pause import Waiting
    from binderd.engine.ports import Client, ClientMemory, Mapping, NotYet, OpenFile
    from binderd.engine.thread import Thread
    from binderd.engine.user import Share
    from binderd.engine.views import LoggedTransaction, Statistics

__all__ = ["Engine", "argument_of"]

POLLIN: Final = 1
POLLERR: Final = 8


class Engine:
    """All contexts of one daemon.

    Args:
        limits: how much a client can make the engine keep.
        clock: returns nanoseconds since any fixed moment. Only introspection shows what it says;
            nothing is decided by it.
    """

    __slots__ = (
        "_contexts",
        "_drained",
        "_hub",
        "_roster",
        "_runnable",
        "fetching",
        "outbox",
        "parked",
        "paused",
        "poll_wakes",
        "released",
        "timers",
    )

    def __init__(self, limits: Limits | None = None, clock: Callable[[], int] = lambda: 0) -> None:
        hub, roster = Hub(limits or Limits(), clock), Roster()
        self._hub: Hub = hub
        self._roster: Roster = roster
        self._contexts: dict[str, Context] = {}
        self._drained: list[dict[int, Waiting]] = hub.drained
        self._runnable: deque[Thread] = roster.runnable
        # What the transport sees to after each call; ``hub.py`` and ``roster.py`` say what it is.
        self.outbox: list[Completion] = hub.outbox
        self.poll_wakes: list[OpenFile] = roster.poll_wakes
        self.timers: list[tuple[int, int]] = hub.timers
        self.released: list[OpenFile] = roster.released
        self.paused: OrderedDict[int, Paused] = hub.paused
        self.fetching: dict[int, Paused] = hub.fetching
        self.parked: dict[int, Thread] = roster.parked

    # What the administrator and the transport decide

    @property
    def limits(self) -> Limits:
        """How much a client can make the engine keep."""
        return self._hub.limits

    def set_limits(self, limits: Limits) -> None:
        """Use other limits from now on; what clients have beyond them stays theirs."""
        self._hub.limits = limits
        self._hub.users.renew(limits)

    def set_pace(self, pace: Callable[[], bool]) -> None:
        """Have ``pace`` called between two steps of a call: should others have their turn now?"""
        self._hub.pace = pace

    def set_access(
        self, managers: Callable[[str], frozenset[int] | None], *, freezes_others: bool
    ) -> None:
        """Set which users may do what from now on.

        Args:
            managers: returns the users that may become manager of a context; None: the first one
                that asks, and from then on that user (I5).
            freezes_others: may a client freeze other users' processes, as in the driver?
        """
        self._hub.managers = managers
        self._hub.freezes_others = freezes_others

    # Calls of the transport

    def open(
        self, context: str, pid: int, client: Client, *, nonblocking: bool = False
    ) -> OpenFile:
        """A device was opened (binder_open).

        Args:
            context: the device's name; equal names share a context.
            pid: the opener's process id in the daemon's pid namespace.
            client: its pages and memory.
            nonblocking: opened with O_NONBLOCK.

        Raises:
            KernelErrno: ENOMEM, too many open files, of this user or of all.
        """
        user = self._hub.users.find(client.payer)
        if not user.of(OPEN_FILES).has_room(1):
            self._hub.users.settle(user)
            raise KernelErrno(ENOMEM)
        shared = self._contexts.get(context)
        if shared is None:
            shared = self._contexts[context] = Context(context)
        return Process(self._hub, self._roster, shared, pid, client, user, nonblocking=nonblocking)

    def ioctl(
        self,
        file: OpenFile,
        tid: int,
        uid: int,
        request: int,
        argument: bytes,
        ticket: int,
    ) -> None:
        """An ioctl; its end appears in ``outbox``.

        Args:
            tid: the calling thread, in the daemon's pid namespace.
            uid: its effective user.
            request: the ioctl number.
            argument: the bytes that the number's size stands for; fewer if the client passed a
                pointer that cannot be read.
            ticket: any number that no open request has.
        """
        assert isinstance(file, Process)
        try:
            thread = file.threads.get(tid) or file.thread(tid)
            thread.uid = uid
            if request == BINDER_WRITE_READ:
                write_read.begin(thread, argument, ticket)
            else:
                ioctls.run(thread, request, argument, ticket)
        except KernelErrno as failure:
            self.outbox.append(Completion(ticket, -failure.errno, argument))
        if self._runnable or self._drained:
            run_woken(self._hub, self._roster)

    def go_on(self, ticket: int) -> None:
        """Go on with something of ``paused``, up to its end or to another pause.

        Args:
            ticket: of it; one that is not there any more is ignored.
        """
        paused = self.paused.pop(ticket, None)
        if paused is not None:
            paused.go_on()
            run_woken(self._hub, self._roster)

    def fetched(self, ticket: int) -> None:
        """A fetch is over: the request that waited for it goes on with its next turn.

        Args:
            ticket: of ``fetching``; one that is not there any more is ignored.
        """
        self._hub.fetched(ticket)

    def await_fetch(self, paused: Paused, reason: NotYet) -> None:
        """Let a step of the transport's own wait in ``fetching`` until a fetch is over."""
        self._hub.await_fetch(paused, reason)

    def poll(self, file: OpenFile, tid: int, *, wake: bool) -> int:
        """Return POLLIN if the thread's next read would not block, else 0 (R15, binder_poll).

        Args:
            wake: put ``file`` into ``poll_wakes`` once there is more to find. Also after
                POLLIN: an edge-triggered epoll asks again for no other reason.

        Returns:
            POLLERR where there are too many threads.
        """
        assert isinstance(file, Process)
        try:
            thread = file.thread(tid)
        except KernelErrno:
            return POLLERR
        thread.looper |= POLL
        file.poll_armed = file.poll_armed or wake
        has_work = thread.process_todo or thread.need_return
        if has_work or (thread.stack is None and not thread.todo and file.todo):
            return POLLIN
        return 0

    def interrupt(self, ticket: int) -> None:
        """A signal reached the thread whose request has that ticket (R9)."""
        paused = self.paused.get(ticket) or self.fetching.get(ticket)
        if paused is not None:
            paused.interrupt()
            return
        thread = self.parked.get(ticket)
        if thread is not None:
            thread.interrupt()
            run_woken(self._hub, self._roster)
            return
        freezing = self._hub.waiting.get(ticket)
        if freezing is not None:
            freezing.give_up()

    def stopped(self, number: int) -> None:
        """The thread of an installation or a deferred close runs no code of its own until its end.

        So its request can be answered: with EINTR and what it has read so far if it is to be issued
        again, which the helper that has stopped the thread does in its name.
        """
        installation = self._roster.installations.get(number)
        if installation is not None:
            installation.stopped()
            return
        close = self._roster.deferred_closes.get(number)
        if close is not None:
            close.stopped()

    def installed(self, number: int, numbers: Sequence[int] | None) -> None:
        """An installation or a deferred close is over.

        Args:
            numbers: of the descriptors, in order; None: it failed and has left none behind. Of a
                deferred close it does not matter.
        """
        installation = self._roster.installations.get(number)
        if installation is not None:
            installation.end(numbers)
            run_woken(self._hub, self._roster)
            return
        close = self._roster.deferred_closes.get(number)
        if close is not None:
            close.end()
            run_woken(self._hub, self._roster)

    def attached(self, file: OpenFile, pid: int) -> None:
        """The process ``pid`` has attached a socket, and gets its descriptors there from now on.

        It may have lost the socket that it had before, and could never report what was in that.
        """
        assert isinstance(file, Process)
        give_up(file, pid)
        run_woken(self._hub, self._roster)

    def expire(self, timer: int) -> None:
        """A timer of ``timers`` has run out; one that is no longer waited for is ignored."""
        freezing = self._hub.timed.get(timer)
        if freezing is not None:
            freezing.wait_is_over(is_early=False)
            run_woken(self._hub, self._roster)

    def flush(self, file: OpenFile) -> None:
        """Some descriptor of the file was closed (I4, binder_flush)."""
        assert isinstance(file, Process)
        Flush(file).go_on()
        run_woken(self._hub, self._roster)

    def thread_gone(self, file: OpenFile, tid: int) -> None:
        """A thread died without BINDER_THREAD_EXIT.

        Differs: the driver keeps the thread object until the file is closed (I8).  Behind FUSE a
        BINDER_THREAD_EXIT with a NULL argument, which is the usual form, never reaches us; so its
        thread's death stands for it.
        """
        assert isinstance(file, Process)
        thread = file.threads.get(tid)
        if thread is not None:
            thread.release()
            run_woken(self._hub, self._roster)

    def unmapped(self, file: OpenFile) -> None:
        """The opener's pages are no longer mapped; senders get BR_DEAD_REPLY from now on (B8)."""
        assert isinstance(file, Process)
        file.unmap()

    def forget_context(self, context: str) -> None:
        """A device is gone; the next open of a device of that name makes a new context."""
        self._contexts.pop(context, None)

    def release(self, file: OpenFile) -> None:
        """The file's last reference is gone (binder_release).

        That may pause; ``released`` lists it when that is through.
        """
        assert isinstance(file, Process)
        Release(file).go_on()
        run_woken(self._hub, self._roster)

    def counts(self) -> dict[str, int]:
        """Return the number of live objects by kind; all zero when no file is open."""
        return {
            **self._hub.stats.as_dict(),
            "fetching": len(self.fetching),
            "freezing": len(self._hub.waiting),
            "installations": len(self._roster.installations) + len(self._roster.deferred_closes),
            "parked": len(self.parked),
            "paused": len(self.paused),
            "users": len(self._hub.users),
        }

    # What the outside half of a file asks for (``ports.Facade``)

    def memory_of(self, file: OpenFile, tid: int) -> ClientMemory:
        """Return the memory of a thread that has a request open and is going to use it.

        Raises:
            KernelErrno: ENOMEM, see ``Process.thread``.
        """
        assert isinstance(file, Process)
        memory = file.thread(tid).memory
        memory.entered()
        return memory

    def reach_through(
        self, file: OpenFile, tid: int, memory: ClientMemory, *, is_quiet: bool
    ) -> None:
        """Reach a thread, which has a request open, by other ways from now on.

        Args:
            memory: by which.
            is_quiet: does it want to hear no more that a reply has been sent?
        """
        assert isinstance(file, Process)
        thread = file.threads[tid]
        assert thread.parked is None
        assert thread.paused is None
        thread.memory = memory
        thread.proven_buffer = -1
        thread.is_quiet = is_quiet

    def mapping_of(self, file: OpenFile) -> Mapping | None:
        """Return where the opener has its pages; None before the first delivery."""
        assert isinstance(file, Process)
        return file.mapping

    def free_ranges(self, file: OpenFile) -> Iterator[tuple[int, int]]:
        """Return the free parts of the receive area as (offset, size) in bytes."""
        assert isinstance(file, Process)
        return file.free_ranges()

    # What each user has (``ports.Accounts``)

    def share_of(self, payer: int, kind: Kind) -> Share:
        """Return how many of a kind a user has; one without an open file must be settled after."""
        return self._hub.users.find(payer).of(kind)

    def charge(self, payer: int, kind: Kind, number: int = 1) -> Payment | None:
        """Charge a user for so many more of a kind; None if there is no room for them."""
        return self._hub.users.charge(payer, kind, number)

    def charge_anyway(self, payer: int, kind: Kind, number: int = 1) -> Payment:
        """Charge a user for what is there already, whether there is room or not."""
        return Payment(self._hub.users, self._hub.users.find(payer), kind, number)

    def settle(self, payer: int) -> None:
        """A user is charged for less: forget it if that was the last."""
        self._hub.users.settle(self._hub.users.find(payer))

    # What introspection sees

    def pids(self) -> list[int]:
        """Return the ids of all processes that have a device open."""
        return sorted(dict.fromkeys(process.pid for process in self._roster.processes))

    def take_state(self, *, pid: int | None = None, only_busy: bool = False) -> State:
        """Return the state as it is now.

        Args:
            pid: only of this process' open files, and no dead nodes.
            only_busy: no refs, no dead nodes, and no nodes without a one-way call.
        """
        state = State([], [])
        for _ in self.take_rows(state, pid=pid, only_busy=only_busy):
            pass
        return state

    def take_rows(
        self, state: State, *, pid: int | None = None, only_busy: bool = False
    ) -> Iterator[None]:
        """Fill in ``state``, a row between two steps; arguments as ``take_state`` has them."""
        processes = reversed(self._roster.processes)
        return snapshot.take_rows(state, processes, self._hub.clock(), pid, only_busy=only_busy)

    def is_small(self) -> bool:
        """Return whether the state of everything may be taken in one go."""
        return snapshot.is_small(self._hub)

    def take_statistics(self, page_size: int) -> Statistics:
        """Return the figures as they are now.

        Args:
            page_size: bytes.
        """
        processes = list(reversed(self._roster.processes))
        return snapshot.take_statistics(self._hub.stats, processes, page_size)

    def logged_transactions(self, *, failed: bool) -> list[LoggedTransaction]:
        """Return the latest transactions, or of them those that failed, the oldest first."""
        return (self._hub.failed_log if failed else self._hub.log).entries()
