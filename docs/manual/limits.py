# SPDX-License-Identifier: Apache-2.0
"""docs/LIMITS.md, made of the tables in the code: what clients can make the daemon keep.

python docs/manual/limits.py prints it.
"""

from __future__ import annotations

from typing import Final

from binderd.engine.limits import (
    DESCRIPTOR_PARTS,
    DESCRIPTORS_KEPT,
    KINDS,
    MEMORY_PARTS,
    OBJECT_LIMITS,
    PER_USER,
    Kind,
    Limits,
)

# The machine of the example.
_DESCRIPTORS: Final = 524288
_MEMORY: Final = 8 << 30  # bytes

_HEAD: Final = """\
# Limits

This page is made of the tables in [`engine/kinds.py`](../daemon/binderd/engine/kinds.py) and
[`engine/limits.py`](../daemon/binderd/engine/limits.py) by `make limits`.

Clients can make the daemon keep things. The kernel's driver bounds few of them, and charges its
memory to nobody; a daemon must not be talked into eating the machine, and no user may take what
others need. So each kind of thing has a limit of one object (mostly an open file of a device),
one of each user and one of everybody. Those of everybody are a part of the machine: of its memory
or that of our cgroup, and of the descriptors that we may open (RLIMIT_NOFILE), {kept} of which
are kept for ourselves. What they add up to is less than the machine has. An ordinary user can
have a quarter of each. All ordinary users together can have seven eighths; root, who is bounded
by the whole, has the rest to itself.

[`engine/user.py`](../daemon/binderd/engine/user.py) says which user pays for what. Users of a
container with a user namespace count together, as the user that made it; if that is root, as one
container.

Each number can be chosen: `NAME = N` in the `[limits]` of the configuration, or `--limit NAME=N`;
a kind's name is the limit of everybody, with `-per-user` behind it that of an ordinary user.
"""

_KINDS_HEAD: Final = """\
## Of a user, and of everybody

Bytes and descriptors are what one costs the daemon at most. The last two columns are for a
machine with {memory} GiB and {descriptors:,} descriptors; there one user can cost {user_memory:,}
MiB and {user_descriptors:,} descriptors.

| name | one is | bytes | descriptors | at most | part of the machine | seen there | user | all |
|:--|:--|--:|--:|--:|:--|:--|--:|--:|
"""

_OBJECTS_HEAD: Final = """\
## Of one object

| name | number of | at most | what is seen at the limit |
|:--|:--|--:|:--|
"""


def page() -> str:
    """Return the page."""
    limits = Limits.for_machine(_DESCRIPTORS, _MEMORY)
    cost = limits.cost_of_user()
    head = _KINDS_HEAD.format(
        memory=_MEMORY >> 30,
        descriptors=_DESCRIPTORS,
        user_memory=cost.memory >> 20,
        user_descriptors=cost.descriptors,
    )
    kinds = "".join(_kind_row(kind, limits) for kind in KINDS)
    usual = Limits().numbers()
    objects = "".join(
        f"| `{_option(name)}` | {what} | {usual[name]:,} | {seen} |\n"
        for name, (what, seen) in OBJECT_LIMITS.items()
    )
    return f"{_HEAD.format(kept=DESCRIPTORS_KEPT)}\n{head}{kinds}\n{_OBJECTS_HEAD}{objects}"


def _kind_row(kind: Kind, limits: Limits) -> str:
    part = f"{kind.memory_part}/{MEMORY_PARTS} of the memory"
    if kind.descriptor_part:
        part += f", {kind.descriptor_part}/{DESCRIPTOR_PARTS} of the descriptors"
    bound = limits.of(kind)
    cells = (
        f"`{_option(kind.name)}`",
        kind.what,
        f"{kind.cost.memory:,}",
        f"{kind.cost.descriptors}",
        f"{kind.most:,}",
        part,
        kind.seen,
        f"{bound.user:,}",
        f"{bound.total:,}",
    )
    return f"| {' | '.join(cells)} |\n"


def _option(name: str) -> str:
    assert not name.endswith(PER_USER)
    return name.replace("_", "-")


if __name__ == "__main__":
    print(page(), end="")
