# SPDX-License-Identifier: Apache-2.0
"""Judges what the workers have counted: numbers in, complaints out. Pure.

``lives`` says of each worker which of its lives was the last; only pairs of which both lived to the
end can be asked for everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from binderclient.stress.board import Cell, Link

# Counts of a worker that must be 0: what each means.
FAULTS: Final = {
    "corrupt": "damaged payloads, files or answers",
    "lost": "calls lost",
    "doubled": "calls that came twice",
    "overtaken": "one-way calls out of order",
    "stray": "messages that were meant for somebody else",
    "refused": "refusals for another reason than lack of room",
    "broken": "system calls that failed",
}


def missing_calls(
    cells: Iterable[tuple[int, int, Cell, Cell]],
    servers: int,
    threads_per_client: int,
    lives: Mapping[int, int],
) -> Iterator[str]:
    """Yield what the ends of a pair do not agree on, once nothing is under way any more.

    A server may have handled one call more than its client had answered: the reply had no room.
    """
    for server, thread, sent, received in cells:
        client = servers + thread // threads_per_client
        if (sent.client_life, sent.server_life) != (lives[client], lives[server]):
            continue
        got = (0, 0)
        if (received.client_life, received.server_life) == (sent.client_life, sent.server_life):
            got = (received.oneways, received.calls)
        who = f"from thread {thread} of client {client} to server {server}"
        if got[0] != sent.oneways:
            yield f"{who}: {sent.oneways} one-way calls accepted, {got[0]} received"
        if got[1] < sent.calls:
            yield f"{who}: {sent.calls} calls answered, {got[1]} received"


def missing_deaths(
    links: Iterable[tuple[int, int, Link]], lives: Mapping[int, int], alive: Iterable[int]
) -> Iterator[str]:
    """Yield clients that were told of a death too seldom, or too often.

    Args:
        links: see ``Board.links``.
        lives: the last life of each worker.
        alive: the workers that are alive.
    """
    living = set(alive)
    for observer, observed, link in links:
        if observer not in living:
            continue
        is_watching = observed in living and link.life == lives[observed]
        expected = link.linked - is_watching
        if link.told != expected:
            yield f"worker {observer}: told {link.told} of {expected} deaths of worker {observed}"


def faults(workers: Sequence[Mapping[str, int]], name: str) -> int:
    """Return how often all workers found this fault."""
    return sum(worker[name] for worker in workers)


def open_files(workers: Iterable[tuple[int, Mapping[str, int]]]) -> Iterator[str]:
    """Yield which servers have not closed what they got, or got more than that."""
    for number, worker in workers:
        before, after = worker["files_at_start"], worker["files_at_end"]
        if before != after:
            yield f"worker {number}: {before} open files at its start, {after} at its end"


def leftovers(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return what a driver has more of than before."""
    more = {kind: count - before.get(kind, 0) for kind, count in after.items()}
    return {kind: count for kind, count in more.items() if count > 0}
