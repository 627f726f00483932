# SPDX-License-Identifier: Apache-2.0
"""What the daemon, the manager and the workers say to each other, one message per packet.

A job goes daemon -> manager -> worker as it is. Its outcome goes from the worker straight to the
daemon; what does not fit into a packet is in a memfd that comes along.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from binderd.linux import scm_rights

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

# Daemon to manager, and on to a worker
READ: Final = 1  # behind the head: (address, size) of each range
WRITE: Final = 2  # address, then the bytes
LOCATE: Final = 3  # what mappings do not count, then device and inode numbers of each file
GIVE_UP: Final = 4  # to the manager: the job is no longer waited for
# With three descriptors: the client's /proc/PID/mem and /proc/PID/maps, and a file's.
STORE: Final = 7

# Worker or manager to daemon
DONE: Final = 5  # the worker has answered
FREED: Final = 6  # the job's worker can take others, or has gone

head: Final = Struct("=IiQ")  # what, thread id, number of the job
span: Final = Struct("=QQ")  # address, bytes
file: Final = Struct("=QQQ")  # major, minor, inode
outcome: Final = Struct("=IIQ")  # what, 1 if the bytes are in a memfd, number of the job
length: Final = Struct("=q")  # of READ: bytes of a range; of WRITE: 1 if all was written, else 0
count: Final = Struct("=I")  # of LOCATE: how many addresses follow
where: Final = Struct("=Q")  # one of them
# Of STORE: the file that must be mapped (major, minor, inode), the address there, then where in the
# file that comes along the bytes are, and how many.
store: Final = Struct("=QQQQQQ")
FILES_MAX: Final = 3  # descriptors of a job
area: Final = Struct("=qQQQ")  # of LOCATE: which file, -1: none; start, end, offset in the file

IN_PACKET_MAX: Final = 32 << 10  # bytes of an outcome
PACKET_MAX: Final = 160 << 10  # of a job; less than a socket holds anywhere


def read_job(number: int, tid: int, ranges: Sequence[tuple[int, int]]) -> bytes:
    """Return the message that asks for the bytes of some ranges of a thread's memory."""
    return head.pack(READ, tid, number) + b"".join(span.pack(*one) for one in ranges)


def write_job(number: int, tid: int, address: int, data: bytes) -> bytes:
    """Return the message that asks to store ``data`` in a thread's memory."""
    return head.pack(WRITE, tid, number) + span.pack(address, len(data)) + data


def locate_job(
    number: int, tid: int, files: Sequence[tuple[int, int, int]], taken: Sequence[int]
) -> bytes:
    """Return the message that asks where a thread's process has one of some files mapped.

    Args:
        taken: where mappings start that do not count.
    """
    addresses = count.pack(len(taken)) + b"".join(where.pack(one) for one in taken)
    return head.pack(LOCATE, tid, number) + addresses + b"".join(file.pack(*one) for one in files)


def store_job(
    number: int, wanted: tuple[int, int, int], address: int, offset: int, size: int
) -> bytes:
    """Return the message that asks to store bytes of a file where another is mapped."""
    return head.pack(STORE, 0, number) + store.pack(*wanted, address, offset, size)


def give_up(number: int) -> bytes:
    """Return the message that gives a job up."""
    return head.pack(GIVE_UP, 0, number)


def take_job(channel: socket.socket) -> tuple[bytes, list[int]]:
    """Return a message of the daemon's, and the descriptors that came along.

    An empty message: there will be no more.

    Raises:
        OSError: it cannot be received, or not in time.
    """
    return scm_rights.receive(channel, PACKET_MAX, FILES_MAX)


def pass_job(channel: socket.socket, message: bytes, fds: Sequence[int]) -> None:
    """Send such a message on.

    Raises:
        OSError: nobody is there.
    """
    scm_rights.send(channel, [message], fds)
