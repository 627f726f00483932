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
from typing import Final

_SIZE: Final = mmap.PAGESIZE  # bytes
_ALIGNMENT: Final = 8  # bytes, of each payload


class SendArea:
    """A page of memory, filled from its start."""

    __slots__ = ("_address", "_used", "_view")

    def __init__(self) -> None:
        memory = ctypes.create_string_buffer(2 * _SIZE)
        start = -ctypes.addressof(memory) % _SIZE
        self._view = memoryview(memory).cast("B")[start : start + _SIZE]
        self._address = ctypes.addressof(memory) + start
        self._used = 0

    def clear(self) -> None:
        """Say that nobody looks at what was put here."""
        self._used = 0

    def put(self, data: bytearray) -> int:
        """Copy bytes to the area; return their address, 0 if there is no room for them."""
        start = self._used
        end = start + len(data)
        if end > _SIZE:
            return 0
        self._view[start:end] = data
        self._used = end + -end % _ALIGNMENT
        return self._address + start
