# SPDX-License-Identifier: Apache-2.0
"""``Board``: memory that is shared with the workers; ``client/stress/board.h`` has its layout.

The worker program tells the names of the fields, so that they are declared once. Every field is an
unsigned 64-bit number. Nothing here judges what the numbers mean.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
from typing import TYPE_CHECKING, Final, NamedTuple

from binderclient.stress.errors import StressError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_WORD: Final = 8  # bytes
_PAGE: Final = 4096
STARTING, RUNNING, DRAINING = range(3)


class Cell(NamedTuple):
    """How far the numbers of a client thread's calls to a server are."""

    client_life: int
    server_life: int
    oneways: int
    calls: int


class Link(NamedTuple):
    """How often a worker asked to be told of another one's death, and was told."""

    linked: int
    told: int
    life: int  # of the other one, when it asked the last time


class Layout(NamedTuple):
    """What the worker program says of the board."""

    settings: list[str]
    worker: list[str]
    cell: list[str]
    link: list[str]
    complaint_size: int
    kinds: int
    shards: int
    counts_size: int
    lowest: int
    highest: int
    digits: int


def read_layout(program: Path) -> Layout:
    """Ask the worker program.

    Raises:
        StressError: it cannot be started, or is none of this version.
    """
    try:
        told = json.loads(subprocess.check_output([program, "layout"], timeout=30))
        layout = Layout(**told)
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        raise StressError(f"{program} does not work: {error}") from None
    if tuple(layout.cell) != Cell._fields or tuple(layout.link) != Link._fields:
        raise StressError(f"{program} is of another version: build it anew (make stress-worker)")
    return layout


class Board:
    """The board: servers are the workers from 0 on, clients those behind them.

    Args:
        layout: what the worker program says.
        settings: of the run: ``servers``, ``clients`` and ``threads`` among them.
    """

    def __init__(self, layout: Layout, settings: Mapping[str, int]) -> None:
        self.layout = layout
        self.servers, self.clients = settings["servers"], settings["clients"]
        self.threads = self.clients * settings["threads"]  # that call
        self.workers = self.servers + self.clients
        self._worker_words = len(layout.worker) + layout.complaint_size // _WORD
        regions = {
            "at_workers": self.workers * self._worker_words,
            "at_sent": self.servers * self.threads * len(layout.cell),
            "at_received": self.servers * self.threads * len(layout.cell),
            "at_links": self.workers**2 * len(layout.link),
            "at_histograms": layout.shards * layout.kinds * layout.counts_size,
        }
        self._at: dict[str, int] = {}
        size = _PAGE
        for name, words in regions.items():
            self._at[name] = size
            size += -(-words * _WORD // _PAGE) * _PAGE
        self.fd = os.memfd_create("binderctl-stress", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self._map = mmap.mmap(self.fd, size)
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("Q")
        for name, value in {**settings, **self._at, "size": size}.items():
            self.set(name, value)

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._bytes.release()
        self._map.close()
        os.close(self.fd)

    def get(self, name: str) -> int:
        """Return a setting, or one of the counts among them."""
        return self._words[self.layout.settings.index(name)]

    def set(self, name: str, value: int) -> None:
        """Set one."""
        self._words[self.layout.settings.index(name)] = value

    def worker(self, number: int) -> dict[str, int]:
        """Return what a worker has counted."""
        start = self._worker(number)
        return dict(zip(self.layout.worker, self._words[start:], strict=False))

    def field(self, number: int, name: str) -> int:
        """Return one of these numbers."""
        return self._words[self._worker(number) + self.layout.worker.index(name)]

    def clear(self, number: int, name: str) -> None:
        """Set one of these numbers to 0."""
        self._words[self._worker(number) + self.layout.worker.index(name)] = 0

    def complaint(self, number: int) -> str:
        """Return the first thing that a worker found wrong, empty if nothing."""
        start = (self._worker(number) + len(self.layout.worker)) * _WORD
        text = bytes(self._bytes[start : start + self.layout.complaint_size])
        return text.partition(b"\0")[0].decode(errors="replace")

    def _worker(self, number: int) -> int:
        return self._at["at_workers"] // _WORD + number * self._worker_words

    def cells(self) -> Iterator[tuple[int, int, Cell, Cell]]:
        """Yield (server, client thread, what that sent, what the server received) where any was."""
        size = len(self.layout.cell)
        starts = [self._at[name] // _WORD for name in ("at_sent", "at_received")]
        for number in range(self.servers * self.threads):
            rows = [self._words[s + number * size : s + (number + 1) * size] for s in starts]
            if rows[0] != rows[1] or rows[0][0]:
                server, thread = divmod(number, self.threads)
                yield server, thread, Cell(*rows[0]), Cell(*rows[1])

    def links(self) -> Iterator[tuple[int, int, Link]]:
        """Yield (observer, observed, the link) where there was one."""
        size = len(self.layout.link)
        start = self._at["at_links"] // _WORD
        for number in range(self.workers**2):
            at = start + number * size
            if self._words[at] or self._words[at + 1]:
                observer, observed = divmod(number, self.workers)
                yield observer, observed, Link(*self._words[at : at + size])

    def counts(self, kind: int) -> list[int]:
        """Return the histogram of a kind of call: the sum of its shards."""
        size, start = self.layout.counts_size, self._at["at_histograms"] // _WORD
        firsts = [
            start + (shard * self.layout.kinds + kind) * size for shard in range(self.layout.shards)
        ]
        rows = [self._words[first : first + size] for first in firsts]
        return [sum(column) for column in zip(*rows, strict=True)]
