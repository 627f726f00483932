# SPDX-License-Identifier: Apache-2.0
"""Searches for hostile clients whose work for the engine grows faster than what they send.

A case is a row of moves, made from a seed; each is played in a size, twice and four times it. The
work is counted in lines of the engine that are executed, so time and machine play no part. What
is sent grows as the size does: where the lines more than that, the seed is printed. What a built-in
does (list.remove) is one line however long it takes: such work only `make hostile` shows.

    PYTHONPATH=tests python tests/hostile/simulation.py --seconds 60 --seed 1
"""

from __future__ import annotations

import argparse
import sys
import time
from random import Random
from typing import TYPE_CHECKING, Any, Final, Self

from binderwire.binder_abi import BINDER_BUFFER_FLAG_HAS_PARENT, TF_UPDATE_TXN
from support import bc
from support.engine_world import EngineWorld
from support.scenes import freezer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

SIZE: Final = 48
TOO_MUCH: Final = 1.3  # times the growth of what is sent
PHASES_MAX: Final = 9
_READS_MAX: Final = 4  # for each thing that was sent
_PIECE: Final = 16


class CountingWorld(EngineWorld):
    """Without the look at every invariant, which is work of its own."""

    def check(self) -> None:
        pass


class Lines:
    """Counts the lines of the engine that are executed while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ANN401
        return self._line if "/binderd/engine/" in frame.f_code.co_filename else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ANN401
        self.count += event == "line"
        return self._line


class Case:
    """A manager and a client, both the attacker's, and what they do in a size.

    Args:
        size: how many of each.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.world = CountingWorld()
        server = self.world.open(size=4 << 20)
        server.become_manager()
        self.server = server.looper()
        self.client = self.world.open(size=4 << 20).seasoned()
        self.stranger = freezer(self.world)
        self.numbers = range(1, size + 1)

    def play(self, names: Sequence[str]) -> int:
        """Do it; return how many lines that took."""
        with Lines() as lines:
            for name in names:
                MOVES[name](self)
            self.world.close()
        return lines.count

    # Moves

    def send_nodes(self) -> None:
        nodes = [bc.binder(16 * number) for number in self.numbers]
        self.client.write_read(bc.oneway(0, bc.payload(*nodes)), read=0)

    def send_one_by_one(self) -> None:
        for number in self.numbers:
            self.client.write_read(bc.oneway(0, bc.payload(bc.binder(16 * number))), read=0)

    def update(self) -> None:
        self.client.write_read(
            *[bc.oneway(0, b"x" * 8, flags=TF_UPDATE_TXN) for _ in self.numbers], read=0
        )

    def update_others(self) -> None:
        for number in self.numbers:
            self.client.write_read(bc.oneway(0, b"x", flags=TF_UPDATE_TXN, code=number), read=0)

    def scatter(self) -> None:
        place = self.client.proc.room(_PIECE)
        pieces = [bc.ptr(place, _PIECE)]
        for parent in range(self.size - 1):
            flag = BINDER_BUFFER_FLAG_HAS_PARENT
            pieces.append(bc.ptr(place, _PIECE, flags=flag, parent=parent, parent_offset=0))
        size = _PIECE * self.size
        self.client.write_read(bc.oneway_sg(0, bc.payload(*pieces), buffers_size=size), read=0)

    def read(self) -> None:
        for _ in range(_READS_MAX * self.size):
            pending = self.server.start(read=256)
            if pending.parked:
                self.server.signal()
                pending.result()
                return
            pending.result()

    def forwards(self, command: Callable[[int], bytes]) -> None:
        self.server.write_read(*map(command, self.numbers), read=0)

    def backwards(self, command: Callable[[int], bytes]) -> None:
        self.server.write_read(*map(command, reversed(self.numbers)), read=0)

    def freeze(self) -> None:
        self.stranger.freeze(self.client.proc.pid)

    def freeze_server(self) -> None:
        self.stranger.freeze(self.server.proc.pid)

    def thaw(self) -> None:
        self.stranger.thaw(self.client.proc.pid)

    def kill(self) -> None:
        self.client.proc.kill()
        self.client = self.world.open(size=4 << 20).seasoned()


def _both(name: str, command: Callable[[int], bytes]) -> dict[str, Callable[[Case], None]]:
    return {
        name: lambda case: case.forwards(command),
        f"{name} backwards": lambda case: case.backwards(command),
    }


MOVES: Final[dict[str, Callable[[Case], None]]] = {
    "send nodes": Case.send_nodes,
    "send one by one": Case.send_one_by_one,
    "update": Case.update,
    "update others": Case.update_others,
    "scatter": Case.scatter,
    "read": Case.read,
    "freeze": Case.freeze,
    "freeze server": Case.freeze_server,
    "thaw": Case.thaw,
    "kill": Case.kill,
    **_both("acquire", bc.acquire),
    **_both("release", bc.release),
    **_both("increfs", bc.increfs),
    **_both("decrefs", bc.decrefs),
    **_both("watch", lambda number: bc.request_death(number, 7)),
    **_both("watch apart", lambda number: bc.request_death(number, number)),
    **_both("unwatch", lambda number: bc.clear_death(number, 7)),
    **_both("unwatch apart", lambda number: bc.clear_death(number, number)),
    **_both("done", lambda number: bc.dead_binder_done(7)),
    **_both("done apart", bc.dead_binder_done),
    **_both("notice", lambda number: bc.request_freeze_notice(number, number)),
    **_both("notice off", lambda number: bc.clear_freeze_notice(number, number)),
    **_both("notice done", bc.freeze_notice_done),
}


def moves_of(seed: int) -> list[str]:
    """Return the moves of a case; nodes are sent first, as little happens without."""
    dice = Random(seed)
    first = ["send nodes", "acquire"]
    names = list(MOVES)
    return first + [dice.choice(names) for _ in range(dice.randint(1, PHASES_MAX))]


def growth(names: Sequence[str], size: int = SIZE) -> float:
    """Return how much faster than the size the lines grow between twice and four times it."""
    small, large = (Case(factor * size).play(names) for factor in (2, 4))
    return large / small / 2


def shrunk(names: Sequence[str]) -> list[str]:
    """Leave out what does not matter."""
    kept = list(names)
    for name in names:
        fewer = list(kept)
        fewer.remove(name)
        if growth(fewer) > TOO_MUCH:
            kept = fewer
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1, help="the first")
    options = parser.parse_args()
    end, seed, found = time.monotonic() + options.seconds, options.seed, set()
    while time.monotonic() < end:
        if (rate := growth(moves_of(seed))) > TOO_MUCH:
            names = shrunk(moves_of(seed))
            if tuple(names) not in found:
                print(f"seed {seed}: {rate:.2f} times: {', '.join(names)}", flush=True)
            found.add(tuple(names))
        seed += 1
    print(f"{seed - options.seed} cases, {len(found)} grow faster than what is sent")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
