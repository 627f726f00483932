# SPDX-License-Identifier: Apache-2.0
"""``SendArea``: where one thread's small payloads lie while the driver takes them.

The driver copies a payload out of this process. One that always lies in the same page is what a
driver in user space finds soonest: it has seen before that the page is there, and need not look
again (binderd does not touch memory that it would have to wait for). Parcels lie wherever there was
room; what does not fit here is taken from there.

Nothing here may know what is sent, or when it was taken.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING, Final

from binderclient.lane import PLACES

if TYPE_CHECKING:
    from binderclient.lane import Lane

_SIZE: Final = mmap.PAGESIZE  # bytes
_ALIGNMENT: Final = 8  # bytes, of each payload


class SendArea:
    """Memory that is filled from its start.

    Args:
        lane: the lane in whose memory it is, which the driver can read at any time; None: a page
            of its own.
    """

    __slots__ = ("_address", "_used", "_view")

    def __init__(self, lane: Lane | None = None) -> None:
        self._used = 0
        if lane is not None:
            self._view = lane.octets[PLACES:]
            self._address = lane.address + PLACES
            return
        memory = ctypes.create_string_buffer(2 * _SIZE)
        start = -ctypes.addressof(memory) % _SIZE
        self._view = memoryview(memory).cast("B")[start : start + _SIZE]
        self._address = ctypes.addressof(memory) + start

    def clear(self) -> None:
        """Empty the area: the driver has taken what was put there."""
        self._used = 0

    def put(self, data: bytearray) -> int:
        """Copy bytes to the area; return their address, 0 if there is no room for them."""
        start = self._used
        end = start + len(data)
        if end > len(self._view):
            return 0
        self._view[start:end] = data
        self._used = end + -end % _ALIGNMENT
        return self._address + start
