# SPDX-License-Identifier: Apache-2.0
"""What the daemon, the manager and the workers say to each other, one message per packet.

A job goes daemon -> manager -> worker as it is. Its outcome goes from the worker straight to the
daemon; what does not fit into a packet is in a memfd that comes along.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Daemon to manager, and on to a worker
READ: Final = 1  # behind the head: (address, size) of each range
WRITE: Final = 2  # address, then the bytes
LOCATE: Final = 3  # the device and inode numbers of each file
GIVE_UP: Final = 4  # nobody waits for that job any more; of the manager

# Worker or manager to daemon
DONE: Final = 5  # the worker has answered
FREED: Final = 6  # the job's worker can take others, or has gone

head: Final = Struct("=IiQ")  # what, thread id, number of the job
span: Final = Struct("=QQ")  # address, bytes
file: Final = Struct("=QQQ")  # major, minor, inode
outcome: Final = Struct("=IIQ")  # what, 1 if the bytes are in a memfd, number of the job
length: Final = Struct("=q")  # of READ: bytes of a range; of WRITE: 1 if all was written, else 0
area: Final = Struct("=qQQQ")  # of LOCATE: which file, -1: none; start, end, offset in the file

IN_PACKET_MAX: Final = 32 << 10  # bytes of an outcome
PACKET_MAX: Final = 160 << 10  # of a job; less than a socket holds anywhere


def read_job(number: int, tid: int, ranges: Sequence[tuple[int, int]]) -> bytes:
    """Return the message that asks for the bytes of some ranges of a thread's memory."""
    return head.pack(READ, tid, number) + b"".join(span.pack(*one) for one in ranges)


def write_job(number: int, tid: int, address: int, data: bytes) -> bytes:
    """Return the message that asks to store ``data`` in a thread's memory."""
    return head.pack(WRITE, tid, number) + span.pack(address, len(data)) + data


def locate_job(number: int, tid: int, files: Sequence[tuple[int, int, int]]) -> bytes:
    """Return the message that asks where a thread's process has one of some files mapped."""
    return head.pack(LOCATE, tid, number) + b"".join(file.pack(*one) for one in files)


def give_up(number: int) -> bytes:
    """Return the message that says that nobody waits for a job any more."""
    return head.pack(GIVE_UP, 0, number)
