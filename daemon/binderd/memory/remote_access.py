# SPDX-License-Identifier: Apache-2.0
"""Accesses to a client's memory that a worker process makes, as each may block (``fetcher/``).

The daemon does not touch memory that is not present (``presence.py``): a page fault there may wait
for another process. Instead the engine gets ``NotYet``, which carries the access. The engine begins
it and pauses the request; once the access is over, the engine takes the same request up again,
which then finds here what the worker has read or whether it has written.

Nothing here may know how a worker does it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, Protocol

from binderd.engine.limits import FETCH_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from binderd.engine.ports import Share
    from binderd.linux.maps import Area, FileId

_PIECE_COST: Final = 256  # bytes that a piece costs us beside its own
_ANY_SIZE: Final = 1 << 63


class Workers(Protocol):
    """The worker processes; see ``fetcher/``."""

    def begin(self, access: RemoteAccess, ticket: int) -> bool:
        """Have a worker make an access; ``end`` or ``fail`` of the access is called later.

        Args:
            ticket: the request that waits; ``Engine.fetched`` gets it after ``end`` or ``fail``.

        Returns:
            False if no worker can be had: the access has failed, and no call will follow.
        """


class RemoteAccess:
    """One access (the engine's port ``Fetch``).

    Args:
        workers: one of them makes it.
        payer: the user that it is made for; each has few at a time.
        tid: a thread that has a request open until the access is over.
    """

    __slots__ = ("_workers", "payer", "then", "tid")

    def __init__(self, workers: Workers, payer: int, tid: int) -> None:
        self._workers = workers
        self.payer = payer
        self.tid = tid
        self.then: Callable[[], None] | None = None  # called at the end, if no ticket is told

    def begin(self, ticket: int) -> bool:
        """Begin; results as ``Workers.begin``."""
        if self._workers.begin(self, ticket):
            return True
        self.fail()
        return False

    def fail(self) -> None:
        """It took too long, or could not be done: the memory counts as not usable."""
        raise NotImplementedError

    def time_out(self) -> None:
        """The worker has not answered in time."""
        self.fail()


class Reading(RemoteAccess):
    """A read of some ranges."""

    __slots__ = ("_kept", "ranges")

    def __init__(
        self,
        workers: Workers,
        payer: int,
        tid: int,
        kept: Fetched,
        ranges: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__(workers, payer, tid)
        self._kept = kept
        self.ranges = ranges  # (address, bytes)

    def end(self, pieces: Sequence[bytes]) -> None:
        """Each range has been read as far as it can be."""
        self._kept.add(self.ranges, pieces)

    def fail(self) -> None:
        self._kept.add(self.ranges, [b""] * len(self.ranges))


class Writing(RemoteAccess):
    """A write of bytes that the daemon has."""

    __slots__ = ("_kept", "address", "data")

    def __init__(
        self, workers: Workers, payer: int, tid: int, kept: Fetched, address: int, data: bytes
    ) -> None:
        super().__init__(workers, payer, tid)
        self._kept = kept
        self.address = address
        self.data = data

    def end(self, *, ok: bool) -> None:
        """All of them were stored, or not."""
        self._kept.stored[self.address, len(self.data)] = ok

    def fail(self) -> None:
        self.end(ok=False)


class Pages(Protocol):
    """A receive area that is the client's own: where its payloads come from, and where to."""

    fd: int  # of the memfd that has the bytes; -1: the area was closed
    file: FileId  # what must be mapped privately where they go

    @property
    def there(self) -> tuple[int, int]:
        """Descriptors of the client's /proc/PID/mem and /proc/PID/maps; -1: it has ended."""


class Storing(RemoteAccess):
    """A copy of a payload from the arena's memfd into the client's own private mapping.

    Args:
        pages: the arena.
        address: in that mapping.
        offset: of the first byte in the file.
        size: bytes.
    """

    __slots__ = (
        "address",
        "is_done",
        "is_late",
        "is_over",
        "is_refused",
        "offset",
        "pages",
        "size",
    )

    def __init__(
        self,
        workers: Workers,
        payer: int,
        tid: int,
        pages: Pages,
        address: int,
        offset: int,
        size: int,
    ) -> None:
        super().__init__(workers, payer, tid)
        self.pages = pages
        self.address = address
        self.offset = offset
        self.size = size
        self.is_over = False
        self.is_done = False
        self.is_refused = False  # is there no such mapping, or one that cannot be written to?
        self.is_late = False  # may it still be stored by and by?

    def end(self, *, ok: bool) -> None:
        """All of them were stored, or not."""
        self.is_over = True
        self.is_done, self.is_refused = ok, not ok

    def fail(self) -> None:
        self.is_over = True

    def time_out(self) -> None:
        self.is_late = True
        self.fail()


class Locating(RemoteAccess):
    """A look which of some files the client has mapped, and where."""

    __slots__ = ("_found", "files", "taken")

    def __init__(
        self,
        workers: Workers,
        payer: int,
        tid: int,
        files: Sequence[FileId],
        found: Callable[[tuple[int, Area] | None, bool], None],
        taken: Sequence[int] = (),
    ) -> None:
        super().__init__(workers, payer, tid)
        self.files = files
        self.taken = taken  # where mappings start that do not count
        self._found = found

    def end(self, found: tuple[int, Area] | None) -> None:
        """This is where, as ``find_first`` says it."""
        self._found(found, True)

    def fail(self) -> None:
        self._found(None, False)


class Fetched:
    """What workers have read and written for the current request of a thread.

    Args:
        share: how much FETCHED the user has; None: it is not counted.
    """

    __slots__ = ("_order", "_pieces", "_share", "_size", "is_empty", "stored")

    def __init__(self, share: Share | None) -> None:
        self._share = share
        self._pieces: dict[tuple[int, int], bytes] = {}  # by address and size of what was wanted
        self._order: list[tuple[int, int]] = []  # the same, by address
        self._size = 0
        self.stored: dict[tuple[int, int], bool] = {}  # whether it was written, by address and size
        self.is_empty = True

    def add(self, ranges: Sequence[tuple[int, int]], pieces: Sequence[bytes]) -> None:
        """Keep pieces; the oldest that are too many for one command go."""
        self.is_empty = False
        kept = self._pieces
        for wanted, piece in zip(ranges, pieces, strict=True):
            data = piece
            self._drop(wanted)
            if self._share is not None and not self._share.has_room(len(data) + _PIECE_COST):
                data = b""
            self._charge(len(data) + _PIECE_COST)
            kept[wanted] = data
        while self._size > FETCH_MAX:
            self._drop(next(iter(kept)))
        self._order = sorted(kept)

    def at(self, address: int, size: int) -> bytes | None:
        """Return what was read of a range; None: no worker was asked for it."""
        data = self._pieces.get((address, size))
        if data is not None:
            return data
        index = bisect_right(self._order, (address, _ANY_SIZE)) - 1
        if index < 0:
            return None
        start, length = self._order[index]
        if address + size > start + length:
            return None
        return self._pieces[start, length][address - start : address - start + size]

    def clear(self) -> None:
        """The request is through."""
        self._charge(-self._size)
        self._pieces.clear()
        self._order = []
        self.stored.clear()
        self.is_empty = True

    def _drop(self, wanted: tuple[int, int]) -> None:
        data = self._pieces.pop(wanted, None)
        if data is not None:
            self._charge(-len(data) - _PIECE_COST)

    def _charge(self, size: int) -> None:
        self._size += size
        if self._share is not None:
            self._share.add(size)
