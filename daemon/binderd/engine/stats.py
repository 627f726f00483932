# SPDX-License-Identifier: Apache-2.0
"""What is counted: live objects, objects ever made, commands and returns.

Objects are counted where they come and go (binder_stats_created/_deleted).

Words are counted for the process whose thread writes or reads them. They are summed up over all
processes when a log is read, and the counts of a process are kept when it ends. Every call pays for
some eight words, so each has a counter object of its own: compiled, adding to an attribute
allocates nothing, while adding to an element of a list of integers does.
"""

from __future__ import annotations

from binderd.engine.views import COMMANDS_COUNT, RETURNS_COUNT


class Counter:
    """How often something has happened."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Words:
    """How often each BC_ and BR_ word was seen, by its number."""

    __slots__ = ("commands", "returns")

    def __init__(self) -> None:
        self.commands = [Counter() for _ in range(COMMANDS_COUNT)]
        self.returns = [Counter() for _ in range(RETURNS_COUNT)]

    def add(self, other: Words) -> None:
        """Count what ``other`` has counted, too."""
        for ours, theirs in zip(self.commands, other.commands, strict=True):
            ours.count += theirs.count
        for ours, theirs in zip(self.returns, other.returns, strict=True):
            ours.count += theirs.count


class Stats:
    """How many of each kind exist right now; all zero once the last client has gone.

    The counts with ``_made`` never go down.
    """

    __slots__ = (
        "buffers",
        "deaths",
        "deaths_made",
        "files",
        "freezes",
        "freezes_made",
        "nodes",
        "nodes_made",
        "processes",
        "processes_made",
        "refs",
        "refs_made",
        "threads",
        "threads_made",
        "transactions",
        "transactions_made",
        "words",
    )

    def __init__(self) -> None:
        self.processes = self.processes_made = 0
        self.threads = self.threads_made = 0
        self.nodes = self.nodes_made = 0
        self.refs = self.refs_made = 0
        self.deaths = self.deaths_made = 0
        self.freezes = self.freezes_made = 0
        self.transactions = self.transactions_made = 0
        self.buffers = 0
        self.files = 0  # on their way
        self.words = Words()  # of processes that have gone

    def as_dict(self) -> dict[str, int]:
        """Return the counts of live objects by name."""
        return {
            "buffers": self.buffers,
            "deaths": self.deaths,
            "files": self.files,
            "freezes": self.freezes,
            "nodes": self.nodes,
            "processes": self.processes,
            "refs": self.refs,
            "threads": self.threads,
            "transactions": self.transactions,
        }
