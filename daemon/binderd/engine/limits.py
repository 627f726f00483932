# SPDX-License-Identifier: Apache-2.0
"""Every bound that a client can reach, with its reason, and what clients can cost altogether.

The driver bounds most of these only by kernel memory, which it charges to nobody.  A daemon must
not be talked into eating the machine, so each kind of object that a client can make us keep has a
number. They are far above what real systems use (Android: some 30 threads, a few thousand refs a
process).

There are bounds of one process (an open file), and bounds of all open files of one user and of
everybody together: those are derived from the machine, and what they add up to is less than it has.
``user.py`` says who is charged for what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

# The driver's own cap on the size of the receive area (binder_mmap).
MAPPING_SIZE_MAX: Final = 4 << 20  # bytes

# Descriptors that are never a client's: for our questions to /proc, for opening a file that is then
# refused, for the helper, for readers of logs.
DESCRIPTORS_KEPT: Final = 96

PER_USER: Final = "_per_user"  # ends the name of a number that is a user's

_USERS: Final = 4  # so many users at their share use up what ordinary users can have
_ROOT_SHARE: Final = 8  # one part in so many is root's alone


class Cost(NamedTuple):
    """What one object costs the daemon at most."""

    descriptors: int
    memory: int  # bytes


class Bound(NamedTuple):
    """How many of a kind there may be."""

    total: int  # of everybody
    user: int  # of one ordinary user
    ordinary: int  # of all ordinary users together; root may have the rest as well

    @classmethod
    def of(cls, total: int) -> Bound:
        """Return the bound that gives everybody a share of ``total``."""
        return cls(total, max(total // _USERS, 1), max(total - total // _ROOT_SHARE, 1))


# An open file: its pages' memfd; /proc/PID, its mem and its maps, which the files of one process
# share unless it runs another program for each. A thread: its pidfd. A file on its way: itself. An
# attachment: its socket and a pidfd. A buffer's bytes are counted as those of its area.
COSTS: Final[dict[str, Cost]] = {
    "open_files": Cost(4, 24 << 10),
    "threads": Cost(1, 3 << 10),
    "nodes": Cost(0, 768),
    "refs": Cost(0, 512),
    "buffers": Cost(0, 1024),
    "areas": Cost(0, 1),  # a byte of them
    "calls": Cost(0, 512),
    "notices": Cost(0, 256),
    "files": Cost(1, 512),
    "attachments": Cost(2, 2 << 10),
}


class Limits(NamedTuple):
    """Bounds of one engine; reaching one gives the client the errno or reply named beside it."""

    # Of one open file
    threads_per_process: int = 4096  # ENOMEM from the ioctl, as when the driver has no memory
    nodes_per_process: int = 65536  # BR_FAILED_REPLY to the sender of one more binder
    refs_per_process: int = 65536  # BR_FAILED_REPLY to whoever sends this process one more
    buffers_per_process: int = 16384  # BR_FAILED_REPLY to the sender, as when space runs out
    objects_per_transaction: int = 8192  # BR_FAILED_REPLY; see write_bytes_per_ioctl
    attachments_per_process: int = 16  # ENOSPC from BINDERD_ATTACH; two descriptors of ours each
    files_per_transaction: int = 1024  # BR_FAILED_REPLY
    files_per_process: int = 2048  # on their way to it: BR_FAILED_REPLY
    # Who is killed waits for its ioctl, so that must not be arbitrarily long, even in slices: a
    # longer write buffer is consumed up to here and write_consumed says so.
    write_bytes_per_ioctl: int = 256 << 10

    # Of a user and of everybody
    open_files: Bound = Bound.of(8192)  # ENOMEM from open
    threads: Bound = Bound.of(1 << 17)  # ENOMEM from the ioctl
    nodes: Bound = Bound.of(1 << 20)  # BR_FAILED_REPLY to the sender of one more binder
    refs: Bound = Bound.of(1 << 20)  # BR_FAILED_REPLY to whoever sends this user one more
    buffers: Bound = Bound.of(1 << 20)  # BR_FAILED_REPLY to the sender
    areas: Bound = Bound.of(8192 << 20)  # bytes; BR_FAILED_REPLY to the sender of the first
    calls: Bound = Bound.of(1 << 19)  # under way: BR_FAILED_REPLY to the sender
    # Words of completion that were not read, death and freeze notices: BR_FAILED_REPLY, BR_ERROR,
    # ENOMEM.
    notices: Bound = Bound.of(1 << 20)
    files: Bound = Bound.of(16384)  # on their way: BR_FAILED_REPLY
    attachments: Bound = Bound.of(4096)  # ENOSPC from BINDERD_ATTACH

    # What others can make a process keep must not use up its user's share for the user's other
    # processes: each may have so many in any case.
    nodes_granted: int = 64
    refs_granted: int = 64
    buffers_granted: int = 32

    @classmethod
    def for_machine(cls, descriptors: int, memory: int) -> Limits:
        """Return the limits with which clients leave a machine enough.

        Of what there is of descriptors, beside those that are kept, half is for open files, a
        quarter for threads, an eighth each for files on their way and for attachments. Of the
        memory half is for receive areas, and less than a fifth for everything else.

        Args:
            descriptors: how many clients and we may have (RLIMIT_NOFILE).
            memory: of the machine, bytes.
        """
        usual = cls()
        free = max(descriptors - DESCRIPTORS_KEPT, 8)
        areas = min(usual.areas.total, memory // 2)
        return usual._replace(
            open_files=_share_out("open_files", free, memory, 4, 8),
            threads=_share_out("threads", free, memory, 2, 8),
            files=_share_out("files", free, memory, 1, 8),
            attachments=_share_out("attachments", free, memory, 1, 8),
            nodes=_share_out("nodes", free, memory, 1, 8),
            refs=_share_out("refs", free, memory, 1, 8),
            buffers=_share_out("buffers", free, memory, 1, 8),
            calls=_share_out("calls", free, memory, 1, 16),
            notices=_share_out("notices", free, memory, 1, 16),
            areas=Bound.of(max(areas, MAPPING_SIZE_MAX)),
        )

    def with_numbers(self, chosen: Sequence[tuple[str, int]]) -> Limits:
        """Return these limits with some numbers instead.

        Args:
            chosen: names of ``number_names`` and numbers, sorted: a bound of everybody, which gives
                everybody the usual share, comes before that of a user.
        """
        limits = self
        for name, number in chosen:
            field = name.removesuffix(PER_USER)
            value = getattr(limits, field)
            if not isinstance(value, Bound):
                value = number
            elif field == name:
                value = Bound.of(number)
            else:
                value = value._replace(user=min(number, value.total))
            limits = limits._replace(**{field: value})
        return limits

    def numbers(self) -> dict[str, int]:
        """Return every number that can be chosen, by its name."""
        found = {}
        for field in self._fields:
            value = getattr(self, field)
            if isinstance(value, Bound):
                found[field] = value.total
                found[field + PER_USER] = value.user
            else:
                found[field] = value
        return found

    def cost_of_all(self) -> Cost:
        """Return what all clients together can cost the daemon."""
        return self._cost([_bound_of(self, kind).total for kind in COSTS], self.open_files.total)

    def cost_of_user(self) -> Cost:
        """Return what one ordinary user can cost the daemon."""
        return self._cost([_bound_of(self, kind).user for kind in COSTS], self.open_files.user)

    def _cost(self, counts: list[int], open_files: int) -> Cost:
        descriptors = memory = 0
        for count, cost in zip(counts, COSTS.values(), strict=True):
            descriptors += count * cost.descriptors
            memory += count * cost.memory
        for kind, granted in (
            ("nodes", self.nodes_granted),
            ("refs", self.refs_granted),
            ("buffers", self.buffers_granted),
        ):
            memory += open_files * granted * COSTS[kind].memory
        return Cost(descriptors, memory)


def _share_out(kind: str, descriptors: int, memory: int, part: int, parts: int) -> Bound:
    """Return the bound of a kind that gets its part of the descriptors and an eighth of the memory.

    Args:
        descriptors: that clients may have.
        memory: of the machine, bytes.
        part: how much of it the kind gets ...
        parts: ... of so many.
    """
    cost, most = COSTS[kind], _bound_of(Limits(), kind).total
    if cost.descriptors:
        most = min(most, descriptors * part // parts // cost.descriptors)
    return Bound.of(max(min(most, memory // 8 * part // parts // cost.memory), 1))


def _bound_of(limits: Limits, kind: str) -> Bound:
    bound = getattr(limits, kind)
    assert isinstance(bound, Bound)
    return bound
