# SPDX-License-Identifier: Apache-2.0
"""What a read hands over: BR_ words with what belongs to each, in the order in which they came.

Nearly always that is a few small pieces; then bytes are cheaper than a bytearray. Nothing here may
know what they mean.
"""

from __future__ import annotations

from typing import Final

_FEW: Final = 1024  # bytes; copying more for each piece would take time by their square


class Returns:
    """A stream that is being put together.

    Args:
        first: its first piece, maybe empty.
    """

    __slots__ = ("_before", "_octets", "size")

    def __init__(self, first: bytes) -> None:
        self._before: bytearray | None = None  # what comes before ``_octets``, if that is much
        self._octets: bytes = first
        self.size: int = len(first)  # of all, in bytes

    def add(self, piece: bytes) -> None:
        """Append a piece."""
        octets = self._octets + piece
        self._octets = octets
        self.size += len(piece)
        if len(octets) > _FEW:
            if self._before is None:
                self._before = bytearray()
            self._before += octets
            self._octets = b""

    def cut(self, size: int) -> None:
        """Drop what is behind the first ``size`` bytes."""
        self._put(self.octets()[:size])

    def replace_first(self, piece: bytes) -> None:
        """Put a piece in the place of as many bytes at the beginning."""
        self._put(piece + self.octets()[len(piece) :])

    def octets(self) -> bytes:
        """Return all of it."""
        return self._octets if self._before is None else bytes(self._before) + self._octets

    def _put(self, octets: bytes) -> None:
        self._before, self._octets, self.size = None, octets, len(octets)
