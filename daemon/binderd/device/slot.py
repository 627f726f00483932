# SPDX-License-Identifier: Apache-2.0
"""A lane as both sides of the daemon see it, and what its memory begins with.

That is ``binderd_slot`` of docs/EXTENSION.md.

The client can write to all of it at any time. So each cell is read once, what was read is a copy,
and what we have written is never read again. On x86-64 stores are seen in their order, and lanes
are offered nowhere else.

Nothing here may know whose memory it is, or how it is shared.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from binderwire.binder_abi import binder_write_read
from binderwire.extension_abi import binderd_slot

_ASKED: Final = 0  # cells of 4 bytes
_ANSWERED: Final = 1
_IS_WATCHED: Final = 2
_CELLS_SIZE: Final = 16
_RESULT: Final = binderd_slot.offset_of("result")
_REQUEST: Final = binderd_slot.offset_of("write_size")
_END: Final = _REQUEST + binder_write_read.size
_pack_result = Struct("=i").pack_into


class Slot:
    """The first bytes of a lane's memory, and where its thread is.

    Args:
        octets: of the memory.
        address: where the thread has it.
    """

    __slots__ = ("_cells", "_octets", "address", "is_entered", "is_over", "size", "waits")

    def __init__(self, octets: memoryview, address: int) -> None:
        self.address: int = address
        self.size: int = len(octets)
        # Is the thread in the kernel, or has it asked for nothing? Else nothing but the lane's
        # memory may be reached.
        self.is_entered: bool = True
        self.waits: int = 0  # the ticket of what waits for it to enter; 0: nothing does
        self.is_over: bool = False  # has the engine forgotten the thread?
        self._octets: memoryview = octets
        self._cells: memoryview = octets[:_CELLS_SIZE].cast("I")

    def has(self, address: int, size: int) -> bool:
        """Return whether a range, as the thread sees it, lies in the lane's memory."""
        return 0 <= address - self.address <= self.size - size

    def asked(self) -> int:
        """Return the number of what the client has asked for last."""
        number: int = self._cells[_ASKED]
        return number

    def request(self) -> bytes:
        """Return the BINDER_WRITE_READ's argument as it is now."""
        return bytes(self._octets[_REQUEST:_END])

    def watch(self, *, is_watched: bool) -> None:
        """Tell the client whether it is looked at."""
        self._cells[_IS_WATCHED] = is_watched

    def answer(self, number: int, result: int, argument: bytes) -> None:
        """Answer what has that number.

        Args:
            result: 0 or a negative errno.
            argument: as it goes back; anything that is not as long leaves it as it is.
        """
        self.note(argument)
        _pack_result(self._octets, _RESULT, result)
        self._cells[_ANSWERED] = number

    def note(self, argument: bytes) -> None:
        """Put a BINDER_WRITE_READ's argument there, as far as it has come."""
        if len(argument) == binder_write_read.size:
            self._octets[_REQUEST:_END] = argument

    def close(self) -> None:
        """The memory goes: whatever is said from now on is said to nobody."""
        self.is_over = self.is_entered = True
        self.size = -1
        self._cells.release()
        self._octets = memoryview(bytearray(_END))
        self._cells = self._octets[:_CELLS_SIZE].cast("I")
