# SPDX-License-Identifier: Apache-2.0
"""What the engine needs from the outside world, and nothing else.

Every port is synchronous.  ``binderd.memory`` implements them over real processes, and names them
as base classes: compiled, a call to such a class needs no look-up. Tests implement them over byte
arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from binderd.engine.kinds import Kind
    from binderd.engine.limits import Limits


# What ``Client.install`` and ``Client.close_descriptors`` return.
REFUSED: Final = 0  # it cannot be done
STOPPING: Final = 1  # the thread will be stopped for it: ``Engine.stopped`` says when
SENT: Final = 2  # the client was told how, and will do it itself

# What ``Client.user`` returns of a process that is no more.
GONE: Final = -1


class OpenFile:
    """One open file, as the outside knows it: an opaque token that ``Engine.open`` returns."""

    __slots__ = ()


class NoAnswer(Exception):
    """The kernel could not be asked now, as the daemon has no memory or no descriptor left.

    The answer is not known: nothing lasting may follow from it.
    """


class NotYet(Exception):
    """An access to a client's memory would block, so a worker process has to make it first.

    Nothing has happened. Once the fetch is over, the same call returns what the worker has got.
    """

    def __init__(self, fetch: Fetch) -> None:
        super().__init__()
        self.fetch = fetch


class Fetch(Protocol):
    """An access to a client's memory that a worker process is to make."""

    def begin(self, ticket: int) -> bool:
        """Begin; ``Engine.fetched`` follows, but not from within this call.

        Args:
            ticket: what ``fetched`` gets.

        Returns:
            False if it is over already: it has failed, and nothing follows.
        """


class Room(NamedTuple):
    """Bytes of a client's read buffer that nothing was put into yet."""

    address: int  # of the first, in the client
    size: int


class Mapping(NamedTuple):
    """Where the receiver has mapped its device file."""

    address: int  # first byte, in the receiver's address space
    size: int  # bytes, at most 4 MiB; the buffer area's capacity


class File(Protocol):
    """An open file taken from a sender, on its way to a receiver."""

    def close(self) -> None:
        """Let go of it."""


class Charged(Protocol):
    """A charge to a user, as the code sees it that knows when it ends."""

    number: int  # for how many

    def end(self) -> None:
        """It is over."""


class Share(Protocol):
    """How many of one kind a user has."""

    count: int

    @property
    def most(self) -> int:
        """How many the user may have if nobody else has any."""

    def has_room(self, number: int) -> bool:
        """Whether the user may have so many more."""

    def room(self) -> int:
        """Return how many more the user may have; 0 also where it has too many."""

    def add(self, number: int) -> None:
        """Count so many more."""

    def remove(self, number: int) -> None:
        """Count so many less."""


class Accounts(Protocol):
    """What each user has; users are named by ``Client.payer``. ``Engine`` implements it."""

    @property
    def limits(self) -> Limits:
        """How much a client can make the engine keep."""

    def share_of(self, payer: int, kind: Kind) -> Share:
        """Return how many of a kind a user has; one without an open file must be settled after."""

    def charge(self, payer: int, kind: Kind, number: int = 1) -> Charged | None:
        """Charge a user for so many more of a kind; None if there is no room for them."""

    def charge_anyway(self, payer: int, kind: Kind, number: int = 1) -> Charged:
        """Do that for what is there already."""

    def settle(self, payer: int) -> None:
        """A user is charged for less: forget it if that was the last."""


class Facade(Accounts, Protocol):
    """What the outside half of an open file may ask of the engine, and tell it."""

    def attached(self, file: OpenFile, pid: int) -> None:
        """The process ``pid`` takes its descriptors elsewhere from now on."""

    def mapping_of(self, file: OpenFile) -> Mapping | None:
        """Return where the opener has its pages; None before the first delivery."""

    def free_ranges(self, file: OpenFile) -> Iterator[tuple[int, int]]:
        """Return the free parts of the receive area as (offset, size) in bytes."""


class ReceiverArena(Protocol):
    """The pages of one open file that transactions are delivered into."""

    __slots__ = ()

    # Are the client's pages its own, so that it sees what is put here only after ``bring``?
    # It is known from ``locate`` on.
    is_private: bool

    def locate(self) -> Mapping | None:
        """Return where the opener has the pages mapped right now, None if it has not.

        Raises:
            NoAnswer: it could not be asked.
            NotYet: it is not known at once.
        """

    def is_alive(self) -> bool:
        """Return whether the program that opened the file is still there.

        Once it is not, it never is again: nobody else can receive through this file.

        Raises:
            NoAnswer: it could not be asked.
        """

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Put the daemon's own bytes at ``offset`` (bytes from the start of the mapping)."""

    def receive_at(self, offset: int, size: int) -> int:
        """Return the address in our own memory where ``size`` foreign bytes may be put.

        Raises:
            IndexError: they do not fit; the engine's mistake.
        """

    def bring(self, offset: int, size: int) -> bool:
        """Have the client see what is at ``offset`` here; only where its pages are its own.

        Returns:
            False if it has no such pages any more, or none that can be written to.

        Raises:
            NoAnswer: it could not be tried.
            NotYet: somebody else has to do it.
        """

    def forget(self, offset: int) -> None:
        """Nobody will ask any more for what ``bring`` has begun there."""

    def allocated_bytes(self) -> int:
        """Return how much memory the pages take."""

    def touched(self) -> None:
        """Say that buffers were freed, so that pages may be given back when things are quiet."""


