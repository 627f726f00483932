# SPDX-License-Identifier: Apache-2.0
"""The objects of a payload as their sender wrote them, read before any of them is translated.

The bytes of each object go into the daemon, and everything between the objects straight across to
the receiver. A payload may have thousands, so they are read in windows, between which others can
have their turn.

Mirrors the copies in the object loop of binder_transaction.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from binderwire.binder_abi import BINDER_TYPE_PTR, OBJECT_SIZE_MAX, binder_buffer_object

if TYPE_CHECKING:
    from binderd.engine.buffers import Buffer
    from binderd.engine.ports import ClientMemory, ReceiverArena

_HEADER_SIZE: Final = 4
_unpack_word: Final = Struct("=I").unpack_from
_WINDOW: Final = 128  # objects that are read in one go


class Fault(NamedTuple):
    """Why a payload is refused, unless something before that is wrong."""

    start: int  # where in the data
    errno: int


class Objects:
    """The objects of one payload.

    Args:
        buffer: where the data go.
        address: of the data, in the sender.
        starts: the objects' offsets in the data, as the sender says.
    """

    __slots__ = (
        "_address",
        "_buffer",
        "_last",
        "_next",
        "_position",
        "_readable",
        "_room",
        "_starts",
        "fault",
        "missing",
        "octets",
        "tail",
    )

    def __init__(self, buffer: Buffer, address: int, starts: tuple[int, ...]) -> None:
        self._buffer = buffer
        self._address = address
        self._starts = starts
        self._next = 0  # index of the first that is not read
        self._last = -_HEADER_SIZE  # where the one before it lies
        self._position = 0  # in the data, up to where it was moved
        self._readable: bytes | None = None  # what there is of data that cannot be read as a whole
        self._room = buffer.extra_size  # for pieces that are still to be met
        self.octets: list[bytes] = []  # what is there, up to the next one
        self.tail = b""  # behind the last one, if there is a fault
        self.fault: Fault | None = None  # behind them
        self.missing: list[tuple[int, int]] = []  # memory that is passed and has to be fetched

    def expect(self, memory: ClientMemory) -> None:
        """See that it need not be fetched window by window.

        Raises:
            NotYet: it has to be fetched first.
        """
        if len(self._starts) > _WINDOW:
            memory.expect([(self._address, self._buffer.data_size)])

    def read_next(self, memory: ClientMemory, arena: ReceiverArena) -> bool:
        """Read a window and move what lies between its objects.

        Returns:
            Whether there are more.

        Raises:
            NotYet: something has to be fetched first.
        """
        size, start = self._buffer.data_size, self._position
        holes: list[tuple[int, int]] = []
        end = self._find_holes(min(self._next + _WINDOW, len(self._starts)), holes)
        if self._readable is None:
            source, target = self._address + start, self._buffer.offset + start
            if start:
                holes = [(at - start, length) for at, length in holes]
            found = memory.scatter(source, end - start, arena, target, holes)
            if found is None:
                self._start_anew(memory.read(self._address, size))
                return True
        else:
            found = self._take_readable(self._readable, holes)
        self.octets += found
        if self._room:
            pieces = self._find_pieces(found)
            if pieces:
                self.missing += memory.missing(pieces)
        self._position = end
        return self.fault is None and end < size

    def let_go(self) -> bool:
        """None will be looked at: let go of a window; returns whether there are more."""
        del self.octets[-_WINDOW:]
        return bool(self.octets)

    def _start_anew(self, readable: bytes) -> None:
        """Take the objects from what can be read; what is wrong behind that comes up in its turn.

        Data that cannot be read matters only once everything before it is in order.
        """
        self._readable = readable
        self._next = self._position = 0
        self._last = -_HEADER_SIZE
        self._room = self._buffer.extra_size
        self.octets, self.missing, self.fault = [], [], None

    def _find_holes(self, stop: int, holes: list[tuple[int, int]]) -> int:
        """Find the next window; return where it ends in the data.

        Args:
            stop: the index of the first object behind the window.
            holes: gets where its objects lie, (start, bytes). Each has as many bytes as the largest
                could have, up to the next one. They end before the first offset that is wrong.
        """
        size, starts = self._buffer.data_size, self._starts
        for index in range(self._next, stop):
            start = starts[index]
            if not self._is_valid(start):
                return size
            _clip(holes, start)
            holes.append((start, min(OBJECT_SIZE_MAX, size - start)))
            self._last = start
        self._next = stop
        if stop == len(starts) or not self._is_valid(starts[stop]):
            return size
        _clip(holes, starts[stop])
        return starts[stop]

    def _is_valid(self, start: int) -> bool:
        """Return whether an object can lie there, behind those that were found.

        If not it is noted: it is not 4-aligned or too close to the end (O1: EINVAL), not behind
        the one before or outside the data (EFAULT: the driver notices these two when it copies the
        bytes up to the object).
        """
        size = self._buffer.data_size
        if start > size or start < self._last + _HEADER_SIZE:
            self.fault = Fault(start, EFAULT)
        elif size - start < _HEADER_SIZE or start % _HEADER_SIZE:
            self.fault = Fault(start, EINVAL)
        return self.fault is None

    def _take_readable(self, data: bytes, holes: list[tuple[int, int]]) -> list[bytes]:
        """Return the objects up to where the data cannot be read, and note what is wrong there."""
        size = self._buffer.data_size
        found: list[bytes] = []
        for start, length in holes:
            if min(start + OBJECT_SIZE_MAX, size) > len(data):
                self.fault = Fault(start, EINVAL if start <= len(data) else EFAULT)
                break
            found.append(data[start : start + length])
        is_last = self.fault is not None or self._next == len(self._starts)
        if is_last and (self.fault is None or self.fault.start > len(data)):
            self.fault = Fault(size, EFAULT)
        if self.fault is not None and (found or self.octets):
            last = self._starts[len(self.octets) + len(found) - 1] + len((found or self.octets)[-1])
            self.tail = data[last : last + OBJECT_SIZE_MAX]
        return found

    def _find_pieces(self, found: list[bytes]) -> list[tuple[int, int]]:
        """Return what memory is passed, (address, bytes), as far as there is room for it.

        Nothing is said about whether it is in order.
        """
        pieces: list[tuple[int, int]] = []
        for octets in found:
            is_whole = len(octets) >= binder_buffer_object.size
            if not is_whole or _unpack_word(octets)[0] != BINDER_TYPE_PTR:
                continue
            _, _, address, length, _, _ = binder_buffer_object.unpack_from(octets)
            if length > self._room:
                self._room = 0
                break
            self._room -= length
            if length:
                pieces.append((address, length))
        return pieces


def _clip(holes: list[tuple[int, int]], end: int) -> None:
    """The last one goes no further than to where the next object begins."""
    if holes:
        start, length = holes[-1]
        if start + length > end:
            holes[-1] = (start, end - start)
