# SPDX-License-Identifier: Apache-2.0
"""How long the tests wait for what must happen before they say that it has not.

In the emulated machine (``tests/vm``) everything takes many times longer, so they wait longer.
"""

from __future__ import annotations

import os
from typing import Final

_FACTOR: Final = 4 if os.environ.get("BINDERD_VM") == "1" else 1


def patience(seconds: float) -> float:
    """Return the seconds to wait for what takes less than so many on real hardware."""
    return seconds * _FACTOR
