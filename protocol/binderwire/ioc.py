# SPDX-License-Identifier: Apache-2.0
"""ioctl numbers, computed as ``<asm-generic/ioctl.h>`` computes them.

binder encodes its BC_ and BR_ command words the same way, so this is where they come from, too.
"""

from __future__ import annotations

from typing import Final

IOC_NONE: Final = 0
IOC_WRITE: Final = 1
IOC_READ: Final = 2

_SIZE_SHIFT: Final = 16
_SIZE_MASK: Final = 0x3FFF


def ioc(direction: int, type_letter: str, number: int, size: int) -> int:
    """Return ``_IOC(direction, type, number, size)``.

    Args:
        direction: IOC_NONE, IOC_WRITE, IOC_READ or both or'ed, as the program sees it: a program
            writes what the driver reads.
        type_letter: the driver's own, one character.
        number: which of the driver's ioctls it is, below 256.
        size: of the argument, bytes, at most 16383.

    Raises:
        ValueError: ``size`` does not fit.
    """
    if not 0 <= size <= _SIZE_MASK:
        raise ValueError(f"an ioctl argument of {size} bytes has no number")
    return direction << 30 | size << _SIZE_SHIFT | ord(type_letter) << 8 | number


def ioc_size(request: int) -> int:
    """Return the argument size in bytes that an ioctl number or command word carries."""
    return request >> _SIZE_SHIFT & _SIZE_MASK


def ioc_direction(request: int) -> int:
    """Return IOC_NONE, IOC_WRITE, IOC_READ or both or'ed."""
    return request >> 30 & 3
