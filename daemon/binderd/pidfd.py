# SPDX-License-Identifier: Apache-2.0
"""The pidfd through which a thread's descriptors are taken, on kernels that have pidfds of threads
and on those that have not.

Nothing here may know what is taken.
"""

from __future__ import annotations

import os
from errno import EINVAL
from typing import Final

_PIDFD_THREAD: Final = os.O_EXCL  # Linux 6.9
_TGID: Final = b"Tgid:"


def open_for_descriptors(tid: int) -> int:
    """Return a pidfd that leads to the descriptors of thread ``tid``, whose number is its own.

    Differs: before Linux 6.9 there are pidfds of processes only, so a thread that has a table of
    descriptors of its own (without CLONE_FILES) is taken for its process' first one; and where that
    has ended nothing can be taken.

    Raises:
        OSError: there is none.
    """
    try:
        return os.pidfd_open(tid, _PIDFD_THREAD)
    except OSError as error:
        if error.errno != EINVAL:
            raise
    with open(f"/proc/{tid}/status", "rb") as status:
        process = next(line for line in status if line.startswith(_TGID))
    return os.pidfd_open(int(process[len(_TGID) :]))
