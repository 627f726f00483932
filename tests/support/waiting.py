# SPDX-License-Identifier: Apache-2.0
"""Waiting for a state, with a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_GLANCE: Final = 0.01  # seconds between two looks


def eventually(
    condition: Callable[[], object], what: str = "it did not happen", *, seconds: float = 10.0
) -> None:
    """Wait until something is so.

    Args:
        condition: returns whether it is.
        what: is said if it never is.
        seconds: until it is considered stuck.

    Raises:
        AssertionError: it is not so in that time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(_GLANCE)
