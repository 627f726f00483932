# SPDX-License-Identifier: Apache-2.0
"""The directories and files that show what is going on: names, numbers, and where text comes from.

    features/oneway_spam_detection, extended_error, freeze_notification
    binder_logs/state, stats, transactions, transaction_log, failed_transaction_log
    binder_logs/proc/PID

An inode's number says what it is, so there is nothing to remember of what was looked up. Nothing
here may know how a file system is served.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from binderd.engine.views import State
from binderd.introspect import text

if TYPE_CHECKING:
    from binderd.engine.engine import Engine

# Each gets the user who reads. It takes its view of the engine when it is called, and makes the
# text when that is asked for.
Source = Callable[[int], Iterator[str]]

ROOT: Final = 1
FEATURES: Final = 2
LOGS: Final = 3
PROCESSES: Final = 4
_FIRST_FILE: Final = 16
_FIRST_PROCESS: Final = 1 << 32  # plus the process id

# Directories that are shown in the devices' own directory.
PLACES: Final = ("features", "binder_logs")

_FEATURES: Final = ("oneway_spam_detection", "extended_error", "freeze_notification")


class Entry(NamedTuple):
    """A name in a directory."""

    name: str
    inode: int
    is_directory: bool


class LogTree:
    """The tree of one engine.

    Args:
        page_size: bytes.
    """

    __slots__ = ("_directories", "_first_log", "_sources", "engine")

    def __init__(self, engine: Engine, page_size: int) -> None:
        self.engine: Engine = engine
        logs: dict[str, Source] = {
            "state": lambda reader: self._show(lambda state: text.state(state, reader)),
            "stats": lambda _: text.stats(engine.take_statistics(page_size)),
            "transactions": lambda reader: self._show(
                lambda state: text.transactions(state, reader), only_busy=True
            ),
            "transaction_log": lambda _: text.transaction_log(
                engine.logged_transactions(failed=False)
            ),
            "failed_transaction_log": lambda _: text.transaction_log(
                engine.logged_transactions(failed=True)
            ),
        }
        features: dict[str, Source] = {name: lambda _: text.feature(True) for name in _FEATURES}
        files = [*features.items(), *logs.items()]
        self._sources = {_FIRST_FILE + number: source for number, (_, source) in enumerate(files)}
        entries = [Entry(name, _FIRST_FILE + n, False) for n, (name, _) in enumerate(files)]
        self._first_log = _FIRST_FILE + len(features)
        self._directories = {
            ROOT: [Entry("features", FEATURES, True), Entry("binder_logs", LOGS, True)],
            FEATURES: entries[: len(features)],
            LOGS: [*entries[len(features) :], Entry("proc", PROCESSES, True)],
        }

    def entries(self, directory: int) -> list[Entry] | None:
        """Return what is in a directory, None if the number is none's."""
        if directory == PROCESSES:
            pids = self.engine.pids()
            return [Entry(str(pid), _FIRST_PROCESS + pid, False) for pid in pids]
        return self._directories.get(directory)

    def find(self, directory: int, name: str) -> Entry | None:
        """Return the entry of that name, None if there is none."""
        for entry in self.entries(directory) or ():
            if entry.name == name:
                return entry
        return None

    def is_directory(self, inode: int) -> bool:
        """Return whether the number is a directory's."""
        return inode == PROCESSES or inode in self._directories

    def is_lasting(self, inode: int) -> bool:
        """Return whether the inode is always there; a process' file goes with the process."""
        return inode < _FIRST_PROCESS

    def is_log(self, inode: int) -> bool:
        """Return whether the number is that of a log, or of a directory of them."""
        return inode in {LOGS, PROCESSES} or inode >= self._first_log

    def read(self, inode: int, reader: int = 0) -> Iterator[str] | None:
        """Return a file's text, piece by piece, as it is at this moment; None if there is none.

        Args:
            reader: the user who reads it: pointers of other users are hidden from all but root.

        The view is taken before this returns, but see ``_show``; the text is made while it is
        consumed.
        """
        source = self._sources.get(inode)
        if source is not None:
            return source(reader)
        pid = inode - _FIRST_PROCESS
        if pid not in self.engine.pids():
            return None
        return self._show(lambda state: text.process_state(state, reader), pid=pid)

    def _show(
        self,
        show: Callable[[State], Iterator[str]],
        *,
        pid: int | None = None,
        only_busy: bool = False,
    ) -> Iterator[str]:
        """Return the text of the state as it is now; arguments as ``take_state`` has them.

        Where there is very much it is taken while the text is consumed, which is empty until then.
        """
        engine, state = self.engine, State([], [])
        rows = engine.take_rows(state, pid=pid, only_busy=only_busy)
        if engine.is_small():
            for _ in rows:
                pass
        return itertools.chain(("" for _ in rows), _later(show, state))


def _later(show: Callable[[State], Iterator[str]], state: State) -> Iterator[str]:
    yield from show(state)
