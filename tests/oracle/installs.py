# SPDX-License-Identifier: Apache-2.0
"""Descriptors on their way into a client of the engine: the thread is stopped for it.

The driver does this in the middle of a read. The engine has the request answered with EINTR, the
files installed and the request issued once more; of all that, a script's results show nothing.
"""

from __future__ import annotations

from errno import EINTR
from typing import TYPE_CHECKING

from binderwire import binder_abi as abi
from support.fakes import FakeFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binderd.engine.completion import Completion
    from oracle.engine_player import Call, Player


class Install:
    """One installation."""

    def __init__(
        self, call: Call, number: int, files: Sequence[FakeFile], closes: Sequence[int]
    ) -> None:
        self._call = call
        self._number = number
        self._files = [FakeFile(one.description) for one in files]  # the engine lets go of its own
        self._closes = list(closes)

    def carry_out(self, player: Player) -> None:
        """Close and install, and let the thread come back."""
        engine, memory = player.engine, self._call.file.owner.memory
        mine = self._call if self._files else None
        engine.stopped(self._number)
        interim = self._take_interim(engine.outbox) if mine else None
        for number in self._closes:
            memory.close_file(number)
        engine.installed(self._number, memory.receive(self._files))
        if interim is not None:
            tid, file = player.tid(self._call.thread), self._call.file
            request = abi.BINDER_WRITE_READ
            engine.ioctl(file.process, tid, 0, request, interim.payload, interim.ticket)

    def _take_interim(self, outbox: list[Completion]) -> Completion:
        """Take the answer that only sends the thread round once more."""
        for index, completion in enumerate(outbox):
            if completion.ticket == self._call.ticket:
                assert completion.result == -EINTR
                return outbox.pop(index)
        raise AssertionError("the request was not answered when its thread was stopped")
