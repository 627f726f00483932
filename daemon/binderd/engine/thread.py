# SPDX-License-Identifier: Apache-2.0
"""A thread that calls the ioctl: its call stack, its blocked read, the work for it alone.

The loops that a thread runs are ``write.py`` for its commands and ``read.py`` for its returns. Here
is the state that both share.
"""

from __future__ import annotations

from errno import EINTR, ENOMEM
from typing import TYPE_CHECKING, Final

from binderd.engine.errors import BinderFailure
from binderd.engine.installation import BY_CLIENT, begin_closing
from binderd.engine.kinds import CALLS, NOTICES, THREADS
from binderd.engine.nice import Nice
from binderd.engine.owner import Reader
from binderd.engine.ports import NoAnswer
from binderd.engine.work import ErrorSlot
from binderwire.binder_abi import BR_DEAD_REPLY, BR_FAILED_REPLY, BR_OK

if TYPE_CHECKING:
    from binderd.engine.completion import Paused, WriteRead
    from binderd.engine.installation import DeferredClose, Installation
    from binderd.engine.pause import Unfinished
    from binderd.engine.ports import Client, ClientMemory, NotYet
    from binderd.engine.process import Process
    from binderd.engine.transaction import Transaction

# Looper states beside those of ``owner.py``, with the driver's values.
EXITED: Final = 0x04
INVALID: Final = 0x08
WAITING: Final = 0x10
POLL: Final = 0x20


