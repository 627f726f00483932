# SPDX-License-Identifier: Apache-2.0
"""What the daemon and its helper say to each other, over a socket that keeps messages apart.

Nothing here may know what is done about it.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Parts = Iterator[tuple[bytes, Sequence[int]]]

FILES_MAX: Final = 253  # in one message, SCM_MAX_FD

# From the daemon. Each begins with its kind and the number of the job.
head: Final = Struct("=IQ")
BEGIN: Final = 1  # then ``job`` and descriptors to close there; files come along
PART: Final = 2  # more of both, of a job that has begun
CANCEL: Final = 3  # the job is no longer wanted, whether all of it has come or not; is answered
DISPOSE: Final = 4  # close the file that comes along; of no job: a number for CLOSED, ``account``

# Thread, how many files and how many descriptors to close there will be, room in its read buffer:
# address and bytes; how many files to send to it at once; the user whose thread it is.
job: Final = Struct("=IIIQQIq")

account: Final = Struct("=q")  # the user on whose account a file is closed

# From the helper: kind, the number of the job, an errno; then the numbers, s32 each.
report: Final = Struct("=IQi")
SEIZED: Final = 1  # the thread will stop before it runs code of its own
DONE: Final = 2
FAILED: Final = 3  # nothing is left of it
CLOSED: Final = 4  # what was to be closed is

NUMBER_SIZE: Final = 4
# In one message. The smallest buffer that a socket can have takes one of 4 KiB.
NUMBERS_MAX: Final = 900
REPORT_SIZE_MAX: Final = 64 << 10  # bytes


def of_job(
    number: int,
    tid: int,
    files: Sequence[int],
    closes: Sequence[int],
    room: tuple[int, int],
    at_once: int,
    owner: int,
) -> Parts:
    """Yield the messages that make a job, each with the files that go along; see ``Injector``."""
    begin = head.pack(BEGIN, number) + job.pack(tid, len(files), len(closes), *room, at_once, owner)
    yield begin + pack_numbers(closes[:NUMBERS_MAX]), files[:FILES_MAX]
    part = head.pack(PART, number)
    for start in range(FILES_MAX, len(files), FILES_MAX):
        yield part, files[start : start + FILES_MAX]
    for start in range(NUMBERS_MAX, len(closes), NUMBERS_MAX):
        yield part + pack_numbers(closes[start : start + NUMBERS_MAX]), ()


def pack_numbers(numbers: Sequence[int]) -> bytes:
    """Return descriptors as they follow in a message."""
    return Struct(f"={len(numbers)}i").pack(*numbers)


def unpack_numbers(message: bytes, start: int) -> tuple[int, ...]:
    """Return the descriptors from ``start`` to the end of a message."""
    count = (len(message) - start) // NUMBER_SIZE
    return Struct(f"={count}i").unpack_from(message, start)
