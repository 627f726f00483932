# SPDX-License-Identifier: Apache-2.0
"""Withdrawing what the threads of a process that have ended have not read, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from binderd.engine.pause import Steps
from binderd.engine.work import cancel_first

if TYPE_CHECKING:
    from binderd.engine.owner import Owner


class Withdrawal(Steps):
    """What is in ``Owner.abandoned``."""

    __slots__ = ("_process",)

    def __init__(self, process: Owner) -> None:
        super().__init__(process.hub, process.user.number)
        self._process: Owner = process

    def step(self) -> bool:
        abandoned = self._process.abandoned
        while abandoned and not abandoned[0]:
            abandoned.popleft()
        if not abandoned:
            return False
        cancel_first(abandoned[0])
        return True

    def end(self) -> None:
        self._process.withdrawal = None