class ClientMemory(Protocol):
    """The address space of one client thread, for as long as its request is open.

    An address that the client cannot use itself is reported by a short count, never by a signal.
    Whatever reads or writes raises ``NotYet`` where that would keep us waiting.
    """

    pid: int  # of the thread's process, in the daemon's pid namespace
    is_openers: bool  # is that the process that opened the file?
    # Does the thread's address space have the receive area, as far as was seen so far? It is seen
    # wherever ``read`` or ``write`` would otherwise reach another program than they did before.
    sees_area: bool
    # What was fetched is the current request's only: the engine says when that is through.

    def entered(self) -> None:
        """The thread was in user space: whatever it has may be something else than before."""

    def forget(self) -> None:
        """The request is through for which something was fetched."""

    def is_there(self) -> bool:
        """Return whether the thread, of which a request is open, is certain to be alive."""

    def be_present(self) -> None:
        """Return if the thread is in the kernel, and stays there until its request is answered.

        Raises:
            NotYet: it is not; its fetch is to have it come.
        """

    def missing(self, ranges: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        """Return those of some ranges, (address, bytes), that cannot be read at once."""

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Return if ranges, (address, bytes), can be read at once as far as they can be read.

        Raises:
            NotYet: some cannot; its fetch is for all of them, or for many.
        """

    def read(self, address: int, size: int) -> bytes:
        """Return up to ``size`` bytes; fewer where the readable memory ends."""

    def read_commands(self, address: int, size: int) -> bytes:
        """Return the same; payloads that are named there are copied next.

        So what the latest ones of the thread make likely may be brought along.
        """

    def write(self, address: int, data: bytes) -> bool:
        """Store all of ``data``; False if any byte could not be stored (EFAULT)."""

    def copy(self, address: int, size: int, arena: ReceiverArena, offset: int) -> bool:
        """Copy ``size`` bytes straight into ``arena`` at ``offset``: the one copy.

        Returns:
            False if any byte could not be read; bytes before it may have been copied.
        """

    def file(self, fd: int) -> File | None:
        """Return the open file that the thread has under ``fd``, None if there is none (EBADF).

        Raises:
            NoAnswer: it could not be asked.
        """

    def nice(self) -> int:
        """Return the thread's nice value."""

    def set_nice(self, nice: int) -> None:
        """Give the thread a nice value, as far as its own limits allow (binder_set_nice)."""

    def scatter(
        self,
        address: int,
        size: int,
        arena: ReceiverArena,
        offset: int,
        holes: Sequence[tuple[int, int]],
    ) -> list[bytes] | None:
        """Copy like ``copy``, but keep the bytes of ``holes`` away from the receiver.

        Args:
            holes: (start, size) in bytes relative to ``address``; increasing, not overlapping,
                inside the range.

        Returns:
            The bytes of each hole, read exactly once; None if any byte could not be read.
        """


class Client(Protocol):
    """The outside half of one open file."""

    __slots__ = ()

    arena: ReceiverArena
    payer: int  # the user that is charged for what is kept: the opener's, 0 is root
    euid: int  # the opener's effective user when it opened, in the daemon's user namespace
    nice: int  # of the opener, when it opened
    is_foreign: bool  # is the opener in another pid or user namespace than the daemon?

    def shares_opener(self, other: Client) -> bool:
        """Return whether one process has opened both files; numbers do not tell, once it is dead.

        It may be dead by now.
        """

    def pid_of(self, sender: Client) -> int:
        """Return the sender's process id as this client's pid namespace has it; 0: none.

        Of a sender that is dead it is the number that it had, which may be somebody else's now.

        Raises:
            NoAnswer: it could not be asked.
        """

    def uid_of(self, uid: int) -> int:
        """Return a user id as this client's user namespace has it; 2**32 - 1 if it has none.

        Raises:
            NoAnswer: it could not be asked.
        """

    def user(self) -> int:
        """Return the effective user that the opener's process has now, in our user namespace.

        Returns:
            GONE once it is dead, even if another process has its number then.

        Raises:
            NoAnswer: it could not be asked.
        """

    def security_context(self) -> bytes | None:
        """Return the opener's security context with its NUL, None where no LSM gives one."""

    def memory(self, tid: int) -> ClientMemory:
        """Return the memory of the thread ``tid`` (in the daemon's pid namespace).

        Called once per binder thread object, while a request of that thread is open.

        Raises:
            NoAnswer: it could not be asked.
        """

    def forget_thread(self, tid: int) -> None:
        """The thread object of ``tid`` is gone; its memory is not used any more."""

    def install(self, tid: int, number: int, files: Sequence[File], room: Room) -> int:
        """Begin to give ``files`` to the process of a thread, which has a request open.

        Each gets the lowest free number, in order, close-on-exec: all of them or none.

        Args:
            number: what the installation is called from now on; never used before.
            room: may be used meanwhile; what is there afterwards does not matter.

        Returns:
            STOPPING: ``Engine.stopped`` follows, when the request may be answered, then
            ``Engine.installed``; or ``Engine.installed`` alone if it fails before.
            SENT: the request is to be answered with BINDERD_ERRNO; the client reports the files'
            numbers with BINDERD_INSTALLED.
            REFUSED: neither; nothing will follow.
        """

    def cancel_install(self, number: int) -> None:
        """The files of an installation are no longer wanted: undo it if that is possible."""

    def close_descriptors(self, tid: int, number: int, numbers: Sequence[int]) -> int:
        """Begin to close descriptors of the process of a thread, which has a request open.

        Args:
            number: as of ``install``, and no number of an installation.
            numbers: the descriptors; those that are not open are left out.

        Returns:
            STOPPING and REFUSED: as of ``install``.
            SENT: the request is to be answered with BINDERD_ERRNO; nothing will follow.
        """
