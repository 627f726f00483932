# SPDX-License-Identifier: Apache-2.0
"""The shrinker: gives free pages of receive areas back, and notices mappings that are gone.

Giving pages back at each BC_FREE_BUFFER would cost more than the delivery itself, and the next
delivery would fault them in again. So an arena that is used is listed, a tick looks at the
list, and an arena in which nothing was freed for a whole tick gives back what is free then. While
no arena is listed, no timer runs. The driver's shrinker does this when the kernel is short of
memory, of which the daemon hears nothing.

A client's munmap cannot be seen through FUSE. So the same tick checks that the mappings of listed
arenas are still there, and makes what was seen of clients' memory (``presence.py``) invalid.

Nothing here may know trio: the caller ticks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from binderd.memory.presence import GENERATION

if TYPE_CHECKING:
    from collections.abc import Callable

    from binderd.engine.ports import OpenFile
    from binderd.memory.memfd_arena import MemfdArena

TICK_SECONDS: Final = 0.5
_TICKS_BETWEEN_CHECKS: Final = 2  # so a mapping is looked at once a second at most


class Shrinker:
    """The arenas that were used since their pages were given back.

    Args:
        wake: called when the list is no longer empty: ``tick`` must be called every TICK_SECONDS
            from then on, until ``is_idle``.
        unmapped: called with an open file whose opener no longer has it mapped.
    """

    __slots__ = ("_listed", "_unmapped", "_wake")

    def __init__(self, wake: Callable[[], None], unmapped: Callable[[OpenFile], None]) -> None:
        self._wake = wake
        self._unmapped = unmapped
        self._listed: dict[MemfdArena, None] = {}
        GENERATION.wake = wake

    @property
    def is_idle(self) -> bool:
        """Is no arena listed, and nothing seen of clients' memory that gets old?"""
        return not self._listed and not GENERATION.is_used

    def add(self, arena: MemfdArena) -> None:
        """List ``arena``, which has just been used."""
        if not self._listed:
            self._wake()
        self._listed[arena] = None
        arena.is_listed = True
        arena.is_quiet = False

    def drop(self, arena: MemfdArena) -> None:
        """Forget ``arena``, which is being closed."""
        self._listed.pop(arena, None)

    def tick(self) -> None:
        """Check every listed arena, and trim those that were not used since the last tick."""
        if GENERATION.is_used:
            GENERATION.advance()
        for arena in list(self._listed):
            engine, file = arena.engine, arena.open_file
            if engine is None or file is None:
                continue
            arena.ticks_unchecked += 1
            if arena.ticks_unchecked >= _TICKS_BETWEEN_CHECKS:
                arena.ticks_unchecked = 0
                if not arena.is_still_mapped():
                    self._unmapped(file)
            if arena.is_quiet:
                arena.trim(engine.free_ranges(file))
                del self._listed[arena]
                arena.is_listed = False
            arena.is_quiet = True
