# SPDX-License-Identifier: Apache-2.0
"""Clients whose memory has to be fetched by somebody else, now and then, and who have own pages.

What the engine asks of such memory raises ``NotYet`` at random. Once the fetch is over the same
question is answered, until the request is through; some fetches fail, and then it is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from binderd.engine.ports import NoAnswer, NotYet
from support.crowd import Crowd
from support.crowd_members import RecordedWorld
from support.fakes import FakeArena

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from support.engine_world import EngineThread
    from support.fakes import FakeThread

FETCHES = 0.15  # of all that is asked of memory
FAILS = 0.1  # of all fetches
REFUSES = 0.02  # of all that is brought into own pages


class RandomFetch:
    """A fetch that succeeds or fails at random."""

    def __init__(self, world: FetchingWorld) -> None:
        self.world = world
        self.is_over = self.is_done = False

    def begin(self, ticket: int) -> bool:
        if self.world.random.random() < FAILS / 2:
            self.is_over = True
            return False
        self.world.fetching[ticket] = self
        return True

    def end(self) -> None:
        self.is_over, self.is_done = True, self.world.random.random() >= FAILS


class FetchingMemory:
    """Takes the place of a thread's memory."""

    def __init__(self, world: FetchingWorld, fake: FakeThread) -> None:
        self._world = world
        self._fetches: dict[tuple[Any, ...], RandomFetch] = {}
        fake.read = self._late(fake.read, b"")  # type: ignore[method-assign]
        fake.write = self._late(fake.write, False)  # type: ignore[method-assign]
        fake.copy = self._late(fake.copy, False)  # type: ignore[method-assign]
        fake.scatter = self._late(fake.scatter, None)  # type: ignore[method-assign]
        fake.expect = self._late(fake.expect, None)  # type: ignore[method-assign]
        fake.forget = self._fetches.clear  # type: ignore[method-assign]

    def _late(self, ask: Callable[..., Any], failed: object) -> Callable[..., Any]:
        def answer(*arguments: Any) -> Any:  # noqa: ANN401
            key = (failed, ask.__name__, repr(arguments[:2]))
            fetch = self._fetches.get(key)
            if fetch is None and self._world.random.random() >= self._world.fetches:
                return ask(*arguments)
            if fetch is None or not fetch.is_over:
                fetch = self._fetches[key] = RandomFetch(self._world)
                raise NotYet(fetch)
            return ask(*arguments) if fetch.is_done else failed

        return answer


class OwnPages(FakeArena):
    """A receive area that is the client's own, and brings what it gets as it likes."""

    world: FetchingWorld

    @classmethod
    def of(cls, arena: FakeArena, world: FetchingWorld) -> None:
        """Have an area be of this kind."""
        arena.make_private()
        arena.__class__ = cls
        assert isinstance(arena, cls)
        arena.world = world
        arena.begun: dict[int, RandomFetch] = {}  # type: ignore[misc]

    def bring(self, offset: int, size: int) -> bool:
        random = self.world.random
        fetch = self.begun.pop(offset, None)
        if fetch is not None and fetch.is_over:
            if not fetch.is_done:
                raise NoAnswer
        elif random.random() < REFUSES:
            return False
        elif random.random() < 2 * self.world.fetches:
            self.begun[offset] = RandomFetch(self.world)
            raise NotYet(self.begun[offset])
        self.octets[offset : offset + size] = self.staged[offset : offset + size]
        return True

    def forget(self, offset: int) -> None:
        self.begun.pop(offset, None)


class FetchingWorld(RecordedWorld):
    """Such clients; ``fetching`` has what is under way."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.fetches = FETCHES
        self.fetching: dict[int, RandomFetch] = {}  # by ticket
        self.fetches_made = 0
        super().__init__()

    def hired(self, thread: EngineThread) -> None:
        FetchingMemory(self, thread._fake)

    def end_fetch(self, ticket: int) -> None:
        self.fetches_made += 1
        self.fetching.pop(ticket).end()
        self.engine.fetched(ticket)
        self.drain()


class FetchingCrowd(Crowd):
    """A crowd of such clients."""

    def __init__(self, random: Random) -> None:
        super().__init__(random.randrange)
        self.world = FetchingWorld(random)

    def join(self) -> None:
        count = len(self.members)
        super().join()
        if len(self.members) > count and self.pick(2):
            arena = self.members[-1].proc.file.arena
            if len(arena.octets):
                OwnPages.of(arena, self.world)
