# SPDX-License-Identifier: Apache-2.0
"""The engine's facade: what a transport calls, and what it must do afterwards.

Every call runs to completion.  Each ioctl ends as exactly one ``Completion`` in ``outbox``, at once
or when a later call gives a blocked read something to return; the transport drains ``outbox`` and
``poll_wakes`` after every call and keeps their order. It also starts a timer for each entry of
``timers``, or stops it, and calls ``expire`` when one has run out.

A call that would take long stops in between and is listed in ``paused``; the transport calls
``go_on`` for it when others have had their turn. What waits for something to be fetched is listed
in ``errands``, and there ``fetched`` ends the wait.

The engine does no I/O, decides nothing by a clock and starts nothing.  Debug ids come from a
counter of the instance, so that two engines with the same inputs produce the same bytes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from errno import EBUSY, EFAULT, EINTR, EINVAL, ENOMEM
from typing import TYPE_CHECKING, Final

from binderd.engine import installation, read, write
from binderd.engine.completion import Completion
from binderd.engine.context import Context
from binderd.engine.errors import KernelErrno
from binderd.engine.freeze import Freezing
from binderd.engine.installation import Installation
from binderd.engine.ioctls import IOCTLS
from binderd.engine.kinds import OPEN_FILES
from binderd.engine.limits import Limits
from binderd.engine.log import TransactionLog
from binderd.engine.pause import PausedIoctl, PausedOther
from binderd.engine.ports import NotYet
from binderd.engine.process import Process
from binderd.engine.stats import Stats
from binderd.engine.thread import POLL, WAITING, Thread, WriteRead
from binderd.engine.user import Users
from binderwire.binder_abi import BINDER_WRITE_READ, binder_write_read
from binderwire.extension_abi import BINDERD_ERRNO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.engine.pause import Paused
    from binderd.engine.ports import Client

POLLIN: Final = 1
POLLERR: Final = 8
STOP: Final = -1  # milliseconds: the timer is not waited for any longer

_unpack_write_read = binder_write_read.unpack_from


class Engine:
    """All contexts of one daemon.

    Args:
        limits: how much a client can make the engine keep.
        clock: returns nanoseconds since any fixed moment. Only introspection shows what it says;
            nothing is decided by it.

    ``pace`` is called between two steps of a call and returns whether others should have their
    turn now; the transport sets it.
    """

    __slots__ = (
        "_contexts",
        "_freezings",
        "_last_errand",
        "_last_id",
        "_last_installation",
        "_last_timer",
        "_timed",
        "clock",
        "drained",
        "errands",
        "failed_log",
        "freezes_others",
        "installations",
        "limits",
        "log",
        "managers",
        "outbox",
        "pace",
        "parked",
        "paused",
        "poll_wakes",
        "processes",
        "released",
        "runnable",
        "stats",
        "timers",
        "users",
    )

    def __init__(self, limits: Limits | None = None, clock: Callable[[], int] = lambda: 0) -> None:
        self.limits = limits or Limits()
        self.clock = clock
        self.pace: Callable[[], bool] = _never
        # Whom the administrator lets become manager of a context; None: the first one's user (I5).
        self.managers: Callable[[str], frozenset[int] | None] = _whoever_is_first
        self.freezes_others = True  # may a client freeze other users' processes, as in the driver?
        self.stats = Stats()
        self.users = Users(self.limits)
        self.log = TransactionLog()  # the latest transactions
        self.failed_log = TransactionLog()  # the latest that failed
        self.outbox: list[Completion] = []
        self.poll_wakes: list[Process] = []
        self.parked: dict[int, Thread] = {}  # blocked reads by ticket
        # What others have come in between of, by ticket; < 0: not a client's request.
        self.paused: OrderedDict[int, Paused] = OrderedDict()
        self.errands: dict[int, Paused] = {}  # what waits for something to be fetched, by ticket
        self.runnable: deque[Thread] = deque()  # blocked threads that have something to look at
        self.processes: dict[Process, None] = {}  # all open files, the latest last
        self.drained: list[Process] = []  # frozen processes whose last call has ended
        # (number for ``expire``, milliseconds from now, or STOP)
        self.timers: list[tuple[int, int]] = []
        self._freezings: dict[int, Freezing] = {}  # that wait, by ticket
        self._timed: dict[int, Freezing] = {}  # the same, by timer
        self.released: list[Process] = []  # nothing of their clients will be used any more
        self.installations: dict[int, Installation] = {}  # under way, by number
        self._last_timer = self._last_installation = self._last_errand = 0
        self._contexts: dict[str, Context] = {}
        self._last_id = 0

    # Calls of the transport

    def open(self, context: str, pid: int, client: Client, *, nonblocking: bool = False) -> Process:
        """A device was opened (binder_open).

        Args:
            context: the device's name; equal names share a context.
            pid: the opener's process id in the daemon's pid namespace.
            client: its pages and memory.
            nonblocking: opened with O_NONBLOCK.

        Raises:
            KernelErrno: ENOMEM, too many open files, of this user or of all.
        """
        user = self.users.find(client.payer)
        if not user.of(OPEN_FILES).has_room(1):
            self.users.settle(user)
            raise KernelErrno(ENOMEM)
        shared = self._contexts.get(context)
        if shared is None:
            shared = self._contexts[context] = Context(context)
        return Process(self, shared, pid, client, user, nonblocking=nonblocking)

    def ioctl(
        self,
        process: Process,
        tid: int,
        uid: int,
        request: int,
        argument: bytes | memoryview,
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
        try:
            thread = process.threads.get(tid) or process.thread(tid)
            thread.uid = uid
            if request == BINDER_WRITE_READ:
                self._write_read(thread, argument, ticket)
            else:
                self.other_ioctl(thread, request, bytes(argument), ticket)
        except KernelErrno as failure:
            self.outbox.append(Completion(ticket, -failure.errno, bytes(argument)))
        if self.runnable or self.drained:
            self.run_woken()

    def go_on(self, ticket: int) -> None:
        """Go on with something of ``paused``, up to its end or to another pause.

        Args:
            ticket: of it; one that is not there any more is ignored.
        """
        paused = self.paused.pop(ticket, None)
        if paused is not None:
            paused.go_on()
            self.run_woken()

    def fetched(self, ticket: int) -> None:
        """What a request waited for is there, or will never be: it goes on with the next turn.

        Args:
            ticket: of ``errands``; one that is not there any more is ignored.
        """
        paused = self.errands.pop(ticket, None)
        if paused is not None:
            self.pause(paused)

    def poll(self, process: Process, tid: int, *, wake: bool) -> int:
        """Return POLLIN if the thread's next read would not block, else 0 (R15, binder_poll).

        Args:
            wake: put ``process`` into ``poll_wakes`` once there is more to find. Also after
                POLLIN: an edge-triggered epoll asks again for no other reason.

        Returns:
            POLLERR where there are too many threads.
        """
        try:
            thread = process.thread(tid)
        except KernelErrno:
            return POLLERR
        thread.looper |= POLL
        process.poll_armed = process.poll_armed or wake
        has_work = thread.process_todo or thread.need_return
        if has_work or (thread.stack is None and not thread.todo and process.todo):
            return POLLIN
        return 0

    def interrupt(self, ticket: int) -> None:
        """A signal reached the thread whose read is blocked under ``ticket`` (R9)."""
        paused = self.paused.get(ticket) or self.errands.get(ticket)
        if paused is not None:
            paused.interrupt()
            return
        thread = self.parked.get(ticket)
        if thread is not None and thread.is_being_served():
            return
        if thread is not None and thread.parked is not None:
            thread.process.waiting.pop(thread, None)
            self.complete(thread, thread.parked, -EINTR)
            if thread.process.todo:
                thread.process.wake_one()
            self.run_woken()
        freezing = self._freezings.get(ticket)
        if freezing is not None:
            freezing.give_up()
            self._end_wait(freezing, is_early=True)
            self.end_freeze(freezing, -EINTR)

    def stopped(self, number: int) -> None:
        """The thread that an installation concerns will run no code of its own before that is done.

        So its request can be answered: with EINTR and what it has read so far if it is to be issued
        again, which whoever stopped the thread does in its name.
        """
        found = self.installations.get(number)
        if found is None:
            return
        thread, completion = found.thread, found.completion
        if thread.closing is found:
            thread.closing = None  # its request sleeps, as files must be installed as well
        if completion is not None:
            found.completion = None
            self.outbox.append(completion)
        elif thread.parked is not None:
            self.complete(thread, thread.parked, -EINTR)

    def installed(self, number: int, numbers: Sequence[int] | None) -> None:
        """An installation is over.

        Args:
            numbers: of the descriptors, in order; None: it failed and has left none behind.
        """
        found = self.installations.get(number)
        if found is not None:
            installation.end(found, numbers)
            self.run_woken()

    def attached(self, process: Process, pid: int) -> None:
        """The process ``pid`` takes its descriptors elsewhere from now on.

        It may have lost the place where they were sent to before, and could never report them.
        """
        installation.give_up(process, pid)
        self.run_woken()

    def set_limits(self, limits: Limits) -> None:
        """Go by other limits from now on; what clients have beyond them stays theirs."""
        self.limits = limits
        self.users.renew(limits)

    def expire(self, timer: int) -> None:
        """A timer of ``timers`` has run out; one that is no longer waited for is ignored."""
        freezing = self._timed.get(timer)
        if freezing is not None:
            self._end_wait(freezing, is_early=False)
            freezing.wait_is_over()
            freezing.go_on()
            self.run_woken()

    def flush(self, process: Process) -> None:
        """Some descriptor of the file was closed (I4, binder_flush)."""
        process.flush()
        self.run_woken()

    def thread_gone(self, process: Process, tid: int) -> None:
        """A thread died without BINDER_THREAD_EXIT.

        Differs: the driver keeps the thread object until the file is closed (I8).  Behind FUSE a
        BINDER_THREAD_EXIT with a NULL argument, which is the usual form, never reaches us; so its
        thread's death stands for it.
        """
        thread = process.threads.get(tid)
        if thread is not None:
            thread.release()
            self.run_woken()

    def unmapped(self, process: Process) -> None:
        """The opener's pages are no longer mapped; senders get BR_DEAD_REPLY from now on (B8)."""
        process.unmap()

    def forget_context(self, context: str) -> None:
        """A device is gone; whoever opens one of that name from now on gets a new context."""
        self._contexts.pop(context, None)

    def release(self, process: Process) -> None:
        """The file's last reference is gone (binder_release).

        That may pause; ``released`` lists the process when it is through.
        """
        process.release()
        self.run_woken()

    def counts(self) -> dict[str, int]:
        """Return the number of live objects by kind; all zero when no file is open."""
        return {
            **self.stats.as_dict(),
            "errands": len(self.errands),
            "freezing": len(self._freezings),
            "installations": len(self.installations),
            "parked": len(self.parked),
            "paused": len(self.paused),
            "users": len(self.users),
        }

    # Services for the nouns

    def next_id(self) -> int:
        """Return the next debug id."""
        self._last_id += 1
        return self._last_id

    def next_errand(self) -> int:
        """Return what something is listed under in ``paused`` that is no request of a client."""
        self._last_errand -= 1
        return self._last_errand

    def new_installation(self, thread: Thread, count: int) -> Installation:
        """Return a new installation of ``count`` files for a thread."""
        self._last_installation += 1
        number = self._last_installation
        found = self.installations[number] = Installation(thread, number, count)
        thread.process.installations[number] = found
        return found

    def complete(self, thread: Thread, request: WriteRead, result: int) -> None:
        """End a BINDER_WRITE_READ; the argument goes back even with an errno (R8, R9)."""
        if thread.parked is not None:
            self._unpark(thread, request)
        thread.need_return = False
        if thread.fetches:
            self._forget_fetched(thread)
        completion = Completion(request.ticket, result, request.pack())
        if thread.closes:
            installation.begin_closing(thread)
        if thread.closing is None:
            self.outbox.append(completion)
        else:
            thread.closing.completion, thread.closing = completion, None

    def _unpark(self, thread: Thread, request: WriteRead) -> None:
        """A blocked read is blocked no longer."""
        del self.parked[request.ticket]
        thread.wake_up()
        thread.looper &= ~WAITING

    def abandon(self, thread: Thread) -> None:
        """End the request of a thread that is being released; only a broken transport sees this."""
        if thread.paused is not None:
            request, thread.paused = thread.paused, None
            paused = self.paused.pop(request.ticket, None) or self.errands.pop(request.ticket)
            paused.abandon()
            if thread.unfinished is not None:
                thread.unfinished.abandon()
                thread.unfinished = None
            thread.closes = []
            self.complete(thread, request, -EINTR)
        elif thread.parked is not None:
            self.complete(thread, thread.parked, -EINTR)

    def pause(self, paused: Paused) -> None:
        """Let others have their turn before this goes on."""
        self.paused[paused.ticket] = paused

    def pause_read(self, thread: Thread, paused: PausedIoctl) -> None:
        """Let others have their turn before a read goes on that has collected something."""
        self._hold(thread, paused.request)
        self.pause(paused)

    def fetch(self, paused: Paused, thread: Thread, request: WriteRead, reason: NotYet) -> None:
        """Let a request of a thread wait for what has to be fetched first."""
        self._hold(thread, request)
        thread.fetches = True
        self.await_errand(paused, reason)

    def _hold(self, thread: Thread, request: WriteRead) -> None:
        """A request of a thread goes on later; a read that was blocked is that no longer."""
        if thread.parked is not None:
            self._unpark(thread, request)
        thread.paused = request

    def await_errand(self, paused: Paused, reason: NotYet) -> None:
        """Let something wait until an errand is over; then it goes on with its next turn."""
        self.errands[paused.ticket] = paused
        if not reason.errand.begin(paused.ticket):
            self.fetched(paused.ticket)

    def carry_on(self, thread: Thread, request: WriteRead) -> None:
        """Do the commands of a BINDER_WRITE_READ from ``write_consumed`` on, then its read."""
        try:
            result = write.run(thread, request)
        except NotYet as reason:
            self.fetch(PausedIoctl(thread, request), thread, request, reason)
            return
        if result == write.PAUSED:
            thread.paused = request
            self.pause(PausedIoctl(thread, request))
        elif thread.closes and installation.begin_closing(thread):
            self._ask_again(thread, request)
        elif result:
            request.read_consumed = 0  # Q11
            self.complete(thread, request, result)
        else:
            self._read(thread, request)

    def await_calls(self, freezing: Freezing) -> None:
        """Let a freeze wait until the first of its processes has no calls any more."""
        self._last_timer += 1
        freezing.timer = self._last_timer
        self._freezings[freezing.ticket] = self._timed[freezing.timer] = freezing
        freezing.processes[0].freezings[freezing.ticket] = freezing
        self.timers.append((freezing.timer, freezing.timeout_ms))

    def end_freeze(self, freezing: Freezing, result: int) -> None:
        """End a BINDER_FREEZE."""
        freezing.end()
        self.users.settle(freezing.user)
        freezing.thread.need_return = False
        self.outbox.append(Completion(freezing.ticket, result, b""))

    def run_woken(self) -> None:
        """Take up the reads of all threads that were woken, and the freezes that may go on."""
        runnable, drained = self.runnable, self.drained
        while runnable or drained:
            while runnable:
                thread = runnable.popleft()
                if thread.parked is not None:
                    read.resume(thread, thread.parked)
            while drained:
                process = drained.pop()
                for freezing in list(process.freezings.values()):
                    if freezing.ticket in process.freezings and process.outstanding == 0:
                        self._end_wait(freezing, is_early=True)
                        freezing.wait_is_over()
                        freezing.go_on()

    # Inside

    def _end_wait(self, freezing: Freezing, *, is_early: bool) -> None:
        """End what ``await_calls`` has begun, before its time or because that is over."""
        del self._freezings[freezing.ticket], self._timed[freezing.timer]
        del freezing.processes[0].freezings[freezing.ticket]
        if is_early:
            self.timers.append((freezing.timer, STOP))
        freezing.timer = 0

    def _write_read(self, thread: Thread, argument: bytes | memoryview, ticket: int) -> None:
        if thread.parked is not None or thread.paused is not None:
            raise KernelErrno(EBUSY)  # one thread, two requests: no kernel does this
        if len(argument) < binder_write_read.size:
            raise KernelErrno(EFAULT)
        thread.forget_nice()
        thread.memory.is_settled = False
        request = WriteRead(ticket, _unpack_write_read(argument))
        request.write_end = min(
            request.write_size, request.write_consumed + self.limits.write_bytes_per_ioctl
        )
        # A read that goes on is past its commands, also past those that an error has held up (Q10).
        goes_on = thread.installation is not None and request.read_consumed > 0
        if goes_on:
            request.write_end = request.write_consumed
        if request.write_size and not goes_on:
            self.carry_on(thread, request)
        else:
            self._read(thread, request)

    def _forget_fetched(self, thread: Thread) -> None:
        thread.fetches = False
        thread.memory.forget()

    def _read(self, thread: Thread, request: WriteRead) -> None:
        if request.read_size:
            read.begin(thread, request)
        else:
            self.complete(thread, request, 0)

    def _ask_again(self, thread: Thread, request: WriteRead) -> None:
        """Have the client issue the request once more, after it has seen to its descriptors.

        The next request is still the one that must come back (R7).
        """
        if thread.fetches:
            self._forget_fetched(thread)
        self.outbox.append(Completion(request.ticket, -BINDERD_ERRNO, request.pack()))

    def other_ioctl(self, thread: Thread, request: int, argument: bytes, ticket: int) -> None:
        """Do an ioctl that is no BINDER_WRITE_READ; arguments and errors as of ``ioctl``."""
        row = IOCTLS.get(request)
        thread.memory.is_settled = False
        try:
            if row is None:
                raise KernelErrno(EINVAL)
            if len(argument) < row.size:
                raise KernelErrno(row.bad_pointer)
            outcome = row.handler(thread, argument)
        except NotYet as reason:
            self.await_errand(PausedOther(thread, request, argument, ticket), reason)
            return
        finally:
            thread.need_return = False
        if isinstance(outcome, Freezing):
            outcome.ticket = ticket
            outcome.go_on()
        else:
            self.outbox.append(Completion(ticket, 0, outcome))


def _whoever_is_first(context: str) -> frozenset[int] | None:
    return None


def _never() -> bool:
    return False
