# SPDX-License-Identifier: Apache-2.0
"""Live objects of an engine, counted where they come and go (binder_stats_created/_deleted)."""

from __future__ import annotations


class Stats:
    """How many of each kind exist right now; all zero once the last client has gone."""

    __slots__ = ("buffers", "deaths", "nodes", "processes", "refs", "threads", "transactions")

    def __init__(self) -> None:
        self.processes = 0
        self.threads = 0
        self.nodes = 0
        self.refs = 0
        self.deaths = 0
        self.transactions = 0
        self.buffers = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return {
            "buffers": self.buffers,
            "deaths": self.deaths,
            "nodes": self.nodes,
            "processes": self.processes,
            "refs": self.refs,
            "threads": self.threads,
            "transactions": self.transactions,
        }
