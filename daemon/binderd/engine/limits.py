# SPDX-License-Identifier: Apache-2.0
"""Every bound that a client can reach, with its reason.

The driver bounds most of these only by kernel memory, which it charges to nobody.  A daemon must
not be talked into eating the machine, so each kind of object that a client can make us keep has a
number. They are far above what real systems use (Android: some 30 threads, a few thousand refs a
process).
"""

from __future__ import annotations

from typing import Final, NamedTuple

# The driver's own cap on the size of the receive area (binder_mmap).
MAPPING_SIZE_MAX: Final = 4 << 20  # bytes


class Limits(NamedTuple):
    """Bounds of one engine; reaching one gives the client the errno or reply named beside it."""

    processes: int = 8192  # open files: ENOMEM from open; each costs the daemon three descriptors
    threads_per_process: int = 4096  # ENOMEM from the ioctl, as when the driver has no memory
    nodes_per_process: int = 65536  # BR_FAILED_REPLY to the sender of one more binder
    refs_per_process: int = 65536  # BR_FAILED_REPLY to whoever sends this process one more
    buffers_per_process: int = 16384  # BR_FAILED_REPLY to the sender, as when space runs out
    objects_per_transaction: int = 8192  # BR_FAILED_REPLY; see write_bytes_per_ioctl
    attachments_per_process: int = 16  # ENOSPC from BINDERD_ATTACH; two descriptors of ours each
    # Files on their way, which the daemon has open meanwhile; BR_FAILED_REPLY. Each open file of a
    # device has the same number as sender and as receiver, so that nobody uses up all of them.
    files_per_transaction: int = 1024
    files_per_process: int = 2048
    files: int = 16384  # of the whole daemon; fewer where it may have fewer descriptors
    # One ioctl is one turn of the daemon, so one client must not make it arbitrarily long: a longer
    # write buffer is consumed up to here and write_consumed says so.
    write_bytes_per_ioctl: int = 256 << 10
