# SPDX-License-Identifier: Apache-2.0
"""How much of everything clients may have: one object, one user, all users.

What kinds there are, and what is seen at a limit, is in ``kinds.py``. Bounds of a user and of
everybody are derived from the machine, and what they add up to is less than it has. ``user.py``
says which user is charged for what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from binderd.engine.kinds import (
    ATTACHMENTS,
    CLOSES,
    DESCRIPTOR_PARTS,
    FETCH_MAX,
    FETCHED,
    FILES_AT_ONCE,
    FLIGHTS,
    INODES,
    KINDS,
    LOCK_WAITS,
    LOG_BYTES,
    LOGS,
    MAPPING_SIZE_MAX,
    MEMORY_PARTS,
    OPEN_FILES,
    OUTBOX,
    WAITING_BYTES,
    WORKERS,
    Cost,
    Kind,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# With what the outside counts itself; the rows are nobody else's to import.
__all__ = [
    "ATTACHMENTS",
    "CLOSES",
    "DESCRIPTORS_KEPT",
    "DESCRIPTOR_PARTS",
    "FETCHED",
    "FETCH_MAX",
    "FILES_AT_ONCE",
    "FLIGHTS",
    "INODES",
    "KINDS",
    "LOCK_WAITS",
    "LOGS",
    "LOG_BYTES",
    "MAPPING_SIZE_MAX",
    "MEMORY_PARTS",
    "OBJECT_LIMITS",
    "OUTBOX",
    "PER_USER",
    "WAITING_BYTES",
    "WORKERS",
    "Bound",
    "Kind",
    "Limits",
]

# Descriptors that are never a client's: for our questions to /proc, for opening a file that is then
# refused, for the helper, for readers of logs.
DESCRIPTORS_KEPT: Final = 96

PER_USER: Final = "_per_user"  # ends the name of a number that is a user's

_USERS: Final = 4  # so many users at their share use up what ordinary users can have
_ROOT_SHARE: Final = 8  # one part in so many is root's alone


class Bound(NamedTuple):
    """How many of a kind there may be."""

    total: int  # of everybody
    user: int  # of one ordinary user
    ordinary: int  # of all ordinary users together; root may have the rest as well

    @classmethod
    def of(cls, total: int) -> Bound:
        """Return the bound that gives everybody a share of ``total``."""
        return cls(total, max(total // _USERS, 1), max(total - total // _ROOT_SHARE, 1))


_USUAL_BOUNDS: Final = tuple([Bound.of(kind.most) for kind in KINDS])


class Limits(NamedTuple):
    """Bounds of one engine."""

    # Of one open file, transaction or ioctl; OBJECT_LIMITS has what is seen there.
    threads_per_process: int = 4096
    nodes_per_process: int = 65536
    refs_per_process: int = 65536
    buffers_per_process: int = 16384
    objects_per_transaction: int = 8192
    attachments_per_process: int = 16
    flights_per_attachment: int = 320
    files_per_transaction: int = 1024
    files_per_process: int = 2048
    write_bytes_per_ioctl: int = 256 << 10

    # What others can make a process keep must not use up its user's share for the user's other
    # processes: each may have so many in any case.
    nodes_granted: int = 32
    refs_granted: int = 32
    buffers_granted: int = 16
    objects_granted: int = 64

    bounds: tuple[Bound, ...] = _USUAL_BOUNDS  # by the kinds' index

    def of(self, kind: Kind) -> Bound:
        """Return the bound of a kind."""
        return self.bounds[kind.index]

    @classmethod
    def for_machine(cls, descriptors: int, memory: int) -> Limits:
        """Return the limits with which clients leave a machine enough.

        Args:
            descriptors: how many clients and we may have (RLIMIT_NOFILE).
            memory: of the machine, bytes.
        """
        free = max(descriptors - DESCRIPTORS_KEPT, 8)
        return cls(bounds=tuple([_share_out(kind, free, memory) for kind in KINDS]))

    def for_one_user(self) -> Limits:
        """Return these limits for where nobody else can come: that user may have everything."""
        return self._replace(bounds=tuple([Bound(b.total, b.total, b.total) for b in self.bounds]))

    def replaced(self, numbers: Mapping[str, Bound | int]) -> Limits:
        """Return these limits with others instead.

        Args:
            numbers: by the field's name, or a kind's.
        """
        bounds = [_bound(numbers.get(kind.name), self.of(kind)) for kind in KINDS]
        kinds = {kind.name for kind in KINDS}
        fields = {name: value for name, value in numbers.items() if name not in kinds}
        return self._replace(bounds=tuple(bounds), **fields)  # type: ignore[arg-type]

    def with_numbers(self, chosen: Sequence[tuple[str, int]]) -> Limits:
        """Return these limits with some numbers instead.

        Args:
            chosen: names of ``number_names`` and numbers, sorted: a bound of everybody, which gives
                everybody the usual share, comes before that of a user.
        """
        limits = self
        by_name = {kind.name: kind for kind in KINDS}
        for name, number in chosen:
            kind = by_name.get(name.removesuffix(PER_USER))
            value: Bound | int = number
            if kind is not None and kind.name == name:
                value = Bound.of(number)
            elif kind is not None:
                old = limits.of(kind)
                value = old._replace(user=min(number, old.total))
            limits = limits.replaced({name if kind is None else kind.name: value})
        return limits

    def numbers(self) -> dict[str, int]:
        """Return every number that can be chosen, by its name."""
        found = {name: getattr(self, name) for name in self._fields if name != "bounds"}
        for kind in KINDS:
            bound = self.of(kind)
            found[kind.name] = bound.total
            found[kind.name + PER_USER] = bound.user
        return found

    def cost_of_all(self) -> Cost:
        """Return what all clients together can cost the daemon."""
        return self._cost([bound.total for bound in self.bounds])

    def cost_of_user(self) -> Cost:
        """Return what one ordinary user can cost the daemon."""
        return self._cost([bound.user for bound in self.bounds])

    def _cost(self, counts: Sequence[int]) -> Cost:
        descriptors = memory = 0
        for kind in KINDS:
            count = counts[kind.index]
            if kind.granted:
                count += counts[OPEN_FILES.index] * int(getattr(self, kind.granted))
            descriptors += count * kind.cost.descriptors
            memory += count * kind.cost.memory
        return Cost(descriptors, memory)


# What is seen where one object has all that it can have, of the fields above.
OBJECT_LIMITS: Final[dict[str, tuple[str, str]]] = {
    "threads_per_process": ("threads of an open file", "ENOMEM from the ioctl"),
    "nodes_per_process": ("nodes of an open file", "BR_FAILED_REPLY to the sender of one more"),
    "refs_per_process": ("handles of an open file", "BR_FAILED_REPLY to the sender of one more"),
    "buffers_per_process": ("buffers of an open file", "BR_FAILED_REPLY (-ENOSPC) to the sender"),
    "objects_per_transaction": ("objects of a transaction", "BR_FAILED_REPLY (-ENOMEM)"),
    "attachments_per_process": ("attached sockets of an open file", "ENOSPC from BINDERD_ATTACH"),
    "flights_per_attachment": (
        "files that were sent through an attached socket and not taken",
        "BR_FAILED_REPLY to the sender",
    ),
    "files_per_transaction": ("files in a transaction", "BR_FAILED_REPLY (-ENOMEM)"),
    "files_per_process": ("files on their way to an open file", "BR_FAILED_REPLY (-ENOMEM)"),
    # A process that is killed waits for its ioctl, so that must end soon, even in slices.
    "write_bytes_per_ioctl": (
        "bytes of commands that one ioctl carries out",
        "write_consumed is less than write_size",
    ),
    "nodes_granted": ("nodes that an open file may have beyond its user's share", ""),
    "refs_granted": ("handles that an open file may have beyond its user's share", ""),
    "buffers_granted": ("buffers that an open file may have beyond its user's share", ""),
    "objects_granted": ("objects that an open file may have beyond its user's share", ""),
}


def _bound(value: Bound | int | None, old: Bound) -> Bound:
    if value is None:
        return old
    return value if isinstance(value, Bound) else Bound.of(value)


def _share_out(kind: Kind, descriptors: int, memory: int) -> Bound:
    """Return the bound of a kind that gets its part of a machine.

    Args:
        descriptors: that clients may have.
        memory: of the machine, bytes.
    """
    most = min(kind.most, memory * kind.memory_part // MEMORY_PARTS // kind.cost.memory)
    if kind.cost.descriptors:
        part = descriptors * kind.descriptor_part // DESCRIPTOR_PARTS
        most = min(most, part // kind.cost.descriptors)
    return Bound.of(max(most, kind.least))
