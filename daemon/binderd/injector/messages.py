# SPDX-License-Identifier: Apache-2.0
"""What the daemon and its helper say to each other, over a socket that keeps messages apart.

Nothing here may know what is done about it.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

FILES_MAX: Final = 253  # in one message, SCM_MAX_FD

# From the daemon. Each begins with its kind and the number of the job.
head: Final = Struct("=IQ")
BEGIN: Final = 1  # then ``job`` and the descriptors to close; the files come along
FILES: Final = 2  # more files for a job that has begun
CANCEL: Final = 3  # nobody wants it any more
DISPOSE: Final = 4  # close the files that come along; of no job

# Thread, how many files there will be, room in its read buffer: address and bytes.
job: Final = Struct("=IIQQ")

# From the helper: kind, the number of the job, an errno; then the numbers, s32 each.
report: Final = Struct("=IQi")
SEIZED: Final = 1  # the thread will stop before it runs code of its own
DONE: Final = 2
FAILED: Final = 3  # nothing is left of it

NUMBER_SIZE: Final = 4
REPORT_SIZE_MAX: Final = 64 << 10  # bytes


def pack_numbers(numbers: list[int]) -> bytes:
    """Return descriptors as they follow in a message."""
    return Struct(f"={len(numbers)}i").pack(*numbers)


def unpack_numbers(message: bytes, start: int) -> tuple[int, ...]:
    """Return the descriptors from ``start`` to the end of a message."""
    count = (len(message) - start) // NUMBER_SIZE
    return Struct(f"={count}i").unpack_from(message, start)
