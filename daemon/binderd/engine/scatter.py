# SPDX-License-Identifier: Apache-2.0
"""Scatter-gather: pieces of the sender's memory beside the data, and the pointers between them.

A PTR object names a piece; it is copied into the buffer's extra area. A piece may hold a pointer to
a later one (its child): the copy then has the receiver's address there, a *fix-up*. Nothing is
copied before all objects were seen, so that no pointer of the sender ever shows in the receiver.

Fix-ups must come in an order that visits the tree once (O4)::

    A
      B (parent A, offset 0)
      C (parent A, offset 16)
        D (parent C, offset 0)
      E (parent A, offset 32)       allowed: A is an ancestor of the last piece, 32 is behind 16

    but not  A, C (parent A, offset 16), B (parent A, offset 0)     the offset goes back
    nor      A, B (parent A), C (parent A), D (parent B)            B is no ancestor of C

Mirrors binder_validate_ptr, binder_validate_fixup, binder_fixup_parent and
binder_do_deferred_txn_copies.
"""

from __future__ import annotations

from errno import EINVAL
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from binderd.engine.errors import BinderFailure
from binderd.engine.payload import aligned, extra_at
from binderwire.binder_abi import BINDER_BUFFER_FLAG_HAS_PARENT, BR_FAILED_REPLY

if TYPE_CHECKING:
    from binderd.engine.buffers import Buffer
    from binderd.engine.ports import ClientMemory, ReceiverArena

_pack_pointer: Final = Struct("=Q").pack
_POINTER_SIZE: Final = 8
_FD_SIZE: Final = 4
_ALIGNMENT: Final = 4  # bytes; the driver writes to buffers in such steps only
_HANDFUL: Final = 256  # pieces that are let go of in one step
_NONE: Final[list[tuple[int, bytes]]] = []  # fix-ups, of all pieces without any


class Piece:
    """One PTR object."""

    __slots__ = ("fixups", "length", "parent", "parent_offset", "source", "start", "target")

    def __init__(self, start: int, target: int, fields: Any) -> None:  # noqa: ANN401
        self.start = start  # offset of the object in the data, bytes
        self.target = target  # offset of the copy in the buffer, bytes
        self.source: int = fields.buffer  # in the sender
        self.length: int = fields.length  # bytes
        has_parent = fields.flags & BINDER_BUFFER_FLAG_HAS_PARENT
        self.parent: int | None = fields.parent if has_parent else None  # index of the object
        self.parent_offset: int = fields.parent_offset
        self.fixups: list[tuple[int, bytes]] = _NONE  # (offset in the piece, what belongs there)

    def fix_up(self, offset: int, octets: bytes) -> None:
        """Have other bytes in the copy than in the sender's piece."""
        if self.fixups is _NONE:
            self.fixups = []
        self.fixups.append((offset, octets))


