# SPDX-License-Identifier: Apache-2.0
"""Small questions to the system, each of which raises OSError where it could not be asked.

Nothing here may know what the answers are for.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from errno import EPERM
from typing import Final

_READ_SIZE: Final = 1 << 16
MINOR_BITS: Final = 20

_libc = ctypes.CDLL(None, use_errno=True)


def lines(path: str) -> list[bytes]:
    """Return the lines of a file; nothing but a newline ends one."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, _READ_SIZE):
            pieces.append(piece)
    finally:
        os.close(fd)
    found = b"".join(pieces).split(b"\n")
    if not found[-1]:
        del found[-1]
    return found


def status_field(place: str, name: bytes) -> list[bytes]:
    """Return the words behind ``name``, which has the colon, in the status of a process."""
    for line in lines(f"{place}/status"):
        if line.startswith(name):
            return line[len(name) :].split()
    raise ProcessLookupError


def device(text: bytes) -> int:
    """Return the kernel's number for a device that a file of /proc writes as major:minor."""
    major, _, minor = text.partition(b":")
    return int(major) << MINOR_BITS | int(minor)


def call(number: int, *arguments: object) -> int:
    """Make a system call."""
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result


def why(error: OSError) -> str:
    """Return why something failed, in words."""
    if error.errno == EPERM:
        return f"{error.strerror} (other users' processes take CAP_KILL)"
    return error.strerror or str(error)


def say(text: str) -> None:
    """Tell whoever reads the daemon's stderr."""
    with suppress(OSError):
        print(f"binderd: {text}", file=sys.stderr, flush=True)
