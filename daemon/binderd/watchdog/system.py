# SPDX-License-Identifier: Apache-2.0
"""What the watchdog says, and how the kernel numbers devices.

Nothing here may know what it is about.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from errno import EPERM
from typing import Final

_MINOR_BITS: Final = 20


def device_number(major: int, minor: int) -> int:
    """Return the kernel's number for a device, which is that of its FUSE connection as well."""
    return major << _MINOR_BITS | minor


def has_major(number: int) -> bool:
    """Return whether a device has a major number: file systems without a disk have none."""
    return bool(number >> _MINOR_BITS)


def why(error: OSError) -> str:
    """Return why something failed, in words."""
    if error.errno == EPERM:
        return f"{error.strerror} (other users' processes take CAP_KILL)"
    return error.strerror or str(error)


def say(text: str) -> None:
    """Write a line to the daemon's stderr."""
    with suppress(OSError):
        print(f"binderd: {text}", file=sys.stderr, flush=True)
