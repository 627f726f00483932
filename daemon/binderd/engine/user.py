# SPDX-License-Identifier: Apache-2.0
"""A user: how much all open files of one user make the daemon keep, and how much that may be.

The user that opens a file pays for what is kept for it, whichever process uses it then. One user
must not be able to use up another's share, so for each kind it is settled which user pays:

- Most kinds: the process that has one has asked for it, so its user pays.
- Nodes, refs, buffers and what they hold: the process that they are of. Others can make it have
  some, by sending it or asking it for objects; so beyond its user's share each process is granted
  a few.
- Receive areas: the receiver, at its first delivery, for as much as it mapped. So what is sent to
  it afterwards takes nothing of its share.
- What was sent through a socket and not taken: the user that is to take it.
- Files on their way: sender and receiver, and of either's share one other user gets a quarter at
  most. So a user that does not read its files, or sends files that are not read, stops the traffic
  between two users and no other.

Root is bounded by what there is, and a part of that is root's alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderd.engine.kinds import FILES, INODES, KINDS, OPEN_FILES

if TYPE_CHECKING:
    from binderd.engine.kinds import Kind
    from binderd.engine.limits import Bound, Limits

ROOT: Final = 0
_PAIR_SHARE: Final = 4  # files from one user to another: one part in so many of either's


class Total:
    """How many of one kind there are."""

    __slots__ = ("bound", "count")

    def __init__(self, bound: Bound) -> None:
        self.bound = bound
        self.count = 0


class Share:
    """How many of one kind a user has.

    Args:
        total: what everybody has, with the bounds.
        is_root: is it root's share?
    """

    __slots__ = ("_is_root", "_most", "_total", "_total_most", "count")

    def __init__(self, total: Total, *, is_root: bool) -> None:
        self.count = 0
        self._total = total
        self._is_root = is_root
        self._most = self._total_most = 0
        self.renew()

    def renew(self) -> None:
        """Use the total's bound as it is now; a user that has more than that keeps it."""
        bound = self._total.bound
        self._most = bound.total if self._is_root else bound.user
        self._total_most = bound.total if self._is_root else bound.ordinary

    def has_room(self, number: int) -> bool:
        """Whether the user may have so many more."""
        return self.count + number <= self._most and self._total.count + number <= self._total_most

    @property
    def most(self) -> int:
        """How many the user may have if nobody else has any."""
        return min(self._most, self._total_most)

    def room(self) -> int:
        """Return how many more the user may have; 0 also where it has too many."""
        return max(min(self._most - self.count, self._total_most - self._total.count), 0)

    def add(self, number: int) -> None:
        """Count so many more."""
        self.count += number
        self._total.count += number

    def remove(self, number: int) -> None:
        """Count so many less."""
        self.count -= number
        self._total.count -= number


class User:
    """What one user has.

    Args:
        number: the user, as ``Client.payer`` has it.
        totals: what everybody has, by the kinds' index.
    """

    __slots__ = ("_files_most", "_shares", "files_from", "files_sent", "number")

    def __init__(self, number: int, totals: list[Total]) -> None:
        is_root = number == ROOT
        self.number = number
        self._shares = [Share(total, is_root=is_root) for total in totals]
        self._files_most = 0
        self.renew(totals)
        self.files_sent = 0  # by it, on their way
        self.files_from: dict[User, int] = {}  # on their way to it, by sender

    def of(self, kind: Kind) -> Share:
        """Return how many of a kind the user has."""
        return self._shares[kind.index]

    def renew(self, totals: list[Total]) -> None:
        """Go by the bounds as they are now."""
        for share in self._shares:
            share.renew()
        bound = totals[FILES.index].bound
        self._files_most = bound.total if self.number == ROOT else bound.user

    def has_nothing(self) -> bool:
        """Whether there is no reason to remember the user."""
        return self.has_nothing_but(INODES) and not self.of(INODES).count

    def has_nothing_but(self, kind: Kind) -> bool:
        """Whether the user has things of one kind at most."""
        if self.of(OPEN_FILES).count or self.files_sent:
            return False
        but = self.of(kind)
        return not any(share.count for share in self._shares if share is not but)

    def may_send_file(self, receiver: User) -> bool:
        """Whether one more file of this user may be on its way to another, or the same."""
        if not receiver.of(FILES).has_room(1) or self.files_sent >= self._files_most:
            return False
        if self is receiver:
            return True
        most = min(self._files_most, receiver._files_most) // _PAIR_SHARE
        return receiver.files_from.get(self, 0) < max(most, 1)

    def send_file(self, receiver: User) -> None:
        """Count a file that is on its way now."""
        self.files_sent += 1
        receiver.of(FILES).add(1)
        receiver.files_from[self] = receiver.files_from.get(self, 0) + 1

    def files_arrived(self, receiver: User, number: int) -> None:
        """Count so many less, which this user has sent."""
        self.files_sent -= number
        receiver.of(FILES).remove(number)
        left = receiver.files_from[self] - number
        if left:
            receiver.files_from[self] = left
        else:
            del receiver.files_from[self]

    def counts(self) -> dict[str, int]:
        """Return how much the user has of each kind."""
        return {kind.name: self.of(kind).count for kind in KINDS}


class Payment:
    """What a user is charged for something that may outlive its open files.

    Args:
        users: everybody.
        user: is charged.
        kind: for what.
        number: for how many.
    """

    __slots__ = ("_kind", "_user", "_users", "number")

    def __init__(self, users: Users, user: User, kind: Kind, number: int = 1) -> None:
        self._users = users
        self._user = user
        self._kind = kind
        self.number = number
        user.of(kind).add(number)

    def end(self) -> None:
        """It is gone."""
        self._user.of(self._kind).remove(self.number)
        self._users.settle(self._user)


class Users:
    """All users that have anything."""

    __slots__ = ("_by_number", "_totals")

    def __init__(self, limits: Limits) -> None:
        self._totals = [Total(bound) for bound in limits.bounds]
        self._by_number: dict[int, User] = {}

    def __len__(self) -> int:
        """How many have more than an inode? The kernel keeps the last one of each name."""
        return sum(not user.has_nothing_but(INODES) for user in self._by_number.values())

    def find(self, number: int) -> User:
        """Return a user; ``settle`` forgets it again if it has nothing."""
        user = self._by_number.get(number)
        if user is None:
            user = self._by_number[number] = User(number, self._totals)
        return user

    def charge(self, number: int, kind: Kind, count: int = 1) -> Payment | None:
        """Charge a user for so many more of a kind; None if there is no room for them."""
        user = self.find(number)
        if user.of(kind).has_room(count):
            return Payment(self, user, kind, count)
        self.settle(user)
        return None

    def total(self, kind: Kind) -> Total:
        """Return how many of a kind there are."""
        return self._totals[kind.index]

    def renew(self, limits: Limits) -> None:
        """Use other limits from now on; a user that has more than they allow keeps it."""
        for total, bound in zip(self._totals, limits.bounds, strict=True):
            total.bound = bound
        for user in self._by_number.values():
            user.renew(self._totals)

    def settle(self, user: User) -> None:
        """Forget a user if it has nothing any more."""
        if user.has_nothing():
            self._by_number.pop(user.number, None)
