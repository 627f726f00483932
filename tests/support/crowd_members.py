# SPDX-License-Identifier: Apache-2.0
"""Who is in a crowd: members, which are open files, and hands, which are their threads."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from support.engine_world import EngineWorld

if TYPE_CHECKING:
    from binderd.engine.process import Process
    from support import bc
    from support.engine_world import EngineProc, EngineThread
    from support.playbook import Pending, PendingRead


class RecordedWorld(EngineWorld):
    """An engine world that remembers all that clients got to see, as one digest."""

    heap_size = 1 << 20

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        super().__init__()

    def hand_out(self) -> None:
        for completion in self.engine.outbox:
            self.digest.update(
                repr((completion.ticket, completion.result, completion.payload)).encode()
            )
        super().hand_out()


class Hand:
    """A thread of a member and what it has going on."""

    def __init__(self, member: Member, thread: EngineThread) -> None:
        self.member = member
        self.thread = thread
        self.pending: PendingRead | None = None
        self.polling: Pending | None = None
        self.freezing: Pending | None = None
        self.commands: list[bc.Command] = []  # of the pending request
        self.serving = 0  # calls that wait for our reply
        self.acks_due = 0  # calls, oneways and replies that were taken
        self.calls = 0  # calls among them
        self.answers = 0  # completions, replies and errors that came back

    @property
    def busy(self) -> bool:
        return any(each is not None for each in (self.pending, self.polling, self.freezing))

    @property
    def may_call(self) -> bool:
        """Whether no call of the thread waits for its reply (Q6)."""
        thread = self.member.process.threads.get(self.thread.tid)
        return thread is None or thread.stack is None or thread.stack.target_thread is thread


class Member:
    """An open file and what its client knows."""

    def __init__(self, proc: EngineProc, *, mapped: bool, rogue: bool) -> None:
        self.proc = proc
        self.mapped = mapped
        self.rogue = rogue
        self.hands: list[Hand] = []
        self.buffers: list[int] = []  # delivered and not freed
        self.handles: list[int] = [0]  # seen at some time
        self.owned: list[int] = []  # handles once for each time that we acquired them
        self.news: list[bc.Command] = []  # acknowledgements to send
        self.dead: list[int] = []  # cookies of deaths that we were told of
        self.frozen: list[int] = []  # cookies of freezes that we were told of
        self.children: list[EngineProc] = []

    @property
    def process(self) -> Process:
        return self.proc.file.process
