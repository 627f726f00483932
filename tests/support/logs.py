# SPDX-License-Identifier: Apache-2.0
"""Logs of a driver in a form that can be compared: without the numbers that no two runs share.

Process and thread ids become names, debug ids are numbered by their first appearance, addresses and
times go.  What is left of a moment must be the same on the engine in this process, on a real mount,
and on Linux's own driver.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from binderd.introspect.tree import LogTree

LOGS_OF_KERNEL: Final = "/sys/kernel/debug/binder"

# How much is populated at this moment is nobody's promise.
_NOBODY_PROMISES: Final = re.compile(r"  pages: \d+:\d+:\d+\n")
# Differs: a mapping is not seen before something is delivered into it.
_UNTIL_DELIVERY: Final = re.compile(r"  free async space \d+\n")

# Where process and thread ids stand.
_IDS: Final = re.compile(
    r"^proc \d+$|^  thread \d+:|from \d+:\d+ to \d+:\d+|(?<= tr 1) proc[ \d]+$", re.MULTILINE
)


class Logs(Protocol):
    """Where logs are read."""

    def read(self, name: str) -> str:
        """Return a whole file of binder_logs."""


class FileLogs:
    """Files in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, name: str) -> str:
        return (self._directory / name).read_text()


class TreeLogs:
    """A tree in this process."""

    def __init__(self, tree: LogTree) -> None:
        self._tree = tree

    def read(self, name: str) -> str:
        inode = 1
        for part in ("binder_logs", *name.split("/")):
            entry = self._tree.find(inode, part)
            assert entry is not None, f"no {part} in {name}"
            inode = entry.inode
        pieces = self._tree.read(inode)
        assert pieces is not None
        return "".join(pieces)


class Transcript:
    """What was seen at several moments."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._names: dict[int, str] = {}  # of processes and threads
        self._numbers: dict[str, int] = {}  # debug id -> how manyth
        self.text = ""

    def name(self, number: int, name: str) -> None:
        """Call a process or thread by a name; the first one counts."""
        self._names.setdefault(number, name)

    def show(self, moment: str, files: Iterable[str]) -> None:
        """Add what some files say right now; ``{NAME}`` in a name is a process' id."""
        self.text += f"===== {moment}\n"
        ids = {name: number for number, name in self._names.items()}
        for file in files:
            text = self._logs.read(file.format(**ids))
            self.text += f"--- {file}\n{self._normalise(text)}"

    def _normalise(self, text: str) -> str:
        text = _NOBODY_PROMISES.sub("", text)
        text = re.sub(r"elapsed \d+ms", "elapsed _ms", text)
        text = re.sub(r" pri -?\d+", " pri _", text)
        text = re.sub(r"(transaction \d+:) [0-9a-f]{16}", r"\1 _", text)
        text = re.sub(r" d (0*)[0-9a-f]*\n", self._death, text)
        text = re.sub(r"(\w)([0-9a-f]{16})(?= |\n)", lambda m: f"{m[1]}{int(m[2], 16):x}", text)
        text = re.sub(r" l=\d+\n", "\n", text)
        text = re.sub(r"^\d+(?=: (call |async|reply))", self._number, text, flags=re.MULTILINE)
        words = "transaction|node|ref|buffer|node work"
        text = re.sub(rf"(?<=\b)({words}) ([1-9]\d*)(?=[: \n])", self._numbered, text)
        return _IDS.sub(self._named, text)

    def _named(self, match: re.Match[str]) -> str:
        return re.sub(r"\d+", lambda m: self._names.get(int(m[0]), m[0]), match[0])

    @staticmethod
    def _death(match: re.Match[str]) -> str:
        return f" d {'no' if len(match[1]) == 16 else 'yes'}\n"

    def _number(self, match: re.Match[str]) -> str:
        return f"#{self._numbers.setdefault(match[0], len(self._numbers) + 1)}"

    def _numbered(self, match: re.Match[str]) -> str:
        return f"{match[1]} #{self._numbers.setdefault(match[2], len(self._numbers) + 1)}"


def without_mapping_figures(text: str) -> str:
    """Return a transcript without what differs until something was delivered to a process."""
    return _UNTIL_DELIVERY.sub("", text)
