# SPDX-License-Identifier: Apache-2.0
"""poll and epoll in front of the engine, as the kernel does them.

A file in the set is polled when it is put there. After that it is polled only if its wait queue was
woken since, or, without EPOLLET, if the last poll found something; and by whoever waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from support.playbook import Pending, Watch

if TYPE_CHECKING:
    from support.engine_world import EngineThread
    from support.playbook import Thread


class EngineWatch(Watch):
    """An epoll set: a poll of the file decides only after its wait queue was woken."""

    def __init__(self, thread: EngineThread, *, edges: bool) -> None:
        self.process = thread.file.process
        self.edges = edges
        self._waiting: EngineEpollWait | None = None
        thread.proc.world.pollers.append(self)
        self.is_ready = thread.ask_poll(wake=True) != 0

    def look(self) -> None:
        self.is_ready = True
        if self._waiting is not None:
            self._waiting.look()

    def start(self, thread: Thread) -> Pending:
        self._waiting = EngineEpollWait(self, cast("EngineThread", thread))
        return self._waiting


class EngineEpollWait(Pending):
    """An epoll_wait."""

    def __init__(self, watch: EngineWatch, thread: EngineThread) -> None:
        self._watch = watch
        self._thread = thread
        self._revents = 0
        self.look()

    def look(self) -> None:
        watch = self._watch
        if watch.is_ready and not self._revents:
            watch.is_ready = False
            self._revents = self._thread.ask_poll(wake=True)
            watch.is_ready = watch.is_ready or (self._revents != 0 and not watch.edges)

    @property
    def parked(self) -> bool:
        return not self._revents

    def wait(self) -> tuple[int, bytes]:
        assert self._revents, "the epoll_wait sleeps"
        return 0, self._revents.to_bytes(4, "little")


class EnginePoll(Pending):
    """A poll that waits, as the kernel does it: ask, sleep until woken, ask again."""

    def __init__(self, thread: EngineThread) -> None:
        self._thread = thread
        self.process = thread.file.process
        self._revents = 0
        thread.proc.world.pollers.append(self)
        self.look()

    def look(self) -> None:
        if not self._revents:
            self._revents = self._thread.ask_poll(wake=True)
        if self._revents and self in self._thread.proc.world.pollers:
            self._thread.proc.world.pollers.remove(self)

    @property
    def parked(self) -> bool:
        return not self._revents

    def wait(self) -> tuple[int, bytes]:
        assert self._revents, "the poll sleeps"
        return 0, self._revents.to_bytes(4, "little")
