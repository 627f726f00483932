# SPDX-License-Identifier: Apache-2.0
"""Where two lists of results differ, the smallest script that shows it, and how to say so."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from binderwire import binder_abi as abi
from binderwire.describe import describe_returns
from oracle import script
from oracle.engine_player import Player

if TYPE_CHECKING:
    from collections.abc import Callable

    from oracle.program import Ended, Result
    from oracle.script import Script

    Oracle = Callable[["Played"], list[Result]]

_SUSPECTS = abi.BR_ONEWAY_SPAM_SUSPECT.to_bytes(4, "little")
_COMPLETE = abi.BR_TRANSACTION_COMPLETE.to_bytes(4, "little")
ATTEMPTS_MAX = 3000  # scripts tried to make one smaller


class Difference(NamedTuple):
    """The first result that is not the same."""

    step: int  # index in the script
    engine: Result
    driver: Result | None  # None: it gave up before that

    def __str__(self) -> str:
        told = "nothing: a thread sleeps that should have come back"
        driver = told if self.driver is None else _shown(self.driver)
        return f"step {self.step}\n  engine: {_shown(self.engine)}\n  driver: {driver}"


class Played(NamedTuple):
    """A script as the engine played it."""

    script: Script  # without what was passed over
    operations: list[bytes]
    expected: list[Result]
    ends: list[int]  # how many results there were after each step


def play(steps: Script) -> Played:
    """Play a script on an engine."""
    player, done, ends = Player(), [], []
    for step in steps:
        if player.play(step):
            done.append(step)
            ends.append(len(player.expected))
    player.finish()
    return Played(tuple(done), player.operations, player.expected, ends)


def difference(played: Played, results: list[Result]) -> Difference | None:
    """Return the first difference."""
    for index, expected in enumerate(played.expected):
        found = results[index] if index < len(results) else None
        if found != expected:
            if _is_excused(expected, found):
                return None
            step = next(step for step, end in enumerate(played.ends) if end > index)
            return Difference(step, expected, found)
    return None


def _is_excused(expected: Result, found: Result | None) -> bool:
    """Whether a difference is one that README lists; then nothing behind it can be compared.

    When the driver looks for spam, the buffer under way may count already, if who had its memory
    before was the same sender. It then tells so earlier than we do, and not once more.
    """
    if not isinstance(expected, tuple) or not isinstance(found, tuple):
        return False
    if not any(_SUSPECTS in each.stream for each in (*expected, *found)):
        return False
    ours, theirs = (
        [each._replace(stream=each.stream.replace(_SUSPECTS, _COMPLETE)) for each in side]
        for side in (expected, found)
    )
    return ours == theirs


def shrink(steps: Script, oracle: Oracle) -> tuple[Script, Difference] | None:
    """Return the smallest script that can be found from one that differs, and how it does.

    Args:
        oracle: has a script's operations played by the driver and returns the results.

    Returns:
        None if the script itself does not differ again: then something was left to chance.
    """
    attempts = 0

    def differs(candidate: Script) -> tuple[Script, Difference] | None:
        nonlocal attempts
        attempts += 1
        played = play(candidate)
        found = difference(played, oracle(played))
        return None if found is None else (played.script[: found.step + 1], found)

    best = differs(steps)
    improved = best is not None
    while best is not None and improved and attempts < ATTEMPTS_MAX:
        improved = False
        for candidate in _candidates(best[0]):
            if attempts >= ATTEMPTS_MAX:
                break
            better = differs(candidate)
            if better is not None and _cost(better[0]) < _cost(best[0]):
                best, improved = better, True
                break
    return best


def _candidates(steps: Script) -> list[Script]:
    """Return scripts that are a little smaller: without some steps, then with simpler ones."""
    found: list[Script] = []
    size = len(steps) // 2
    while size:
        starts = range(len(steps) - size, -1, -size)
        found += [steps[:start] + steps[start + size :] for start in starts]
        size //= 2
    for index, step in enumerate(steps):
        for simple in script.smaller(step):
            found.append((*steps[:index], simple, *steps[index + 1 :]))
    return found


def _cost(steps: Script) -> tuple[int, int]:
    return len(steps), sum(len(repr(step)) for step in steps)


def _shown(result: Result) -> str:
    if isinstance(result, tuple):
        return "; ".join(_shown_ended(each) for each in result) or "nobody comes back"
    return result.hex() if isinstance(result, bytes) else f"errno {result}"


def _shown_ended(ended: Ended) -> str:
    told = f"{ended.argument.hex()} read: {describe_returns(ended.stream)}"
    return f"thread {ended.thread} errno {ended.errno} nice {ended.nice} {told}"
