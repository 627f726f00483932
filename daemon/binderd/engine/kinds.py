# SPDX-License-Identifier: Apache-2.0
"""Every kind of object that clients can make the daemon keep: one row each, here and nowhere else.

A row says what one of a kind costs, how many there may be, what part of a machine they may take,
and what a client sees when there is no room for more. ``limits.py`` derives the bounds from the
table, ``user.py`` counts by it, the options of ``[limits]`` have its names, docs/LIMITS.md is made
of it, and a test walks it.

The driver bounds most of these only by kernel memory, which it charges to nobody. A daemon must
not be talked into eating the machine. The numbers are far above what real systems use (Android:
some 30 threads, a few thousand refs a process).
"""

from __future__ import annotations

from typing import Final, NamedTuple

# Parts of a machine, of which the rows take theirs.
DESCRIPTOR_PARTS: Final = 16  # of the descriptors that clients may have
MEMORY_PARTS: Final = 128  # of the memory; two fifths of it are for receive areas


class Cost(NamedTuple):
    """What one object costs the daemon at most."""

    descriptors: int
    memory: int  # bytes


class Kind:
    """A kind of thing.

    Args:
        name: of its bound, as in ``[limits]``; with PER_USER behind it of one user's.
        cost: of one.
        most: how many there may be on a machine that has everything.
        memory_part: of the machine's memory, in MEMORY_PARTS.
        descriptor_part: of the descriptors that clients may have, in DESCRIPTOR_PARTS.
        what: one of them.
        seen: what a client sees that wants one more.
        object_limit: the field of ``Limits`` that bounds how many one object can have; "": none.
        granted: the field of ``Limits`` that says how many each open file may have in any case, as
            others can make it have some; "": none.
        least: how many there may be on the smallest machine.
    """

    __slots__ = (
        "cost",
        "descriptor_part",
        "granted",
        "index",
        "least",
        "memory_part",
        "most",
        "name",
        "object_limit",
        "seen",
        "what",
    )

    def __init__(
        self,
        name: str,
        cost: Cost,
        most: int,
        *,
        memory_part: int,
        descriptor_part: int = 0,
        what: str,
        seen: str,
        object_limit: str = "",
        granted: str = "",
        least: int = 1,
    ) -> None:
        self.name = name
        self.cost = cost
        self.most = most
        self.memory_part = memory_part
        self.descriptor_part = descriptor_part
        self.what = what
        self.seen = seen
        self.object_limit = object_limit
        self.granted = granted
        self.least = least
        self.index: int = len(KINDS)  # in KINDS, and wherever something is kept per kind
        KINDS.append(self)


KINDS: Final[list[Kind]] = []

# The driver's own cap on the size of the receive area (binder_mmap).
MAPPING_SIZE_MAX: Final = 4 << 20  # bytes

