# SPDX-License-Identifier: Apache-2.0
"""How much memory this process' control groups allow it, in both versions, nested ones included.

A group's limit holds for all below it, so each group from ours up to the highest that is shown
counts. A container may be shown the lower part of the tree alone, with a path of its own group that
begins above it. Nothing here may know what the memory is for.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIMITS: Final = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}
_CONTROLLER: Final = "memory"


class _Shown(NamedTuple):
    """A tree of groups, as far as it is mounted."""

    kind: str  # the file system's type
    root: str  # the group that is the mount's root
    place: str  # where it is mounted


def memory_limit(process: str = "/proc/self") -> int | None:
    """Return how many bytes all groups together allow; None: no limit is known.

    Args:
        process: where /proc shows it.
    """
    limits: list[int] = []
    with suppress(OSError, ValueError):
        groups = _groups(Path(process, "cgroup").read_text(encoding="utf-8"))
        text = Path(process, "mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        for shown in _trees(text):
            group = groups.get(shown.kind)
            if group is not None:
                limits += _limits(shown, group)
    return min(limits, default=None)


def _groups(text: str) -> dict[str, str]:
    """Return which group has the memory, by the type of the file system that shows it."""
    found = {}
    for line in text.splitlines():
        number, controllers, group = line.split(":", 2)
        if _CONTROLLER in controllers.split(","):
            found["cgroup"] = group
        elif number == "0" and not controllers:
            found["cgroup2"] = group
    return found


def _trees(mountinfo: str) -> Iterator[_Shown]:
    for line in mountinfo.splitlines():
        before, _, behind = line.partition(" - ")
        kind, _, options = behind.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and _CONTROLLER in options.split(",")):
            root, place = before.split(" ")[3:5]
            yield _Shown(kind, root, place)


def _limits(shown: _Shown, group: str) -> Iterator[int]:
    """Yield the limits of a group and of those above it, as far as they are shown."""
    below = os.path.relpath(group, shown.root)
    if below.split("/")[0] == "..":
        below = "."  # it is not in there: what is at the root holds at least
    folder = Path(shown.place, below)
    while True:
        with suppress(OSError, ValueError):  # "max", or a group that has none: the highest
            yield int((folder / _LIMITS[shown.kind]).read_text(encoding="ascii"))
        if folder == Path(shown.place):
            return
        folder = folder.parent
