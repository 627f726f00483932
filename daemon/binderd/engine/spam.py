# SPDX-License-Identifier: Apache-2.0
"""Spam: senders of one-way calls who flood a receive area (B4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.engine import views
from binderd.engine.kinds import NOTICES
from binderd.engine.work import MORE, Notice, pack_word
from binderwire.binder_abi import BR_ONEWAY_SPAM_SUSPECT

if TYPE_CHECKING:
    from binderd.engine.owner import Owner, Reader


class SpamNotice(Notice):
    """BR_TRANSACTION_COMPLETE, or BR_ONEWAY_SPAM_SUSPECT if the sender wants to know (B4)."""

    __slots__ = ("_process",)

    def __init__(self, word: int, process: Owner) -> None:
        super().__init__(word, process.user.of(NOTICES))
        self._process: Owner = process

    def deliver(self, thread: Reader, out: bytearray) -> int:
        self._share.remove(1)
        word = BR_ONEWAY_SPAM_SUSPECT if self._process.detects_spam else self.word
        thread.count_return(word)
        out += pack_word(word)
        return MORE

    def kind(self) -> int:
        return views.TRANSACTION_SPAM_SUSPECT