class Thread(Reader):
    """A client thread, from its first ioctl or poll to BINDER_THREAD_EXIT or the close."""

    __slots__ = (
        "closes",
        "closing",
        "extended_error",
        "fetches",
        "for_process",
        "installation",
        "is_quiet",
        "keeps_area",
        "memory",
        "need_return",
        "nice",
        "parked",
        "paused",
        "pid",
        "process",
        "proven_buffer",
        "reply_error",
        "return_error",
        "stack",
        "tid",
        "uid",
        "unfinished",
    )

    def __init__(self, process: Process, tid: int, memory: ClientMemory) -> None:
        super().__init__(process.words)
        self.process: Process = process
        self.tid: int = tid  # in the daemon's pid namespace
        self.memory: ClientMemory = memory
        self.nice: Nice = Nice(memory)
        self.pid: int = memory.pid  # the thread's process, which need not be the opener (O10)
        self.uid = 0  # effective user of the latest request
        self.stack: Transaction | None = None  # innermost call, outgoing or incoming
        self.need_return = True  # must the next read come back even without work? (R6)
        self.return_error = ErrorSlot()  # its own failure to send
        self.reply_error = ErrorSlot()  # the failure of the call that it has sent
        self.parked: WriteRead | None = None  # the blocked read
        self.paused: WriteRead | None = None  # stopped between commands, or in its read
        self.unfinished: Unfinished | None = None  # the command that has stopped in the middle
        self.is_quiet = False  # does it not want to hear of replies that it has sent?
        self.fetches = False  # was anything fetched for the current ioctl (``ports.NotYet``)?
        self.keeps_area = False  # does that read keep the receive area where it was mapped?
        self.for_process = False  # may the current read take work of the process? (Q1)
        # For the transaction at the front of todo; None: not begun, or it needs none.
        self.installation: Installation | None = None
        self.closes: list[int] = []  # descriptors to be closed before this ioctl ends (O9)
        self.closing: DeferredClose | None = None  # the current ioctl's answer waits for it
        self.proven_buffer = -1  # read buffer address that could be written to before
        # (id, BR_ code, negative errno) of the latest transaction (E8)
        self.extended_error: tuple[int, int, int] = (0, BR_OK, 0)
        process.hub.stats.threads += 1
        process.hub.stats.threads_made += 1
        process.user.of(THREADS).add(1)

    def wake(self) -> None:
        if self.parked is not None:
            self.process.roster.runnable.append(self)
        elif self.looper & POLL:
            self.process.wake_pollers()

    def sleep(self, request: WriteRead) -> None:
        """Block in a read."""
        if self.parked is None:
            self.parked = request
            self.looper |= WAITING
            if self.memory.sees_area:
                self.keeps_area = True
                self.process.keepers += 1
            self.process.roster.parked[request.ticket] = self

    def _wake_up(self, request: WriteRead) -> None:
        """The blocked read ends."""
        del self.process.roster.parked[request.ticket]
        self.looper &= ~WAITING
        self.parked = None
        if self.keeps_area:
            self.keeps_area = False
            self.process.keepers -= 1

    # The end of a request, or its pause

    def complete(self, request: WriteRead, result: int) -> None:
        """End a BINDER_WRITE_READ; the argument goes back even with an errno (R8, R9)."""
        if self.parked is not None:
            self._wake_up(request)
        self.need_return = False
        if self.fetches:
            self.forget_fetched()
        request.result = result
        if self.closes:
            begin_closing(self)
        if self.closing is None:
            self.process.hub.outbox.append(request)
        else:
            self.closing.completion, self.closing = request, None

    def forget_fetched(self) -> None:
        """A request for which memory was fetched is over: drop that memory."""
        self.fetches = False
        self.memory.forget()

    def interrupt(self) -> None:
        """A signal has reached it while it is blocked in a read (R9)."""
        process, request = self.process, self.parked
        if request is None or self.is_being_served():
            return
        process.waiting.pop(self, None)
        self.complete(request, -EINTR)
        if process.todo:
            process.wake_one()

    def pause_read(self, request: WriteRead, paused: Paused) -> None:
        """Let others have their turn before a read goes on that has collected something."""
        self._hold(request)
        self.process.hub.pause(paused)

    def fetch(self, request: WriteRead, paused: Paused, reason: NotYet) -> None:
        """Let a request wait for what has to be fetched first."""
        self._hold(request)
        self.fetches = True
        self.process.hub.await_fetch(paused, reason)

    def _hold(self, request: WriteRead) -> None:
        """Keep a request that goes on later; a blocked read is not blocked meanwhile."""
        if self.parked is not None:
            self._wake_up(request)
        self.paused = request

    def abandon(self) -> None:
        """End the request of a thread that is being released; only a broken transport sees this."""
        if self.paused is not None:
            hub = self.process.hub
            request, self.paused = self.paused, None
            paused = hub.paused.pop(request.ticket, None) or hub.fetching.pop(request.ticket)
            paused.abandon()
            if self.unfinished is not None:
                self.unfinished.abandon()
                self.unfinished = None
            self.closes = []
            self.complete(request, -EINTR)
        elif self.parked is not None:
            self.complete(self.parked, -EINTR)

    def must_wait(self) -> bool:
        """Whether files have to be installed before anything can be read."""
        return self.installation is not None and not self.installation.is_over

    def is_being_served(self) -> bool:
        """Whether a read waits for an installation that will end soon, and nothing else ends."""
        installation = self.installation
        return self.must_wait() and installation is not None and installation.state != BY_CLIENT

    def fail(self, word: int) -> None:
        """Report its own failure to send; no further command is taken before it is read (Q10)."""
        assert self.return_error.word == BR_OK
        self.return_error.word = word
        self.enqueue(self.return_error)

    def fail_reply(self, word: int) -> None:
        """Report that a call that it has sent failed; a second one is dropped (Q8)."""
        if self.reply_error.word == BR_OK:
            self.reply_error.word = word
            self.enqueue(self.reply_error)

    def sending_user(self, *, one_way: bool) -> int:
        """Return the user in whose name it sends: the opener's, also if another has the file (I1).

        Differs: the driver asks for the user that the opener has at the moment, or had in the end.
        Here a file whose opener is dead, or has become another user (by running su, for one), is
        used in its user's own name.

        Raises:
            BinderFailure: -ENOMEM, the kernel could not be asked; or the opener's user has too many
                unread notices, or too many calls that are not answered.
        """
        user = self.process.user
        if not user.of(NOTICES).has_room(1) or not (one_way or user.of(CALLS).has_room(1)):
            raise BinderFailure(BR_FAILED_REPLY, -ENOMEM)
        if self.memory.is_openers:
            return self.uid
        client = self.process.client
        try:
            return client.euid if client.user() == client.euid else self.uid
        except NoAnswer:
            raise BinderFailure(BR_FAILED_REPLY, -ENOMEM) from None

    def shown_pid(self, reader: Client, euid: int) -> int:
        """Return the process id that the reader of a call of this thread is shown; 0: none (I1).

        It is the opener's, if that process still has the user that is shown beside it: a process id
        that another process has by now, or a process that has become another user, must not lend
        its rights to a call. A thread of the opener that waits in a request proves that its process
        is still there and the same.

        Args:
            reader: the process that reads the call.
            euid: the user that is shown beside it.

        Raises:
            NoAnswer: it could not be asked.
        """
        opener = self.process.client
        memory = self.memory
        is_there = self.parked is not None and memory.is_openers and memory.is_there()
        if not is_there and opener.user() != euid:
            return 0
        return reader.pid_of(opener) if reader.is_foreign else self.process.pid

    def release(self) -> None:
        """BINDER_THREAD_EXIT, or the thread has died (I7, binder_thread_release)."""
        self.abandon()
        self.leave()

    def leave(self) -> None:
        """Do what the end of a thread that is in no request takes.

        A caller that waits for this thread's reply gets BR_DEAD_REPLY, and so does the sender of a
        call that the thread has not read.
        """
        process = self.process
        del process.threads[self.tid]
        process.waiting.pop(self, None)
        if self.installation is not None:
            self.installation.cancel()
        self.is_dead = True
        call = self.stack
        unanswered = call if call is not None and call.target_thread is self else None
        while call is not None:
            if call.target_thread is self:
                call.lose_target()
                call = call.target_parent
            else:
                call.sender = None
                call.uncharge()
                call = call.sender_parent
        self.stack = None
        if unanswered is not None:
            unanswered.send_failed_reply(BR_DEAD_REPLY)
        process.withdraw(self.todo)
        if self.looper & POLL:
            process.wake_pollers()  # an epoll set that this thread has filled looks again (R15)
        process.client.forget_thread(self.tid)
        process.hub.stats.threads -= 1
        process.user.of(THREADS).remove(1)