class Pointers:
    """The PTR and FDA objects of one payload."""

    __slots__ = (
        "_address",
        "_copied",
        "_end",
        "_last",
        "_minimum",
        "_next",
        "_offset",
        "_order",
        "_pieces",
    )

    def __init__(self, buffer: Buffer) -> None:
        self._offset = buffer.offset
        self._address = buffer.address
        self._next = extra_at(buffer.data_size, buffer.offsets_size)
        self._end = self._next + buffer.extra_size
        self._pieces: dict[int, Piece] = {}  # by the index of the object
        self._order: list[int] = []  # those
        self._copied = 0  # how many of them
        # Where the last fix-up was allowed: the piece, and from which offset in it the next may be.
        self._last: Piece | None = None
        self._minimum = 0

    def add(self, index: int, start: int, fields: Any) -> int:  # noqa: ANN401
        """Take a PTR object; return the address of its piece in the receiver.

        Args:
            index: which object of the payload it is.
            start: its offset in the data, bytes.
            fields: its binder_buffer_object.

        Raises:
            BinderFailure: -EINVAL: no space left (O3), a bad parent or a fix-up out of order (O4).
        """
        if fields.length > self._end - self._next:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        piece = Piece(start, self._next, fields)
        address = self._address + piece.target
        self._next += aligned(piece.length)
        if piece.parent is not None:
            parent = self._fixable(index, piece.parent, piece.parent_offset)
            if piece.parent_offset + _POINTER_SIZE > parent.length:
                raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
            parent.fix_up(piece.parent_offset, _pack_pointer(address))
        self._pieces[index] = piece
        self._order.append(index)
        self._last, self._minimum = piece, 0
        return address

    def add_fd_array(self, index: int, fields: Any) -> tuple[int, int] | None:  # noqa: ANN401
        """Take an FDA object; return where its numbers are and where the receiver's go.

        Returns:
            (address in the sender, offset in the buffer) in bytes; None for an empty array.

        Raises:
            BinderFailure: -EINVAL: a bad parent, no space in it, out of order, not aligned (O6).
        """
        parent = self._fixable(index, fields.parent, fields.parent_offset)
        size = _FD_SIZE * fields.num_fds
        self._last, self._minimum = parent, fields.parent_offset + size
        if not size:
            return None
        source = parent.source + fields.parent_offset
        target = parent.target + fields.parent_offset
        fits = fields.parent_offset + size <= parent.length
        if not fits or source % _FD_SIZE or (self._address + target) % _FD_SIZE:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        parent.fix_up(fields.parent_offset, bytes(size))
        return source, target

    def copy_next(self, memory: ClientMemory, arena: ReceiverArena) -> bool:
        """Copy a piece, with the fix-ups in place of what the sender had there.

        Returns:
            Whether there are more.

        Raises:
            BinderFailure: -EINVAL: it cannot be read, or a pointer is not 4-aligned in it.
        """
        pieces = self._pieces
        while self._copied < len(self._order):
            piece = pieces.pop(self._order[self._copied])
            self._copied += 1
            if piece.length:
                self._copy(piece, memory, arena)
                break
        return self._copied < len(self._order)

    def let_go(self) -> bool:
        """Nothing will be copied: let go of a handful of pieces; returns whether there are more."""
        pieces = self._pieces
        for _ in range(min(len(pieces), _HANDFUL)):
            pieces.popitem()
        return bool(pieces)

    def _copy(self, piece: Piece, memory: ClientMemory, arena: ReceiverArena) -> None:
        offset = self._offset + piece.target
        holes = [(start, len(octets)) for start, octets in piece.fixups]
        if any(start % _ALIGNMENT for start, _ in holes):
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        whole = memory.scatter(piece.source, piece.length, arena, offset, holes)
        if whole is None and not _copy_around(piece, holes, memory, arena, offset):
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        for start, octets in piece.fixups:
            arena.write(offset + start, octets)

    def _fixable(self, index: int, parent_index: int, offset: int) -> Piece:
        """Return the parent if a fix-up at ``offset`` in it is in order (binder_validate_fixup)."""
        parent = self._pieces.get(parent_index) if parent_index < index else None
        last, minimum = self._last, self._minimum
        # A piece whose object is at offset 0 of the data counts as none, so nothing can be fixed up
        # in it as long as it is the last one: a quirk that is kept (O5).
        if parent is None or last is None or last.start == 0:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        while last is not parent:
            if last.parent is None:
                raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
            minimum = last.parent_offset + _POINTER_SIZE
            last = self._pieces[last.parent]
        if offset < minimum:
            raise BinderFailure(BR_FAILED_REPLY, -EINVAL)
        return parent


def _copy_around(
    piece: Piece,
    holes: list[tuple[int, int]],
    memory: ClientMemory,
    arena: ReceiverArena,
    offset: int,
) -> bool:
    """Copy a piece that cannot be read as a whole; what its fix-ups replace is not needed of it."""
    position = 0
    for start, size in [*holes, (piece.length, 0)]:
        count = start - position
        source = piece.source + position
        if count and not memory.copy(source, count, arena, offset + position):
            return False
        position = start + size
    return True
