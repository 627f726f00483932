# SPDX-License-Identifier: Apache-2.0
"""What the service manager keeps: services, callbacks, and how many of each a user may have.

Only tables: nothing here makes a call or takes a lock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from binderclient import android
from binderclient.errors import RemoteException

if TYPE_CHECKING:
    from collections.abc import Iterator

    from binderclient.ibinder import IBinder
    from binderclient.servicemanager.values import Offered
    from binderclient.tokens import Token
    from binderwire.service_manager import Dialect

# What clients can make the manager keep. The driver lets it have 65,536 handles.
SERVICES_MAX: Final = 32768
CALLBACKS_MAX: Final = 16384
# One user may have a half of that, so that it leaves something to the others.
USERS_PART: Final = 2
# Few, as adding a service tells all of them at once.
CALLBACKS_PER_NAME: Final = 1024


class Quota:
    """Counts what is kept, for each user and in all.

    Args:
        what: "services", for the message.
        limit: how many may be kept in all.
    """

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self._limit = limit
        self._of_user: Counter[int] = Counter()
        self._all = 0

    def take(self, uid: int) -> None:
        """Count one more.

        Raises:
            RemoteException: EX_ILLEGAL_STATE, there are too many.
        """
        if self._all >= self._limit or self._of_user[uid] >= self._limit // USERS_PART:
            raise RemoteException(android.EX_ILLEGAL_STATE, f"Too many {self._what}.")
        self._of_user[uid] += 1
        self._all += 1

    def give(self, uid: int) -> None:
        """Count one less."""
        self._all -= 1
        self._of_user[uid] -= 1
        if not self._of_user[uid]:
            del self._of_user[uid]


@dataclass(slots=True, eq=False)
class Entry:
    """A service, and the process that added it."""

    offered: Offered
    allow_isolated: bool
    dump_priority: int
    pid: int  # 0 if it was added one-way
    uid: int
    has_clients: bool = False
    guarantee_client: bool = False  # a client was just given it, which the driver cannot count yet


class Services:
    """The services by name, and the names of each binder."""

    def __init__(self) -> None:
        self._by_name: dict[str, Entry] = {}
        self._names: dict[IBinder, set[str]] = {}
        self._quota = Quota("services", SERVICES_MAX)

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> Entry | None:
        """Return the service of a name."""
        return self._by_name.get(name)

    def items(self) -> list[tuple[str, Entry]]:
        """Return all, sorted by name."""
        return sorted(self._by_name.items())

    def put(self, name: str, entry: Entry) -> Entry | None:
        """Enter a service; return the one that had the name, None if there was none.

        Raises:
            RemoteException: there are too many; nothing has changed.
        """
        previous = self._by_name.get(name)
        if previous is None or previous.uid != entry.uid:
            self._quota.take(entry.uid)
        if previous is not None:
            self._unname(name, previous.offered.binder)
            if previous.uid != entry.uid:
                self._quota.give(previous.uid)
        self._by_name[name] = entry
        self._names.setdefault(entry.offered.binder, set()).add(name)
        return previous

    def remove(self, name: str) -> None:
        """Remove a service."""
        entry = self._by_name.pop(name)
        self._unname(name, entry.offered.binder)
        self._quota.give(entry.uid)

    def remove_binder(self, binder: IBinder) -> None:
        """Remove all names of a binder."""
        for name in list(self._names.get(binder, ())):
            self.remove(name)

    def knows(self, binder: IBinder) -> bool:
        """Has that binder a name?"""
        return binder in self._names

    def _unname(self, name: str, binder: IBinder) -> None:
        names = self._names[binder]
        names.discard(name)
        if not names:
            del self._names[binder]


@dataclass(slots=True, eq=False)
class Subscriber:
    """A callback, and the dialect of the process that registered it (hwbinder has one dialect)."""

    binder: IBinder
    uid: int
    dialect: Dialect | None = None
    token: Token | None = None


class Subscribers:
    """The callbacks by name, and the names of each."""

    def __init__(self, quota: Quota) -> None:
        self._by_name: dict[str, list[Subscriber]] = {}
        self._names: dict[IBinder, set[str]] = {}
        self._quota = quota

    def of(self, name: str) -> list[Subscriber]:
        """Return those of a name, in the order in which they came."""
        return self._by_name.get(name, [])

    def __iter__(self) -> Iterator[str]:
        """All names that have some."""
        return iter(self._by_name)

    def add(self, name: str, subscriber: Subscriber) -> None:
        """Enter a callback, once more if it is there.

        Raises:
            RemoteException: there are too many; nothing has changed.
        """
        if len(self.of(name)) >= CALLBACKS_PER_NAME:
            raise RemoteException(android.EX_ILLEGAL_STATE, "Too many callbacks.")
        self._quota.take(subscriber.uid)
        self._by_name.setdefault(name, []).append(subscriber)
        self._names.setdefault(subscriber.binder, set()).add(name)

    def remove(self, name: str, binder: IBinder) -> bool:
        """Remove a callback from a name, however often it is there; False if it is not."""
        kept = []
        for subscriber in self.of(name):
            if subscriber.binder is binder:
                self._quota.give(subscriber.uid)
            else:
                kept.append(subscriber)
        if len(kept) == len(self.of(name)):
            return False
        if kept:
            self._by_name[name] = kept
        else:
            del self._by_name[name]
        names = self._names[binder]
        names.discard(name)
        if not names:
            del self._names[binder]
        return True

    def remove_binder(self, binder: IBinder) -> None:
        """Remove a callback from all names."""
        for name in list(self._names.get(binder, ())):
            self.remove(name, binder)

    def knows(self, binder: IBinder) -> bool:
        """Is that callback entered anywhere?"""
        return binder in self._names
