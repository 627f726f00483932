# SPDX-License-Identifier: Apache-2.0
"""Fair queueing: users share the daemon's time, and the processes of a user its share.

Theory of operation. Each user has an account of the time that its requests have taken. While
no user is ahead, requests are served as they come, and that is all that happens to them. A user
that is QUANTUM_NS ahead of the others (``_base``) waits: its requests are queued, and the user that
has spent least is served next (start-time fair queueing). When no request is left all users are
even again.

That shares the time, but it does not bound how long other users wait for a piece of work that
cannot be stopped in the middle. So a user pays for a piece longer than LONG_NS with a pause while
other users are active: twice its length, so that another user's call, which is three requests,
waits for one such piece at most. If a piece exceeded TOO_LONG_NS its user owes PAUSE_FACTOR times
its length, so that fewer than one call in a hundred waits for such a piece. The length is in wall
time, as other users wait that long; but a user cannot help being preempted in the middle, so
TOO_LONG_NS is of processor time. Nor can it help that a usual request takes that much once in a
while (cold caches, the collector): the debt passes with time, and a user that owes GRACE_NS or less
is served.

Requests that look names up have an account of their own, which never has such pieces: while they
wait, the kernel holds locks that other users need.

Nothing here may know what a request means. Times are nanoseconds of clocks that are handed in.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

QUANTUM_NS: Final = 100_000  # two usual calls
LONG_NS: Final = 250_000
TOO_LONG_NS: Final = 1_500_000
PAUSE_FACTOR: Final = 100
PAUSE_MAX_NS: Final = 2_000_000_000
GRACE_NS: Final = 1_000_000_000  # 10 ms of pieces that were too long
ACTIVE_NS: Final = 1_000_000_000  # since a user's last request, so long is it active
_MARK_NS: Final = 250_000  # how old what is known of the processor's time may be

# How much may wait until ``set_room`` says otherwise. More is answered with ENOMEM.
_WAITING_BYTES: Final = 32 << 20
_ROOT: Final = 0
_ENTRY_BYTES: Final = 512  # beside the request itself
_ACCOUNTS_KEPT: Final = 4096

_NOBODY: Final = -1
_AT_NAMES: Final = 1
_AT_FILES: Final = 0


class Job:
    """A request, or the rest of one, that waits in a user's queue."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size + _ENTRY_BYTES  # bytes that it takes

    def run(self) -> None:
        """Do it, or a piece of it; what is due is written as well."""
        raise NotImplementedError


class Account:
    """What one user has spent, and what of it waits.

    Args:
        user: its number; -1: of what no user pays for.
    """

    __slots__ = (
        "bytes",
        "files",
        "is_held",
        "is_queued",
        "owes_until",
        "queues",
        "spent",
        "user",
        "waits",
    )

    def __init__(self, user: int) -> None:
        self.user = user
        self.spent = 0  # in virtual time; compared with what others have
        self.waits = False  # must the next request be put off?
        self.is_held = False  # does it pay for something long?
        self.owes_until = 0  # when is it even for what took too long?
        self.is_queued = False  # is it among those whose turn may come?
        self.bytes = 0  # what its waiting requests take
        self.files = 0  # open ones
        self.queues: dict[int, deque[Job]] = {}  # by process; the first has the next turn

    def take(self, process: int) -> Job:
        """Return the next job of a process that has one; others of the user's come before more."""
        queue = self.queues.pop(process)
        job = queue.popleft()
        if queue:
            self.queues[process] = queue
        self.bytes -= job.size
        return job


