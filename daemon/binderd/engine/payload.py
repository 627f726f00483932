# SPDX-License-Identifier: Apache-2.0
"""The layout of a payload in its buffer: data, offsets, pieces of memory, security context (B7).

Each part is rounded up to 8 bytes. All sizes and positions are in bytes, these from the start of
the buffer. Nothing here may know what the parts are.
"""

from __future__ import annotations

from typing import Final

# data, offsets, extra (scatter-gather) and security context
Sizes = tuple[int, int, int, int]

_LEAST: Final = 8  # also if there is nothing in it


def aligned(size: int) -> int:
    """Return how much room a part takes."""
    return size + 7 & ~7


def offsets_at(data_size: int) -> int:
    """Return where the offsets are."""
    return data_size + 7 & ~7


def extra_at(data_size: int, offsets_size: int) -> int:
    """Return where the pieces of memory are."""
    return (data_size + 7 & ~7) + (offsets_size + 7 & ~7)


def extra_size_of(extra_size: int, context_size: int) -> int:
    """Return how much there is behind the offsets, as the driver counts it."""
    return extra_size + (context_size + 7 & ~7)


def size_of(sizes: Sizes) -> int:
    """Return how much room a payload takes (binder_alloc_new_buf)."""
    data_size, offsets_size, extra_size, context_size = sizes
    size = (data_size + 7 & ~7) + (offsets_size + 7 & ~7)
    if extra_size or context_size:
        size += extra_size + (context_size + 7 & ~7) + 7 & ~7
    return size or _LEAST


def context_at(size: int, context_size: int) -> int:
    """Return where the security context is, at the end of a payload that takes ``size``."""
    return size - (context_size + 7 & ~7)


def capacity_of(area_size: int) -> int:
    """Return how much of a receive area can have payloads in it."""
    return area_size & ~7
