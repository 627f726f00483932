# SPDX-License-Identifier: Apache-2.0
"""What somebody else does to a client's memory, as that may keep who does it waiting.

Memory that is not there (``presence.py``) is not touched by us. Instead the engine hears
``NotYet``, which has an errand in it. It begins the errand and lets the request pause; once that is
over the same request is taken up again, and finds there what the errand has brought.

Nothing here may know who does it, or how.
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


class Errands(Protocol):
    """Who goes on errands."""

    def begin(self, errand: Errand, ticket: int) -> bool:
        """Begin an errand; ``end`` or ``fail`` of it is called later, then who has the ticket told.

        Returns:
            False if that cannot be: it has failed, and nobody will be told.
        """


class Errand:
    """One errand.

    Args:
        errands: who goes.
        payer: whose errand it is; each user has few at a time.
        tid: a thread that has a request open until the errand is over.
    """

    __slots__ = ("_errands", "payer", "then", "tid")

    def __init__(self, errands: Errands, payer: int, tid: int) -> None:
        self._errands = errands
        self.payer = payer
        self.tid = tid
        self.then: Callable[[], None] | None = None  # called at the end, if no ticket is told

    def begin(self, ticket: int) -> bool:
        """Begin; results as ``Errands.begin``."""
        if self._errands.begin(self, ticket):
            return True
        self.fail()
        return False

    def fail(self) -> None:
        """It took too long, or could not be done: the memory counts as not usable."""
        raise NotImplementedError

    def be_late(self) -> None:
        """Who went has not come back in time."""
        self.fail()


class Reading(Errand):
    """Some ranges are to be read."""

    __slots__ = ("_kept", "ranges")

    def __init__(
        self,
        errands: Errands,
        payer: int,
        tid: int,
        kept: Fetched,
        ranges: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__(errands, payer, tid)
        self._kept = kept
        self.ranges = ranges  # (address, bytes)

    def end(self, pieces: Sequence[bytes]) -> None:
        """Each range has been read as far as it can be."""
        self._kept.add(self.ranges, pieces)

    def fail(self) -> None:
        self._kept.add(self.ranges, [b""] * len(self.ranges))


class Writing(Errand):
    """Bytes are to be stored."""

    __slots__ = ("_kept", "address", "data")

    def __init__(
        self, errands: Errands, payer: int, tid: int, kept: Fetched, address: int, data: bytes
    ) -> None:
        super().__init__(errands, payer, tid)
        self._kept = kept
        self.address = address
        self.data = data

    def end(self, *, ok: bool) -> None:
        """All of them were stored, or not."""
        self._kept.stored[self.address, len(self.data)] = ok

    def fail(self) -> None:
        self.end(ok=False)


class Pages(Protocol):
    """What is to be stored, and where."""

    fd: int  # a file that has the bytes; -1: nobody wants it any more
    file: FileId  # what must be mapped privately where they go

    @property
    def there(self) -> tuple[int, int]:
        """Descriptors of the /proc/PID/mem and /proc/PID/maps of whose memory it is; -1: gone."""


class Storing(Errand):
    """Bytes of a file are to be stored in somebody's private mapping.

    Args:
        pages: theirs.
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
        errands: Errands,
        payer: int,
        tid: int,
        pages: Pages,
        address: int,
        offset: int,
        size: int,
    ) -> None:
        super().__init__(errands, payer, tid)
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

    def be_late(self) -> None:
        self.is_late = True
        self.fail()


class Locating(Errand):
    """It is to be found out which of some files is mapped, and where."""

    __slots__ = ("_found", "files", "taken")

    def __init__(
        self,
        errands: Errands,
        payer: int,
        tid: int,
        files: Sequence[FileId],
        found: Callable[[tuple[int, Area] | None, bool], None],
        taken: Sequence[int] = (),
    ) -> None:
        super().__init__(errands, payer, tid)
        self.files = files
        self.taken = taken  # where mappings start that do not count
        self._found = found

    def end(self, found: tuple[int, Area] | None) -> None:
        """This is where, as ``find_first`` says it."""
        self._found(found, True)

    def fail(self) -> None:
        self._found(None, False)


class Fetched:
    """What errands have brought for the current request of a thread.

    Args:
        share: of FETCHED, whose it is; None: nobody counts.
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
        """Return what was brought of a range; None: nobody was asked for it."""
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
