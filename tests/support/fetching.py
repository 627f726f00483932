# SPDX-License-Identifier: Apache-2.0
"""Clients whose memory has to be fetched by somebody else, now and then, and who have own pages.

What the engine asks of such memory raises ``NotYet`` at random. Once the errand is over the same
question is answered, until the request is through; some errands fail, and then it is not.
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
FAILS = 0.1  # of all errands
REFUSES = 0.02  # of all that is brought into own pages


class RandomErrand:
    """What somebody else does, well or badly."""

    def __init__(self, world: FetchingWorld) -> None:
        self.world = world
        self.is_over = self.is_done = False

    def begin(self, ticket: int) -> bool:
        if self.world.random.random() < FAILS / 2:
            self.is_over = True
            return False
        self.world.errands[ticket] = self
        return True

    def end(self) -> None:
        self.is_over, self.is_done = True, self.world.random.random() >= FAILS


class FetchingMemory:
    """Takes the place of a thread's memory."""

    def __init__(self, world: FetchingWorld, fake: FakeThread) -> None:
        self._world = world
        self._errands: dict[tuple[Any, ...], RandomErrand] = {}
        fake.read = self._late(fake.read, b"")  # type: ignore[method-assign]
        fake.write = self._late(fake.write, False)  # type: ignore[method-assign]
        fake.copy = self._late(fake.copy, False)  # type: ignore[method-assign]
        fake.scatter = self._late(fake.scatter, None)  # type: ignore[method-assign]
        fake.expect = self._late(fake.expect, None)  # type: ignore[method-assign]
        fake.forget = self._errands.clear  # type: ignore[method-assign]

    def _late(self, ask: Callable[..., Any], failed: object) -> Callable[..., Any]:
        def answer(*arguments: Any) -> Any:  # noqa: ANN401
            key = (failed, ask.__name__, repr(arguments[:2]))
            errand = self._errands.get(key)
            if errand is None and self._world.random.random() >= self._world.fetches:
                return ask(*arguments)
            if errand is None or not errand.is_over:
                errand = self._errands[key] = RandomErrand(self._world)
                raise NotYet(errand)
            return ask(*arguments) if errand.is_done else failed

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
        arena.begun: dict[int, RandomErrand] = {}  # type: ignore[misc]

    def bring(self, offset: int, size: int) -> bool:
        random = self.world.random
        errand = self.begun.pop(offset, None)
        if errand is not None and errand.is_over:
            if not errand.is_done:
                raise NoAnswer
        elif random.random() < REFUSES:
            return False
        elif random.random() < 2 * self.world.fetches:
            self.begun[offset] = RandomErrand(self.world)
            raise NotYet(self.begun[offset])
        self.octets[offset : offset + size] = self.staged[offset : offset + size]
        return True

    def forget(self, offset: int) -> None:
        self.begun.pop(offset, None)


class FetchingWorld(RecordedWorld):
    """Such clients; ``errands`` has what is under way."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.fetches = FETCHES
        self.errands: dict[int, RandomErrand] = {}  # by ticket
        self.errands_made = 0
        super().__init__()

    def hired(self, thread: EngineThread) -> None:
        FetchingMemory(self, thread._fake)

    def end_errand(self, ticket: int) -> None:
        self.errands_made += 1
        self.errands.pop(ticket).end()
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
