# SPDX-License-Identifier: Apache-2.0
"""What is taken of the two: C where it is compiled, else Python."""

from __future__ import annotations

try:
    from binderd.edge.native import (
        beat,
        copy_memory,
        enter,
        nice_of,
        read_ahead,
        read_frame,
        read_memory,
        show,
        store_over,
        take_ahead,
        write_frame,
        write_memory,
    )
except ImportError:
    from binderd.edge.plain import (
        beat,
        copy_memory,
        enter,
        nice_of,
        read_ahead,
        read_frame,
        read_memory,
        show,
        store_over,
        take_ahead,
        write_frame,
        write_memory,
    )

__all__ = [
    "beat",
    "copy_memory",
    "enter",
    "nice_of",
    "read_ahead",
    "read_frame",
    "read_memory",
    "show",
    "store_over",
    "take_ahead",
    "write_frame",
    "write_memory",
]
