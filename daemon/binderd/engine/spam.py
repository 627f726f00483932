# SPDX-License-Identifier: Apache-2.0
"""Spam: one-way calls of one sender that flood a receive area (B4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderd.engine import views
from binderd.engine.kinds import NOTICES
from binderd.engine.work import MORE, Notice, pack_word
from binderwire.binder_abi import BR_ONEWAY_SPAM_SUSPECT

if TYPE_CHECKING:
    from binderd.engine.owner import Owner, Reader
    from binderd.engine.returns import Returns


_BUFFERS_MAX: Final = 50  # debug_low_async_space: more buffers than this of one sender, or ...
_SHARE_MAX: Final = 4  # ... more than this part of the whole area
_LOW: Final = 10  # where less than this part of it is left for one-way calls


class Flood:
    """What senders have in one receive area for their one-way calls.

    Args:
        area_size: bytes.
    """

    __slots__ = ("_area_size", "_is_reported", "_shares")

    def __init__(self, area_size: int) -> None:
        self._area_size: int = area_size
        self._shares: dict[int, tuple[int, int]] = {}  # sender's process id -> (buffers, bytes)
        self._is_reported: bool = False  # once, until there is space again

    def took(self, sender: int, size: int, left: int) -> bool:
        """A sender has got a buffer; return whether it is to be told that it floods the area.

        Args:
            sender: its process id.
            size: of the buffer, in bytes.
            left: bytes that one-way calls may still take.
        """
        # Differs: what the sender had before. The driver notes the sender of a buffer after this
        # look, so that its present one counts if it had the same memory the last time.
        count, had = self._shares.get(sender, (0, 0))
        self._shares[sender] = (count + 1, had + size)
        if left >= self._area_size // _LOW:
            self._is_reported = False
            return False
        if self._is_reported or (count <= _BUFFERS_MAX and had <= self._area_size // _SHARE_MAX):
            return False
        self._is_reported = True
        return True

    def freed(self, sender: int, size: int) -> None:
        """A buffer of a sender is free again."""
        count, had = self._shares.pop(sender)
        if count > 1:
            self._shares[sender] = (count - 1, had - size)

    def report_again(self) -> None:
        """The sender never got the latest report: report it again."""
        self._is_reported = False


class SpamNotice(Notice):
    """BR_TRANSACTION_COMPLETE, or BR_ONEWAY_SPAM_SUSPECT if the sender wants to know (B4)."""

    __slots__ = ("_process",)

    def __init__(self, word: int, process: Owner) -> None:
        super().__init__(word, process.user.of(NOTICES))
        self._process: Owner = process

    def deliver(self, thread: Reader, out: Returns) -> int:
        self._share.remove(1)
        word = BR_ONEWAY_SPAM_SUSPECT if self._process.detects_spam else self.word
        thread.count_return(word)
        out.add(pack_word(word))
        return MORE

    def kind(self) -> int:
        return views.TRANSACTION_SPAM_SUSPECT