# An open file has its pages' memfd, and /proc/PID, its mem and its maps, which the files of one
# process share unless it runs another program for each.
OPEN_FILES: Final = Kind(
    "open_files",
    Cost(4, 24 << 10),
    8192,
    memory_part=8,
    descriptor_part=7,
    what="open file of a device",
    seen="ENOMEM from open",
)
THREADS: Final = Kind(
    "threads",
    Cost(1, 3 << 10),  # a pidfd
    1 << 17,
    memory_part=4,
    descriptor_part=3,
    what="thread that has used an open file",
    seen="ENOMEM from the ioctl, POLLERR from poll",
    object_limit="threads_per_process",
)
NODES: Final = Kind(
    "nodes",
    Cost(0, 768),
    1 << 20,
    memory_part=2,
    what="binder that a process has sent (node)",
    seen="BR_FAILED_REPLY (-ENOMEM) to the sender of one more",
    object_limit="nodes_per_process",
    granted="nodes_granted",
)
REFS: Final = Kind(
    "refs",
    Cost(0, 512),
    1 << 20,
    memory_part=2,
    what="handle that a process has (ref)",
    seen="BR_FAILED_REPLY (-ENOMEM) to the sender of one more",
    object_limit="refs_per_process",
    granted="refs_granted",
)
BUFFERS: Final = Kind(
    "buffers",
    Cost(0, 1 << 10),  # with the transaction; its bytes are those of the area
    1 << 20,
    memory_part=2,
    what="buffer that was not freed, or transaction that was not read",
    seen="BR_FAILED_REPLY (-ENOMEM, of one process -ENOSPC) to the sender",
    object_limit="buffers_per_process",
    granted="buffers_granted",
)
OBJECTS: Final = Kind(
    "objects",
    Cost(0, 128),
    1 << 22,
    memory_part=2,
    what="binder, handle or array's descriptor in such a buffer",
    seen="BR_FAILED_REPLY (-ENOMEM) to the sender",
    object_limit="objects_per_transaction",
    granted="objects_granted",
)
AREAS: Final = Kind(
    "areas",
    Cost(0, 1),
    8 << 30,
    memory_part=52,
    what="byte of a receive area, from the first delivery on",
    seen="BR_FAILED_REPLY (-ENOMEM) to the sender of the first",
    least=MAPPING_SIZE_MAX,
)
CALLS: Final = Kind(
    "calls",
    Cost(0, 512),
    1 << 19,
    memory_part=1,
    what="call that is not answered",
    seen="BR_FAILED_REPLY (-ENOMEM)",
)
NOTICES: Final = Kind(
    "notices",
    Cost(0, 256),
    1 << 20,
    memory_part=1,
    what="death or freeze notice, or word of completion that was not read",
    seen="BR_ERROR (death), ENOMEM (freeze), BR_FAILED_REPLY (-ENOMEM) to the sender",
)
FREEZES: Final = Kind(
    "freezes",
    Cost(0, 32 << 10),  # a task, and the open files of the process
    4096,
    memory_part=1,
    what="BINDER_FREEZE that waits for calls",
    seen="ENOMEM from the ioctl",
)
FILES: Final = Kind(
    "files",
    Cost(1, 512),
    16384,
    memory_part=2,
    descriptor_part=2,
    what="file on its way to a receiver",
    seen="BR_FAILED_REPLY (-ENOMEM) to the sender",
    object_limit="files_per_process",
)
ATTACHMENTS: Final = Kind(
    "attachments",
    Cost(2, 2 << 10),  # its socket and a pidfd
    4096,
    memory_part=2,
    descriptor_part=2,
    what="socket that a process has attached",
    seen="ENOSPC from BINDERD_ATTACH",
    object_limit="attachments_per_process",
)
# What is sent through a socket counts as root's until it is taken, as it is root that sends it, and
# a process of root's without capabilities can send nothing while more than its RLIMIT_NOFILE are on
# their way (ETOOMANYREFS). That is 1024 as a rule, of which we take no more than half. A socket
# stays open here until what went through it was taken, as nothing else tells us.
FLIGHTS: Final = Kind(
    "flights",
    Cost(1, 1 << 10),
    512,
    memory_part=1,
    descriptor_part=1,
    what="file that was sent through a socket and not taken",
    seen="EAGAIN from BINDERD_ATTACH, BR_FAILED_REPLY to the sender",
    object_limit="flights_per_attachment",
)
FILES_AT_ONCE: Final = 32  # a receiver that is stopped for its files is sent no more of them
CLOSES: Final = Kind(
    "closes",
    Cost(1, 1 << 10),
    16384,
    memory_part=1,
    descriptor_part=1,
    what="file that a user has sent and that is being closed, which can take any time",
    seen="BR_FAILED_REPLY (-ENOMEM) to the user that sends one more",
)
OUTBOX: Final = Kind(
    "outbox",
    Cost(0, 1),
    4 << 20,
    memory_part=1,
    what="byte of what waits for the helper, which stops receivers, with 512 for each message",
    seen="BR_FAILED_REPLY to the sender",
    least=1 << 16,
)
# The bytes of one command: its data and pieces fill a receive area at most, and some more.
FETCH_MAX: Final = 9 << 20
WORKERS: Final = Kind(
    "workers",
    Cost(0, 4 << 20),  # a forked process, with what it has read
    64,
    memory_part=4,
    what="process that reaches into memory that is not there, also if it never comes back",
    seen="others wait for it; past the time for that as for memory that cannot be used: EFAULT, "
    "BR_FAILED_REPLY",
    least=4,
)
FETCHED: Final = Kind(
    "fetched",
    Cost(0, 1),
    256 << 20,
    memory_part=4,
    what="byte that was fetched like that for a request that is not through",
    seen="EFAULT, BR_FAILED_REPLY",
    least=2 * FETCH_MAX,
)
LOGS: Final = Kind(
    "logs",
    Cost(0, 8 << 10),
    1024,
    memory_part=1,
    what="open file of binder_logs or features",
    seen="ENFILE from open",
    least=16,
)
LOG_BYTES: Final = Kind(
    "log_bytes",
    Cost(0, 1),
    256 << 20,
    memory_part=2,
    what="byte of text of such a file",
    seen="ENOMEM from open",
    least=1 << 20,
)
INODES: Final = Kind(
    "inodes",
    Cost(0, 512),
    1 << 16,
    memory_part=1,
    what="device that was looked up and is held: an open file, also with O_PATH, a watch",
    seen="ENOMEM from open, stat and so on",
)
LOCK_WAITS: Final = Kind(
    "lock_waits",
    Cost(0, 1 << 10),
    1 << 14,
    memory_part=1,
    what="flock that waits",
    seen="ENOLCK from flock",
)
# Counted by ``fuse/turns.py``, by the same bounds. What else that keeps is bounded where it is: one
# account for each user that has something, a few thousand of those that had.
WAITING_BYTES: Final = Kind(
    "waiting_bytes",
    Cost(0, 1),
    32 << 20,
    memory_part=1,
    what="byte of a request that waits for its turn, with 512 for each",
    seen="ENOMEM from the request",
    least=1 << 20,
)
