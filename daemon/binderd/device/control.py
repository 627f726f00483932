# SPDX-License-Identifier: Apache-2.0
"""binder-control: the file through which devices are added.

It has no state, so all its open files share one handle. Nothing here may know frames or the engine.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL
from typing import TYPE_CHECKING, Final

from binderwire.binder_abi import BINDER_CTL_ADD, binderfs_device

if TYPE_CHECKING:
    from binderd.fuse.directory import Directory

CONTROL_HANDLE: Final = 1  # of every open file of binder-control; devices' files have others

# What a poll of a file that knows nothing of polling reports.
POLL_EVENTS: Final = 0x001 | 0x004 | 0x040 | 0x100  # POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM

_NAME_SIZE: Final = binderfs_device.fields[0].size
# Differs: our devices are regular files and have no device numbers. The minor number is given out
# as the driver does, for nothing but to be told; the major number says that it is none.
_MAJOR: Final = 0


def control_ioctl(directory: Directory, request: int, argument: bytes) -> tuple[int, bytes]:
    """Carry out an ioctl on binder-control (binder_ctl_ioctl).

    Args:
        argument: as the client passed it.

    Returns:
        0 or a negative errno, and the argument for the client: also beside EACCES and EEXIST,
        because the driver fills it in before it looks at the name. EINVAL: not BINDER_CTL_ADD.
    """
    if request != BINDER_CTL_ADD:
        return -EINVAL, b""
    if len(argument) < binderfs_device.size:
        return -EFAULT, b""
    padded_name = argument[: _NAME_SIZE - 1] + b"\0"
    errno, minor = directory.add(padded_name[: padded_name.index(0)])
    if minor is None:
        return -errno, b""
    return -errno, binderfs_device.pack(padded_name, _MAJOR, minor)
