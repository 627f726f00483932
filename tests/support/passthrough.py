# SPDX-License-Identifier: Apache-2.0
"""Whether the kernel can share clients' pages with a FUSE daemon."""

from __future__ import annotations

import os
from typing import Final

import pytest

_SINCE: Final = (6, 9)


def _version() -> tuple[int, int]:
    first, second, *_ = os.uname().release.split(".")
    return int(first), int(second.split("-")[0])


HAS_PASSTHROUGH: Final = _version() >= _SINCE
needs_passthrough = pytest.mark.skipif(
    not HAS_PASSTHROUGH, reason="needs FUSE passthrough: Linux 6.9"
)