class Turns:
    """All users' accounts, and the requests that wait in them.

    Args:
        clock: returns nanoseconds since any fixed moment.
        worked: returns nanoseconds of processor time that we have used.
    """

    __slots__ = (
        "_accounts",
        "_ahead",
        "_base",
        "_clock",
        "_held",
        "_latest",
        "_latest_at",
        "_marked_at",
        "_marked_work",
        "_most",
        "_most_of_ordinary",
        "_most_of_user",
        "_nobody",
        "_number",
        "_others_at",
        "_payers",
        "_ready",
        "_sweep_at",
        "_top",
        "_worked",
        "bytes",
        "files",
        "now",
        "payer",
        "process",
        "waiting",
    )

    def __init__(self, clock: Callable[[], int], worked: Callable[[], int]) -> None:
        self._clock = clock
        self._worked = worked
        self._nobody = Account(_NOBODY)
        self.payer = self._nobody  # of what is being done
        self.process = 0  # for which process
        self.files: dict[int, tuple[Account, int]] = {}  # by handle: the account, the process
        self._most = self._most_of_user = self._most_of_ordinary = _WAITING_BYTES
        self.waiting = 0  # jobs
        self.bytes = 0  # that they take
        self._accounts: tuple[dict[int, Account], dict[int, Account]] = ({}, {})
        self._sweep_at = _ACCOUNTS_KEPT
        self._payers: dict[int, int] = {}  # users that another one pays for, as was seen
        self._base = self._top = 0  # where the others are; the most that anybody has spent
        self._ahead: dict[Account, None] = {}  # users that may have to wait
        self._ready: list[tuple[int, int, Account]] = []  # (spent, number, account), a heap
        self._held: list[tuple[int, int, Account]] = []  # (until, number, account), a heap
        self._number = 0
        self.now = 0  # when was the clock looked at last?
        self._marked_at = self._marked_work = 0
        self._latest = _NOBODY
        self._latest_at = self._others_at = -ACTIVE_NS - 1

    # Accounts

    def opened(self, handle: int, uid: int, payer: int, process: int) -> None:
        """A file was opened by user ``uid`` for whom ``payer`` pays."""
        account = self._account(payer, _AT_FILES)
        account.files += 1
        self.files[handle] = (account, process)
        if payer != uid:
            if len(self._payers) >= _ACCOUNTS_KEPT:
                del self._payers[next(iter(self._payers))]
            self._payers[uid] = payer

    def closed(self, handle: int) -> None:
        """A file is not open any more."""
        file = self.files.pop(handle, None)
        if file is not None:
            file[0].files -= 1

    def of_user(self, uid: int) -> Account:
        """Return the account for what ``uid`` does without an open file."""
        return self._account(self._payers.get(uid, uid), _AT_FILES)

    def of_names(self, uid: int) -> Account:
        """Return the account for requests that look at names and attributes."""
        return self._account(self._payers.get(uid, uid), _AT_NAMES)

    def of_payer(self, payer: int) -> Account:
        """Return the account of a user."""
        return self._account(payer, _AT_FILES)

    def _account(self, payer: int, kind: int) -> Account:
        accounts = self._accounts[kind]
        account = accounts.get(payer)
        if account is None:
            if len(accounts) >= self._sweep_at:
                self._sweep()
            account = accounts[payer] = Account(payer)
        return account

    def _sweep(self) -> None:
        """Forget accounts that have no request waiting and owe nothing."""
        most = 0
        for accounts in self._accounts:
            for payer, account in list(accounts.items()):
                owes = account.spent > self._base or account.owes_until > self.now
                if not account.files and not account.waits and not owes:
                    del accounts[payer]
            most = max(most, len(accounts))
        self._sweep_at = max(_ACCOUNTS_KEPT, 2 * most)

    # Time

    def begin(self) -> int:
        """Charge no user for the time until now; return the time."""
        self.payer = self._nobody
        now = self.now = self._clock()
        if now - self._marked_at > _MARK_NS:
            self._marked_at, self._marked_work = now, self._worked()
        return now

    def charge(self) -> int:
        """Charge the payer for the time since the last call; return the time."""
        now = self._clock()
        account = self.payer
        if account is self._nobody:
            self.now = now
            return now
        spent = now - self.now
        if account.user != self._latest:
            self._others_at = self._latest_at
            self._latest = account.user
        self._latest_at = now
        total = account.spent = max(account.spent, self._base) + spent
        if total > self._top:
            self._top = total
        if account.waits:
            self._next_turn(account, spent)
        elif spent > LONG_NS or total > self._base + QUANTUM_NS:
            self._fall_behind(account, spent)
        self.now = now
        self.payer = self._nobody
        if now - self._marked_at > _MARK_NS:
            self._marked_at, self._marked_work = now, self._worked()
        return now

    def rest(self) -> None:
        """No request is left but of users that are held: all others are even."""
        self._base = self._top
        if self._ahead:
            for account in self._ahead:
                account.waits = account.is_held or bool(account.queues)
            self._ahead.clear()

    def _is_alone(self, account: Account) -> bool:
        """Whether no other user is active; the account has just been charged."""
        return self._latest_at - self._others_at > ACTIVE_NS

    def _fall_behind(self, account: Account, spent: int) -> None:
        if self._is_alone(account):
            return
        account.waits = True
        if spent > LONG_NS:
            self._hold(account, spent)
        else:
            self._ahead[account] = None

    def _next_turn(self, account: Account, spent: int) -> None:
        """An account that waits has had a turn, or was charged for something else."""
        if account.is_held:
            return
        if spent > LONG_NS and not self._is_alone(account):
            self._hold(account, spent)
        elif account.queues:
            self._enqueue(account)
        elif not account.is_queued:
            account.waits = account.spent > self._base + QUANTUM_NS and not self._is_alone(account)
            if account.waits:
                self._ahead[account] = None

    def _hold(self, account: Account, spent: int) -> None:
        """Hold an account: other users are served alone for a while."""
        pause = 2 * min(spent, TOO_LONG_NS)
        if spent > TOO_LONG_NS:
            # What was done between the mark and the beginning is not known: at most all of it.
            work = self._worked() - self._marked_work - (self.now - self._marked_at)
            if work > TOO_LONG_NS:
                pause = max(pause, self._owe(account, work))
        account.is_held = True
        self._number += 1
        heappush(self._held, (self._latest_at + pause, self._number, account))

    def _owe(self, account: Account, work: int) -> int:
        """Enter what took too long; return for how many nanoseconds it must be paid for at once."""
        now = self._latest_at
        most = now + GRACE_NS + PAUSE_MAX_NS
        owes = max(account.owes_until, now) + PAUSE_FACTOR * work
        account.owes_until = min(owes, most)
        return account.owes_until - GRACE_NS - now

    def _release(self, now: int) -> None:
        """Queue the accounts again whose pause is over."""
        held = self._held
        while held and held[0][0] <= now:
            account = heappop(held)[2]
            account.is_held = False
            if account.queues:
                self._enqueue(account)
            else:
                account.waits = False

    # What waits

    def has_room(self, account: Account, size: int) -> bool:
        """Whether a request of ``size`` bytes may wait, too."""
        size += _ENTRY_BYTES
        if account.user == _ROOT:
            return self.bytes + size <= self._most
        room = self.bytes + size <= self._most_of_ordinary
        return room and account.bytes + size <= self._most_of_user

    def set_room(self, most: int, of_user: int, of_ordinary: int) -> None:
        """Settle how much may wait; what waits already does.

        Args:
            most: bytes, of everybody.
            of_user: of one ordinary user.
            of_ordinary: of all ordinary users.
        """
        self._most, self._most_of_user, self._most_of_ordinary = most, of_user, of_ordinary

    def put(self, account: Account, process: int, job: Job) -> None:
        """Have a job wait for its turn, behind those of the same process."""
        queue = account.queues.get(process)
        if queue is None:
            queue = account.queues[process] = deque()
        queue.append(job)
        account.bytes += job.size
        account.waits = True
        self.bytes += job.size
        self.waiting += 1
        if not account.is_held and account is not self.payer:
            self._enqueue(account)

    def put_next(self, account: Account, job: Job) -> None:
        """Have the rest of what is being done wait for its turn."""
        self.put(account, self.process if account is self.payer else 0, job)

    def _enqueue(self, account: Account) -> None:
        if not account.is_queued:
            account.is_queued = True
            self._number += 1
            tag = max(account.spent, self._base)
            heappush(self._ready, (tag, self._number, account))

    def run_next(self, now: int) -> bool:
        """Run the job whose turn it is and return True; False if there is none.

        ``charge`` must follow.
        """
        if self._held:
            self._release(now)
        while self._ready:
            tag, _, account = heappop(self._ready)
            account.is_queued = False
            if account.is_held or not account.queues:
                continue
            self._base = max(self._base, tag)
            self.process = next(iter(account.queues))
            job = account.take(self.process)
            self.waiting -= 1
            self.bytes -= job.size
            self.payer = account
            job.run()
            return True
        return False

    def delay(self) -> int:
        """Return in how many nanoseconds a waiting request may be served, -1: none waits."""
        if not self.waiting:
            return -1
        if self._ready or not self._held:
            return 0
        return max(self._held[0][0] - self._clock(), 0)
